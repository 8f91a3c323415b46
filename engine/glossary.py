"""The field's terms: what each means in two sentences, and the paper it comes from (torch-free).

A page gives them to Streamlit's “?” with ``explain``; the page Terms lists and searches them all.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Term:
    """A term under its ``id``, which is also its key in links. ``also``: other words by which people look for it."""

    id: str
    name: str
    means: str
    paper: str
    also: str = ""

    def fits(self, search: str) -> bool:
        """Whether each word of a search is in the term, in what it means or in its paper."""
        text = f"{self.id} {self.name} {self.also} {self.means} {self.paper}".casefold()
        return all(word in text for word in search.casefold().split())


_WANG = "Wang, Zhu, Torralba & Efros, Dataset Distillation, 2018"
_DC = "Zhao, Mopuri & Bilen, Dataset Condensation with Gradient Matching, ICLR 2021"
_DSA = "Zhao & Bilen, Dataset Condensation with Differentiable Siamese Augmentation, ICML 2021"
_DM = "Zhao & Bilen, Dataset Condensation with Distribution Matching, WACV 2023"
_MTT = "Cazenavette et al., Dataset Distillation by Matching Training Trajectories, CVPR 2022"
_BENCH = "Cui, Wang, Si & Hsieh, DC-BENCH: Dataset Condensation Benchmark, NeurIPS 2022"
_HINTON = "Hinton, Vinyals & Dean, Distilling the Knowledge in a Neural Network, 2015"
_IG = "Sundararajan, Taly & Yan, Axiomatic Attribution for Deep Networks, ICML 2017"
_TEXTURE = "Geirhos et al., ImageNet-trained CNNs are Biased towards Texture, ICLR 2019"
_REVERSIBLE = (
    "Maclaurin, Duvenaud & Adams, Gradient-based Hyperparameter Optimization through Reversible Learning, ICML 2015"
)

TERMS: dict[str, Term] = {
    term.id: term
    for term in (
        # What is made
        Term(
            "distillation",
            "Dataset distillation",
            "Shrinking a training set to a few synthetic images from which a network learns almost as much. The images "
            "are learned themselves: their pixels are changed step by step.",
            _WANG,
            "dataset condensation synthetic",
        ),
        Term(
            "ipc",
            "Images per class (IPC)",
            "How many images of the small set stand for each class: with ten classes, IPC 1 is a set of ten images. "
            "More of them teach more, and gain less over as many real ones.",
            _DC,
        ),
        Term(
            "initialisation",
            "Initialisation of the images",
            "What the synthetic images are before the first step: real images, noise, class means or cluster centres. "
            "Much of it stays visible, because a short run moves each pixel only a little.",
            _DC,
            "initial start noise real",
        ),
        Term(
            "soft-label",
            "Soft label",
            "A label that gives each class a share instead of naming one. It lets an image say that a 4 resembles a 9, "
            "and it can be learned along with the pixels.",
            "Sucholutsky & Schonlau, Soft-Label Dataset Distillation and Text Dataset Distillation, IJCNN 2021",
            "hard label",
        ),
        Term(
            "step-size",
            "Learned step size",
            "The learning rate that a set wants to be trained with, learned together with its images. A student then "
            "needs no search for one.",
            _WANG,
            "learning rate",
        ),
        Term(
            "factor",
            "Several pictures in one image",
            "Each stored image is a grid of smaller pictures, which are enlarged for training. For the same number of "
            "stored pixels, students see four or nine times as many pictures.",
            "Kim et al., Dataset Condensation via Efficient Synthetic-Data Parameterization, ICML 2022",
            "multi-formation idc parameterization",
        ),
        # Who learns from it, and how that is measured
        Term(
            "student",
            "Student",
            "A network that is trained on the small set and on nothing else. Its accuracy on real images says what the "
            "set is worth.",
            _HINTON,
        ),
        Term(
            "teacher",
            "Teacher",
            "A network that was trained on all real images. It is what students are compared with, and it can label "
            "images for them.",
            _HINTON,
            "full data",
        ),
        Term(
            "protocol",
            "Protocol",
            "How a student is trained and tested: network, optimiser, epochs, augmentation. Accuracies under different "
            "protocols cannot be compared.",
            _BENCH,
            "evaluation",
        ),
        Term(
            "held-out",
            "Held-out images",
            "Training images that are kept from every method. Whatever is decided along the way is decided by them, so "
            "that the test images stay unseen.",
            "Stone, Cross-Validatory Choice and Assessment of Statistical Predictions, JRSS B 1974",
            "validation split",
        ),
        Term(
            "test-accuracy",
            "Test accuracy",
            "The share of the test images that a network names right; nothing was learned or chosen by them. With ten "
            "classes, a guesser reaches 10 %.",
            "Recht et al., Do ImageNet Classifiers Generalize to ImageNet?, ICML 2019",
        ),
        Term(
            "seed",
            "Seed and spread",
            "The number that all chance follows from: initial weights, batches, augmentation. Several seeds give a "
            "mean and a spread, without which a difference of a point or two says little.",
            "Bouthillier et al., Accounting for Variance in Machine Learning Benchmarks, MLSys 2021",
            "standard deviation variance",
        ),
        Term(
            "cross-architecture",
            "Across networks",
            "Whether a set that was made with one network teaches another kind as well. Often it does so less well.",
            _DC,
            "generalisation transfer architecture",
        ),
        Term(
            "dd-ranking",
            "DD-Ranking",
            "Scores of what is left of a set's advantage when its labels and its augmentation are taken away. They ask "
            "whether the images are good, or only the labels and tricks around them.",
            "Li et al., DD-Ranking: Rethinking the Evaluation of Dataset Distillation, 2025",
            "lrs ars hlr ior",
        ),
        # How it is made
        Term(
            "inner-loop",
            "Inner loop",
            "The training of a network on the synthetic images, inside the optimisation of these images. The outer "
            "loop then changes the images by what came of it.",
            _REVERSIBLE,
            "outer loop bilevel",
        ),
        Term(
            "unrolling",
            "Unrolling",
            "Writing several training steps as one long computation, so that the gradient goes back through all of "
            "them to the images. It is exact, and takes time and memory with every step.",
            _REVERSIBLE,
            "back-propagation through training bptt",
        ),
        Term(
            "truncation",
            "Truncation",
            "Letting the gradient go back through the last steps of a training only. That saves time and memory, and "
            "leaves out what the earlier steps did.",
            "Feng, Vedantam & Kempe, Embarrassingly Simple Dataset Distillation, ICLR 2024",
            "rat bptt window",
        ),
        Term(
            "gradient-matching",
            "Gradient matching",
            "Changing the synthetic images until they give a network's weights the same gradient as the real ones do. "
            "Training on them then pushes the network the way real images would.",
            _DC,
            "dc condensation",
        ),
        Term(
            "feature",
            "Feature",
            "One of the numbers that a network computes from an image before its last layer. Together they place the "
            "image in a space in which alike images lie near each other.",
            "Donahue et al., DeCAF: A Deep Convolutional Activation Feature, ICML 2014",
            "representation embedding",
        ),
        Term(
            "feature-mean",
            "Feature mean",
            "The average of a network's features over all images of a class. Distribution matching moves the synthetic "
            "images until their means lie where those of the real ones do.",
            _DM,
            "distribution matching dm",
        ),
        Term(
            "random-network",
            "Random network",
            "A network with its initial weights, which has learned nothing. Its features still tell images apart, and "
            "they cost no training.",
            "He, Zhang, Ren & Sun, Delving Deep into Rectifiers, ICCV 2015",
            "initial weights kaiming",
        ),
        Term(
            "attention-matching",
            "Attention matching",
            "Matching, layer by layer, where networks respond strongly in real and in synthetic images. It adds places "
            "to what feature means tell.",
            "Sajedi et al., DataDAM: Efficient Dataset Distillation with Attention Matching, ICCV 2023",
            "datadam",
        ),
        Term(
            "trajectory",
            "Trajectory",
            "The way of a network's weights through its training, kept as a row of snapshots. Trajectory matching "
            "makes a student that trains on the synthetic images go the same way.",
            _MTT,
            "mtt path",
        ),
        Term(
            "expert",
            "Expert",
            "A network trained on all real images whose trajectory is kept. Students of the synthetic images are to "
            "follow it.",
            _MTT,
        ),
        Term(
            "kernel-regression",
            "Kernel regression",
            "Predicting the label of a real image from how alike it is to each synthetic one. It has an exact "
            "solution, so that images and labels are learned without any inner training.",
            "Nguyen, Chen & Lee, Dataset Meta-Learning from Kernel Ridge-Regression, ICLR 2021",
            "frepo kip ridge",
        ),
        Term(
            "augmentation",
            "Augmentation",
            "Showing a network moved, mirrored, cropped or recoloured copies of its training images. It then learns "
            "what stays the same in them.",
            "Krizhevsky, Sutskever & Hinton, ImageNet Classification with Deep Convolutional Neural Networks, "
            "NeurIPS 2012",
        ),
        Term(
            "siamese",
            "Siamese augmentation",
            "One random augmentation, with the same parameters, for the real and the synthetic images of a step. What "
            "is compared then differs by the images alone.",
            _DSA,
            "dsa differentiable",
        ),
        Term(
            "zca",
            "ZCA whitening",
            "A linear change of the pixels after which all are uncorrelated and vary alike. Edges stand out, and "
            "distilling gets easier; the set has to be un-whitened to be looked at.",
            "Bell & Sejnowski, The “Independent Components” of Natural Scenes are Edge Filters, Vision Research 1997",
            "whitening",
        ),
        # What it has to beat
        Term(
            "baseline",
            "Baseline",
            "Real images of the same number, picked or averaged by a plain rule. A distilled set is worth its cost "
            "only where it beats them under the same protocol.",
            "Guo, Zhao & Bai, DeepCore: A Comprehensive Library for Coreset Selection, DEXA 2022",
            "random real images selection",
        ),
        Term(
            "coreset",
            "Coreset",
            "A small part of the real data, chosen to stand for the rest. Its images are real ones, unlike those of a "
            "distilled set.",
            "Agarwal, Har-Peled & Varadarajan, Approximating Extent Measures of Points, JACM 2004",
            "selection subset",
        ),
        Term(
            "herding",
            "Herding",
            "Choosing images one by one so that the mean of the chosen ones stays as close as possible to the mean of "
            "all. Close is meant in feature space.",
            "Welling, Herding Dynamical Weights to Learn, ICML 2009",
        ),
        Term(
            "k-center",
            "k-center",
            "Choosing images such that no image is far from a chosen one. It covers the rare ones, outliers included.",
            "Sener & Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach, ICLR 2018",
            "k-centre coverage",
        ),
        Term(
            "k-means",
            "k-means",
            "Sorting images into k groups of alike ones, each with its mean as centre. The centres, or the real images "
            "nearest to them, make a baseline.",
            "Lloyd, Least Squares Quantization in PCM, IEEE Transactions on Information Theory 1982",
            "cluster centres",
        ),
        Term(
            "forgetting",
            "Forgetting score",
            "How often a network, while it trains, gets an image wrong that it had right before. Often forgotten "
            "images are the hard ones.",
            "Toneva et al., An Empirical Study of Example Forgetting, ICLR 2019",
        ),
        Term(
            "el2n",
            "EL2N",
            "The length of a network's error on an image early in training, averaged over networks. Large where an "
            "image is hard, or its label wrong.",
            "Paul, Ganguli & Dziugaite, Deep Learning on a Data Diet, NeurIPS 2021",
            "early error",
        ),
        Term(
            "ccs",
            "Coverage-centric selection",
            "Dropping the hardest images and taking the others evenly over all degrees of difficulty. Small selections "
            "of only hard images teach badly.",
            "Zheng, Liu, Lai & Prakash, Coverage-centric Coreset Selection, ICLR 2023",
            "ccs coverage",
        ),
        # What a student sees
        Term(
            "attribution",
            "Attribution",
            "A number for each pixel: how much it spoke for, or against, an answer of the network. Methods differ in "
            "what they mean by that, so that two maps of one answer can disagree.",
            "Simonyan, Vedaldi & Zisserman, Deep Inside Convolutional Networks, ICLR Workshop 2014",
            "saliency map explanation",
        ),
        Term(
            "completeness",
            "Completeness",
            "The numbers of all pixels add up to what the network says more here than at an image without content. The "
            "completeness gap is how far a map misses that.",
            _IG,
            "gap integrated gradients",
        ),
        Term(
            "reference-image",
            "Baseline of an attribution",
            "The image without content that an answer is compared with: black, blurred, average or noise. The map "
            "depends on that choice.",
            _IG,
        ),
        Term(
            "sanity-check",
            "Sanity check",
            "Making a network's weights random, layer by layer, and looking whether its map changes. A map that does "
            "not change shows the image and not what was learned.",
            "Adebayo et al., Sanity Checks for Saliency Maps, NeurIPS 2018",
        ),
        Term(
            "infidelity",
            "Infidelity and sensitivity",
            "Infidelity: how badly a map foretells what changes of the pixels do to the answer. Sensitivity: how much "
            "the map changes when the image hardly does.",
            "Yeh et al., On the (In)fidelity and Sensitivity of Explanations, NeurIPS 2019",
            "quality of maps",
        ),
        Term(
            "influence",
            "Influence",
            "How much a training image moved the network towards its answer to a test image. It asks which of the few "
            "distilled images an answer came from.",
            "Pruthi et al., Estimating Training Data Influence by Tracing Gradient Descent, NeurIPS 2020",
            "tracin",
        ),
        Term(
            "valuation",
            "Value of an image",
            "What an image of a training set adds to the accuracy of networks trained on it. Leave-one-out compares "
            "the set with the set without it; the Shapley value averages what it adds to the images before it, over "
            "random orders, and so shares out what several images teach alike.",
            "Ghorbani & Zou, Data Shapley: Equitable Valuation of Data for Machine Learning, ICML 2019",
            "data shapley leave-one-out valuation",
        ),
        # What it goes by
        Term(
            "cue-conflict",
            "Cue conflict",
            "An image with the shape of one class and the texture of another. Which of the two a network names tells "
            "what it goes by.",
            _TEXTURE,
            "stimuli",
        ),
        Term(
            "shape-bias",
            "Shape bias",
            "Of the answers to images in cue conflict that name the shape's or the texture's class: the share that "
            "name the shape's. People reach about 96 %.",
            _TEXTURE,
            "texture",
        ),
        Term(
            "coverage",
            "Coverage",
            "The share of all answers that name the shape's or the texture's class. Where it is low, a shape bias "
            "rests on few answers and says little.",
            _TEXTURE,
        ),
        Term(
            "error-consistency",
            "Error consistency (κ)",
            "Whether two observers err on the same images more often than their accuracies make them by chance. It is "
            "1 for the same errors and 0 for chance.",
            "Geirhos, Meding & Wichmann, Beyond Accuracy: Quantifying Trial-by-trial Behaviour, NeurIPS 2020",
            "cohen kappa",
        ),
        Term(
            "spurious-correlation",
            "Spurious correlation",
            "Something that goes with a class in the training images but does not make it one, such as the place or "
            "the background. It fails where the two part.",
            "Sagawa et al., Distributionally Robust Neural Networks, ICLR 2020",
        ),
        Term(
            "shortcut",
            "Shortcut",
            "A rule that is right on the training images and wrong where it matters, because it goes by a spurious "
            "correlation. Ordinary test images often do not show it.",
            "Geirhos et al., Shortcut Learning in Deep Neural Networks, Nature Machine Intelligence 2020",
        ),
        Term(
            "subgroup",
            "Subgroup",
            "A part of the test images, such as one class on one kind of background. The worst of them tells who is "
            "left behind by a good average.",
            "Sagawa et al., Distributionally Robust Neural Networks, ICLR 2020",
            "worst group",
        ),
        Term(
            "corruption",
            "Common corruption",
            "Noise, blur, fog or a change of contrast, each in several strengths. The images stay clear to people; the "
            "question is what a network keeps of its accuracy.",
            "Hendrycks & Dietterich, Benchmarking Neural Network Robustness, ICLR 2019",
            "robustness",
        ),
        Term(
            "adversarial",
            "Adversarial example",
            "An image that was changed so little that people hardly see it, such that a network errs. PGD searches it "
            "in several gradient steps, FGSM in one.",
            "Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, ICLR 2018",
            "attack pgd fgsm",
        ),
        Term(
            "transfer",
            "Transfer",
            "Using what a network learned on one dataset for another one: its features as they are, or fine-tuned. "
            "Scores such as LEEP foretell how well that goes.",
            "Nguyen et al., LEEP: A New Measure to Evaluate Transferability, ICML 2020",
            "leep nce h-score fine-tuning",
        ),
        Term(
            "backdoor",
            "Backdoor",
            "A hidden trigger: an image that carries it gets the answer that an attacker wants. It can be distilled "
            "into a small set, where nobody sees it.",
            "Liu, Li, Backes, Shen & Zhang, Backdoor Attacks Against Dataset Distillation, NDSS 2023",
            "poisoning trigger",
        ),
    )
}


def explain(*ids: str) -> str:
    """Terms as the text of a “?”: Markdown, each with its paper."""
    found = [TERMS[id] for id in ids]
    if len(found) == 1:
        return f"{found[0].means}  \n*{found[0].paper}*"
    return "\n\n".join(f"**{t.name}**: {t.means}  \n*{t.paper}*" for t in found)


def search(words: str) -> list[Term]:
    """The terms that a search finds, those that it names first."""
    found = [term for term in TERMS.values() if term.fits(words)]
    named = words.strip().casefold()
    return sorted(found, key=lambda term: named not in f"{term.id} {term.name} {term.also}".casefold())
