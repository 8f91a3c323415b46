"""Attribution: what the probes can be asked, and what each method can and cannot show (torch-free).

In every answer ``facts["students"]`` lists the students in the order asked, each with its ``id``, ``name``, ``kind``
(of its training set) and ``network``; names of pictures count them from 0, and table rows carry ``id`` and ``student``
(the name).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.probes.base import ProbeInfo
from engine.table import Frozen, field

# ---- methods ---------------------------------------------------------------------------------------------------------

# Networks with GroupNorm of one channel a group: every image is normalised by its own statistics, so that a constant
# image has variance 0 and is divided by the square root of epsilon.
INSTANCE_NORMALISED = ("convnet", "vgg11", "resnet18", "edge-popup")
TRANSFORMERS = ("vit",)
WITHOUT_MAPS = ("mlp",)  # no layer in which places are kept


@dataclass(frozen=True)
class Method:
    """An attribution method as pages, help texts and the command line show it.

    ``shows`` and ``cannot``: a sentence each on what its map can and cannot show. ``cost``: a sentence. ``knobs``:
    fields of ``AttributionSpec`` that matter to it. ``gradient``: whether SmoothGrad can be put over it. ``signed``:
    whether a map has both signs. ``complete``: whether the values of a map should add up to f(x) - f(baseline).
    """

    id: str
    name: str
    paper: str
    shows: str
    cannot: str
    cost: str
    knobs: tuple[str, ...] = ()
    gradient: bool = False
    signed: bool = True
    complete: bool = False

    def valid_for(self, network: str) -> str:
        """Nothing when the method is right for this network; else a sentence that says why it is not."""
        if self.id == "deeplift" and network in INSTANCE_NORMALISED:
            return (
                f"DeepLift has no rule for the normalisation layers of {network}, which divide each image by its own "
                "statistics: its values do not add up there. Use Integrated Gradients."
            )
        if self.id == "deeplift" and network in TRANSFORMERS:
            return (
                f"DeepLift has no rule for the attention and layer norms of {network}: its values do not add up "
                "there. Use Integrated Gradients."
            )
        if self.id in ("gradcam", "guided-gradcam") and network in WITHOUT_MAPS:
            return f"{self.name} weighs the feature maps of a convolutional layer, and {network} has none."
        if self.id == "guided-gradcam" and network in TRANSFORMERS:
            return f"{self.name} changes how gradients pass ReLUs, and {network} has none. Use Grad-CAM."
        return ""


METHOD_INFO: dict[str, Method] = {
    m.id: m
    for m in (
        Method(
            "saliency",
            "Saliency",
            "Simonyan, Vedaldi & Zisserman, Deep Inside Convolutional Networks, ICLR workshop 2014",
            "Where the smallest change of a pixel changes the answer most: the size of the gradient.",
            "No sign, and nothing about large changes: where the answer is saturated the gradient is small although "
            "the pixels matter.",
            "One forward and one backward pass: hundredths of a second for each student.",
            gradient=True,
            signed=False,
        ),
        Method(
            "inputxgradient",
            "Input × gradient",
            "Shrikumar, Greenside & Kundaje, Learning Important Features, ICML 2017 (its baseline)",
            "Which bright pixels speak for (orange) or against (blue) the answer, to first order.",
            "Black pixels get exactly 0 however much the student relies on their being black.",
            "One forward and one backward pass: hundredths of a second for each student.",
            gradient=True,
        ),
        Method(
            "integrated-gradients",
            "Integrated gradients",
            "Sundararajan, Taly & Yan, Axiomatic Attribution for Deep Networks, ICML 2017",
            "How the difference of the answer between a baseline and the image is shared out among the pixels; the "
            "shares add up to it.",
            "Nothing where image and baseline agree, and another baseline asks another question.",
            "A pass for each step, and for each that is added where those were too few: some tenths of a second for "
            "each student with 50.",
            ("steps", "baseline"),
            gradient=True,
            complete=True,
        ),
        Method(
            "gradientshap",
            "GradientSHAP",
            "Lundberg & Lee, A Unified Approach to Interpreting Model Predictions, NeurIPS 2017",
            "Integrated gradients at random points between noisy copies of the image and several baselines.",
            "The shares add up only on average over many samples.",
            "As many passes as samples: about a tenth of a second for each student.",
            ("samples", "noise", "baseline"),
            complete=True,
        ),
        Method(
            "deeplift",
            "DeepLift",
            "Shrikumar, Greenside & Kundaje, Learning Important Features, ICML 2017",
            "The difference of the answer to a baseline's, passed back layer by layer; the shares add up to it.",
            "It has rules for ReLU and max-pooling, but for no normalisation by the image's own statistics and for no "
            "attention.",
            "Two passes: hundredths of a second for each student.",
            ("baseline",),
            gradient=True,
            complete=True,
        ),
        Method(
            "guided-gradcam",
            "Guided Grad-CAM",
            "Selvaraju et al., Grad-CAM, ICCV 2017",
            "Fine edges within the region that Grad-CAM marks.",
            "Guided back-propagation draws much the same edges for a network with random weights: the region is "
            "evidence, the edges are not.",
            "Two forward and backward passes: hundredths of a second for each student.",
            gradient=True,
        ),
        Method(
            "gradcam",
            "Grad-CAM",
            "Selvaraju et al., Grad-CAM, ICCV 2017",
            "Roughly where the features lie that speak for the answer, in a late layer.",
            "No detail: the layer has few places, and what speaks against the answer is left out.",
            "One forward and one backward pass: hundredths of a second for each student.",
            signed=False,
        ),
        Method(
            "occlusion",
            "Occlusion",
            "Zeiler & Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014",
            "How much the answer really drops when a window is covered.",
            "Things that stand in for each other: covering one of two equal cues changes nothing.",
            "One forward pass for each place of the window: up to a second for each student.",
            ("window", "stride", "baseline"),
        ),
        Method(
            "feature-ablation",
            "Ablated superpixels",
            "Superpixels after Achanta et al., SLIC, TPAMI 2012; ablation as in Zeiler & Fergus, ECCV 2014",
            "How much the answer drops when a connected patch of similar colour is covered.",
            "Anything smaller than a superpixel, and cues that stand in for each other.",
            "One forward pass for each superpixel: some tenths of a second for each student.",
            ("superpixels", "baseline"),
        ),
    )
}

Attributing = Literal[
    "saliency",
    "inputxgradient",
    "integrated-gradients",
    "gradientshap",
    "deeplift",
    "guided-gradcam",
    "gradcam",
    "occlusion",
    "feature-ablation",
]

BASELINES = {
    "blurred": "the image itself, blurred until nothing in it can be told",
    "mean": "the average training image",
    "black": "all black",
    "noise": "uniform noise",
}


def baseline_note(method: str, baseline: str, network: str) -> str:
    """A sentence when a baseline makes a path method meaningless for this network, else nothing."""
    if baseline == "black" and METHOD_INFO[method].complete and network in INSTANCE_NORMALISED:
        return (
            f"Do not trust this map: {network} divides each image by its own standard deviation, so that nearly all of "
            "the change between black and the image happens while it is still all but black. The map explains that "
            "step, and few points of the path lie on it. Choose the baseline blurred."
        )
    return ""


# ---- fields that several probes share --------------------------------------------------------------------------------

IMAGE_HELP = (
    "test:INDEX or train:INDEX, a real image of the students' dataset, or test:CLASS:INDEX, counted within a class; "
    "synthetic:RUN:INDEX, an image of a synthetic set; file:NAME, a picture that a page has kept."
)
TARGET_HELP = "The answer that is explained: predicted (each student's own), true (the image's class), or a class."


class _Asked(Frozen):
    """Which students."""

    students: str = field(
        "", "Students", "st", "Ids of trained students, separated by commas.", min_length=1, max_length=2000
    )


class _Method(_Asked):
    """Which students, by which method with which knobs."""

    method: Attributing = field("integrated-gradients", "Method", "m", "How the answer is attributed to pixels.")
    steps: int = field(
        50,
        "Steps",
        "n",
        "Steps on the path of integrated gradients. Of a single image those on which the shares miss most are halved "
        "until all add up within 1 %, or there are four times as many.",
        True,
        ge=5,
        le=500,
    )
    samples: int = field(
        10, "Samples", "sa", "Noisy copies that GradientSHAP and SmoothGrad average over.", True, ge=2, le=200
    )
    noise: float = field(
        0.1,
        "Noise",
        "no",
        "Standard deviation of the noise of GradientSHAP and SmoothGrad, as a share of the pixel range.",
        True,
        ge=0.0,
        le=1.0,
    )
    window: int = field(4, "Window", "w", "Side of the square that occlusion covers, in pixels.", True, ge=1, le=16)
    stride: int = field(2, "Stride", "sr", "Pixels by which the square moves; at most its side.", True, ge=1, le=16)
    superpixels: int = field(
        36, "Superpixels", "sp", "Patches of similar colour that are covered one by one.", True, ge=4, le=144
    )
    baseline: Literal["blurred", "mean", "black", "noise"] = field(
        "blurred", "Baseline", "b", "What an image without information is taken to be; also what covers pixels."
    )
    smooth: bool = field(
        False, "SmoothGrad", "sg", "Average the map over noisy copies of the image (gradient methods only)."
    )
    seed: int = field(0, "Seed", "s", "Seed of everything random.", True, ge=0, le=2**31 - 1)


# ---- the probes ------------------------------------------------------------------------------------------------------


class AttributionSpec(_Method):
    """One image, up to four students, one method.

    A student for whom the method is not right is left out of the tables, its map is None and ``facts["skipped"]``
    says why, by id.

    Tables: ``students`` (predicted, confidence, target, logit, gap: the completeness gap as a fraction, or None where
    it is not defined; steps: as many as integrated gradients took, None of others and under SmoothGrad; total: absolute
    attribution; seconds), ``answers`` (student × the three most probable classes: rank, class, probability),
    ``agreement`` (pairs of students: rank_correlation, overlap of the most important tenth of the pixels). Facts:
    ``students``, ``skipped``, ``maps`` (one (H, W) list of lists for each student, raw values),
    ``limit`` (the value at which colours end, in the unit of ``scale``), ``scale``, ``signed``, ``image`` ({text,
    label or None, class or None}), ``classes``. Pictures: ``input``, ``map-0`` …, ``blend-0`` …, ``key`` (the colours
    from -limit, or 0, to limit).
    """

    image: str = field("test:0", "Image", "im", IMAGE_HELP, min_length=1, max_length=200)
    target: str = field("predicted", "Target", "t", TARGET_HELP, min_length=1, max_length=100)
    scale: Literal["share", "logit"] = field(
        "share",
        "Common scale",
        "sc",
        "share: each pixel's share of a student's whole absolute attribution, so that students with large and small "
        "logits compare. logit: raw values, in logits.",
    )


class SanitySpec(_Method):
    """Cascading randomisation: one student, one image; layer by layer from the top, weights become random.

    Tables: ``stages`` (stage 0 is the trained student; layer, rank_correlation of the absolute maps, signed
    correlation, ssim, confidence: means over ``repeats`` random networks, with the lowest and highest). Facts:
    ``students``, ``verdict`` (a sentence). Pictures: ``strip`` (maps from trained to all random), ``stage-0`` ….
    """

    image: str = field("test:0", "Image", "im", IMAGE_HELP, min_length=1, max_length=200)
    target: str = field("predicted", "Target", "t", TARGET_HELP, min_length=1, max_length=100)
    repeats: int = field(
        3, "Random networks", "re", "Over how many random draws of the weights similarities are averaged.", ge=1, le=10
    )


class InfluenceSpec(_Asked):
    """Which training images pushed a student's answer up or down.

    Tables: ``influence`` (student × direction up/down/similar × rank; index in the training set, class, influence,
    similarity). Facts: ``students``, ``answers`` (per student: predicted, target, training images looked at, how).
    Pictures: ``input``, for each student ``up-0``, ``down-0``, ``similar-0``: the images in a row, best first.
    """

    image: str = field("test:0", "Image", "im", IMAGE_HELP, min_length=1, max_length=200)
    target: str = field("predicted", "Target", "t", TARGET_HELP, min_length=1, max_length=100)
    layers: Literal["last", "all"] = field(
        "last",
        "Layers",
        "l",
        "last: gradients of the last layer only (TracInCPFast), in a moment. all: of all weights, some seconds.",
    )
    count: int = field(10, "Images shown", "k", "How many images of each kind.", ge=1, le=30)
    limit: int = field(
        1000,
        "Training images",
        "lim",
        "Of a training set that is larger, so many images are looked at, drawn at random.",
        True,
        ge=10,
        le=20_000,
    )
    seed: int = field(0, "Seed", "s", "Seed of that draw.", True, ge=0, le=2**31 - 1)


class QualitySpec(_Asked):
    """Metrics of the maps themselves, over a batch of test images.

    Tables: ``quality`` (student × method × metric infidelity/unexplained/sensitivity/deletion/insertion; mean, low,
    high: a 95 % bootstrap interval over images; n), ``curves`` (student × method × curve deletion/insertion × share of
    the pixels; probability, low, high). The method ``random`` (pixels in random order) is the reference of the curves.
    Facts: ``students``, ``metrics`` (id → {name, better: lower/higher, about}), ``skipped`` (sentences: which method
    was not right for which student).
    """

    methods: str = field(
        "saliency,integrated-gradients,gradcam",
        "Methods",
        "ms",
        "Ids of methods, separated by commas; at most five.",
        min_length=1,
        max_length=200,
    )
    images: int = field(16, "Images", "ni", "Test images, drawn at random.", ge=4, le=200)
    target: Literal["predicted", "true"] = field("predicted", "Target", "t", "Which answer is explained.")
    perturbations: int = field(
        10, "Perturbations", "pe", "Random changes of each image for infidelity and sensitivity.", True, ge=2, le=100
    )
    points: int = field(16, "Points", "po", "Steps of the deletion and insertion curves.", True, ge=4, le=64)
    seed: int = field(0, "Seed", "s", "Seed of everything random.", True, ge=0, le=2**31 - 1)


class AgreementSpec(_Method):
    """How far students' maps agree over a batch of test images, and the distance between models that follows.

    Tables: ``pairs`` (id_a, student_a, id_b, student_b; rank_correlation, overlap, cosine, each with _low and _high:
    95 % bootstrap intervals; same_answer: share of images with the same prediction; distance = 1 - cosine; n). Facts:
    ``students``, ``distance`` (matrix), ``rank_correlation`` (matrix), ``overlap`` (matrix), ``tree`` ({order: indices
    of the students from first to last leaf, lines: [[[x…], [y…]]…] of the dendrogram, with leaf i at x = i}).
    """

    images: int = field(32, "Images", "ni", "Test images, drawn at random.", ge=4, le=500)
    target: Literal["predicted", "true"] = field(
        "true", "Target", "t", "Which answer is explained; true asks all students the same question."
    )
    share: float = field(
        0.1, "Top share", "k", "Share of the pixels that counts as the most important ones.", True, ge=0.01, le=0.5
    )


class ContextSpec(_Method):
    """Object or context: where the attribution lies, and whether the answer survives a change of either.

    Tables: ``context`` (student × condition original/context-swapped/context-noised/object-removed/context-removed ×
    subset all/correct/incorrect, by the answer under that condition: n, accuracy with accuracy_low and accuracy_high
    (Wilson, 95 %), kept = share of the images whose answer is still that of the original, object_share with
    object_share_low and object_share_high (bootstrap, 95 %), area = the object's share of the pixels). Of an image
    whose class nobody knows there is only the subset all, and no accuracy. Facts: ``students``, ``conditions`` (id →
    sentence), ``images``. Pictures: ``conditions`` (an example under the five conditions), for each student
    ``maps-0`` … (its maps of them).
    """

    method: Attributing = field("saliency", "Method", "m", "How the answer is attributed to pixels.")

    image: str = field(
        "all",
        "Image",
        "im",
        "all: test images of a dataset that has masks (shapes). Else one image, as " + IMAGE_HELP,
        min_length=1,
        max_length=200,
    )
    mask: str = field(
        "",
        "Mask",
        "ma",
        "file:NAME of a kept picture that is bright on the object; not needed where the dataset has masks.",
        max_length=200,
    )
    images: int = field(50, "Images", "ni", "Test images; of one image, so many random contexts.", ge=4, le=500)
    target: Literal["predicted", "true"] = field("predicted", "Target", "t", "Which answer is explained.")


class DistilledSpec(_Method):
    """Synthetic images as input: what students see in them, what they pull, their spectrum and total variation.

    Tables: ``looks`` (student × image: class, predicted, confidence), ``nearest`` (student × image × rank: test_index,
    class, distance in feature space), ``spectrum`` (kind synthetic/real × frequency in cycles per image; power, low,
    high), ``variation`` (kind × index: variation). Facts: ``students``, ``indices``, ``classes``,
    ``total_variation`` ({synthetic, real}: mean, low, high). Pictures: ``set`` (the images), ``maps-0`` … (each
    student's maps in the same order), ``nearest-0`` … (a row for each image: itself, then its nearest test images).
    """

    run: str = field("", "Synthetic set", "run", "Id of the run that made the set.", min_length=1, max_length=200)
    indices: str = field(
        "",
        "Images",
        "ix",
        "Indices of up to 20 images, separated by commas; the first of each class unless given.",
        max_length=500,
    )
    neighbours: int = field(6, "Neighbours", "k", "Nearest test images of each.", ge=1, le=20)
    tests: int = field(
        1000, "Test images", "te", "Test images that are searched and averaged over.", True, ge=50, le=10_000
    )


class DisagreeSpec(_Asked):
    """Test images on which students disagree most: first by the number of different answers, then by the
    Jensen-Shannon divergence of their probabilities.

    Tables: ``images`` (rank, index, true, class, answers, divergence in bits), ``answers`` (index × student:
    predicted, class, confidence). Facts: ``students``, ``scanned``, ``disagreed`` (share of images with more than one
    answer). Pictures: ``image-0`` …, in the order of ``images``.
    """

    label: str = field(
        "any", "Class", "c", "any, or the class (name or number) of the images.", min_length=1, max_length=100
    )
    scan: int = field(1000, "Images looked at", "n", "Test images, drawn at random.", ge=10, le=10_000)
    count: int = field(24, "Images shown", "k", "How many are listed.", ge=1, le=200)
    seed: int = field(0, "Seed", "s", "Seed of that draw.", True, ge=0, le=2**31 - 1)


MODULE = "engine.probes.attribution."
ATTRIBUTION: tuple[ProbeInfo, ...] = (
    ProbeInfo(
        "attribution",
        "Attribution",
        "Which pixels made up to four students give their answers to one image.",
        AttributionSpec,
        MODULE + "maps",
    ),
    ProbeInfo(
        "sanity",
        "Sanity check",
        "Whether a map changes when the weights become random, layer by layer from the top (Adebayo et al., Sanity "
        "Checks for Saliency Maps, NeurIPS 2018).",
        SanitySpec,
        MODULE + "sanity",
    ),
    ProbeInfo(
        "influence",
        "Influence",
        "Which training images pushed a student's answer up or down (Pruthi et al., TracIn, NeurIPS 2020).",
        InfluenceSpec,
        MODULE + "influence",
    ),
    ProbeInfo(
        "quality",
        "Quality of maps",
        "Infidelity, sensitivity, deletion and insertion of students' maps over test images.",
        QualitySpec,
        MODULE + "quality",
    ),
    ProbeInfo(
        "agreement",
        "Agreement of maps",
        "How far students' maps agree, and the distance between models that follows from them (Song et al., Deep "
        "Model Transferability from Attribution Maps, NeurIPS 2019).",
        AgreementSpec,
        MODULE + "agreement",
    ),
    ProbeInfo(
        "context",
        "Object or context",
        "How much of the attribution lies on the object, and what remains of the answers when object or context "
        "change (after Xiao et al., Noise or Signal, ICLR 2021).",
        ContextSpec,
        MODULE + "context",
    ),
    ProbeInfo(
        "distilled-view",
        "Synthetic images as input",
        "What students look at in synthetic images, which real images they pull, and how natural their spectrum is.",
        DistilledSpec,
        MODULE + "distilled",
    ),
    ProbeInfo(
        "disagree",
        "Disagreement",
        "Test images on which students disagree most.",
        DisagreeSpec,
        MODULE + "disagree",
    ),
)
