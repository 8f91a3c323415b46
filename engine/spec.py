"""What a run is: one frozen, validated object that the form, the command line, a link and a test all build.

Every field carries its label, help, range, default and short URL key, so that forms, command-line flags, links and
validation are made from this one table (``parameters``). Torch-free: the pages import it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, Field, SerializeAsAny, StringConstraints, ValidationError, model_validator

from engine.edits import LONGEST
from engine.errors import Refused
from engine.methods import METHODS, DMParameters, MethodInfo, MethodName
from engine.table import Frozen, allowed, field, parameters

URL_VERSION = 1  # written into every shared link; raise it when a default or the meaning of a key changes

Network = Literal["convnet", "convnet-wide", "lenet", "mlp"]  # those that methods distil with
StudentNetwork = Literal[Network, "alexnet", "vgg11", "resnet18", "resnet18-bn", "vit", "edge-popup"]
Norm = Literal["none", "instance", "batch", "layer"]
Init = Literal["real", "noise", "mean", "kmeans"]
Device = Literal["auto", "cpu", "cuda", "mps"]
ProtocolName = Literal["quick", "dc", "dsa", "frepo", "mtt", "dd", "rat"]
BaselineName = Literal[
    "random", "optimised", "kmeans", "kmeans-real", "average", "herding", "kcenter", "ccs", "forgetting", "el2n"
]
NETWORKS, STUDENT_NETWORKS = get_args(Network), get_args(StudentNetwork)
NORMS = get_args(Norm)
PROTOCOLS, BASELINES = get_args(ProtocolName), get_args(BaselineName)


# ---- a run ------------------------------------------------------------------------------------------------------


class Fork(Frozen):
    """Where a forked run begins: at ``step`` of ``run``, which had taken that many distilling ``seconds`` by then, and
    looked at so many real images (``images_seen``).

    ``source``: ``state`` is all that the method kept there; ``tensors`` its images in full precision, with learned
    labels and step sizes; ``frame`` the picture in the film, 8 bits a channel. ``changed``: the settings that differ.
    """

    run: str = Field(pattern=r"^[a-z0-9-]{8,80}$")
    step: int = Field(ge=0, lt=10**9)
    seconds: float = Field(0.0, ge=0)
    images_seen: int = Field(0, ge=0, lt=10**15)
    source: Literal["state", "tensors", "frame"] = "frame"
    changed: tuple[Annotated[str, StringConstraints(max_length=40)], ...] = Field((), max_length=100)


class RunSpec(Frozen):
    """One distillation run. The same spec with the same seed on the same machine gives the same images.

    ``parameters`` holds the method's own parameters, an instance of ``METHODS[method].parameters``. A ``fork`` starts
    from what its folder holds of another run, instead of from initial images, and counts that run's steps and seconds
    as its own, so that ``steps`` and ``minutes`` include them.
    """

    dataset: str = field(
        "digits", "Dataset", "d", "A dataset id, or folder:PATH for images of your own.", min_length=1, max_length=500
    )
    method: MethodName = field("dm", "Method", "m", "The distillation method.")
    ipc: int = field(1, "Images per class", "ipc", "Synthetic images per class (IPC).", ge=1, le=100)
    init: Init = field(
        "real",
        "Initial images",
        "i",
        "Start from random real images, Gaussian noise, the class mean, or k-means centres.",
    )
    minutes: float | None = field(
        None, "Minutes", "min", "Stop after this much distilling time; evaluation is not counted.", ge=0.05, le=10080
    )
    steps: int | None = field(None, "Steps", "n", "Stop after this many steps.", True, ge=1, le=10_000_000)
    seed: int = field(0, "Seed", "s", "Seed of everything random in the run.", ge=0, le=2**31 - 1)
    network: Network = field("convnet", "Network", "net", "The network the method distils with.", True)
    width: int = field(
        128,
        "Network width",
        "w",
        "Channels of each ConvNet layer; of the first one in the wide ConvNet.",
        True,
        ge=8,
        le=512,
    )
    depth: int = field(3, "Network depth", "dep", "Blocks of the ConvNet.", True, ge=1, le=5)
    zca: bool = field(
        False, "ZCA whitening", "zca", "Distil in ZCA-whitened space; images are un-whitened for display.", True
    )
    size: int = field(
        32, "Image size", "px", "Side in pixels to which a folder's images are resized.", True, ge=28, le=64
    )
    protocol: Literal["auto", ProtocolName] = field(
        "auto", "Final protocol", "p", "Protocol of the final test accuracy; auto: the method's own.", True
    )
    students: int = field(
        3,
        "Students",
        "st",
        "Networks trained from different seeds for the final accuracy; 0 for none.",
        True,
        ge=0,
        le=20,
    )
    deterministic: bool = field(
        False, "Deterministic", "det", "Bit-equal images for the same spec, interrupted or not; slower.", True
    )
    device: Device = field("auto", "Device", "dev", "Where tensors live.", True)
    parameters: SerializeAsAny[Frozen] = Field(default_factory=DMParameters)
    fork: Fork | None = None

    @model_validator(mode="before")
    @classmethod
    def _method_parameters(cls, data: Any) -> Any:
        """Validate ``parameters`` against the chosen method's table, not against whichever union member fits."""
        if isinstance(data, dict):
            method = data.get("method", "dm")
            info = METHODS.get(method) if isinstance(method, str) else None
            if info:
                given = data.get("parameters") or {}
                if isinstance(given, BaseModel):
                    if type(given) is not info.parameters:  # one method's may extend another's
                        raise ValueError(f"these parameters are not those of method {info.id}")
                else:
                    given = info.parameters.model_validate(given)
                data = {**data, "parameters": given}
            if data.get("minutes") is None and data.get("steps") is None:
                data = {**data, "minutes": 1.0}
        return data

    @property
    def final_protocol(self) -> str:
        """The protocol of the final accuracy, with ``auto`` resolved to the method's own."""
        return METHODS[self.method].protocol if self.protocol == "auto" else self.protocol

    def flat(self) -> dict[str, Any]:
        """All settings, the method's parameters included, in one flat dictionary, the form ``build_spec`` takes; where
        a fork began is no setting."""
        own = self.model_dump(exclude={"fork"})
        return {**{k: v for k, v in own.items() if k != "parameters"}, **own["parameters"]}


class BaselineSpec(Frozen):
    """A baseline: real images selected, or summarised, without any distillation."""

    dataset: str = field("digits", "Dataset", "d", "A dataset id, or folder:PATH.", min_length=1, max_length=500)
    kind: BaselineName = field("random", "Baseline", "k", "How real images are selected or summarised.")
    ipc: int = field(1, "Images per class", "ipc", "Images per class (IPC).", ge=1, le=100)
    seed: int = field(0, "Seed", "s", "Seed of everything random.", ge=0, le=2**31 - 1)
    size: int = field(
        32, "Image size", "px", "Side in pixels to which a folder's images are resized.", True, ge=28, le=64
    )
    protocol: ProtocolName = field(
        "quick", "Protocol", "p", "Protocol of the accuracy computed when the images are ready."
    )
    students: int = field(3, "Students", "st", "Networks trained from different seeds; 0 for none.", True, ge=0, le=20)
    never_learned: Literal["share", "first"] = field(
        "share",
        "Never-learned images",
        "nl",
        "For forgetting alone. share: of the chosen, as many were never learned as of their class; first: all of them "
        "before any that was forgotten, as published.",
        True,
    )
    device: Device = field("auto", "Device", "dev", "Where tensors live.", True)


class EvaluationSpec(Frozen):
    """Students trained on a synthetic set under a protocol and tested once."""

    source: str = field(
        "", "Synthetic set", "run", "A run id, or the path of a saved set.", min_length=1, max_length=1000
    )
    dataset: str | None = field(None, "Dataset", "d", "Dataset to test on; the set's own unless given.", max_length=500)
    protocol: ProtocolName = field("quick", "Protocol", "p", "The evaluation protocol.")
    network: StudentNetwork | None = field(
        None, "Network", "net", "The students' network; the protocol's own unless given."
    )
    width: int | None = field(
        None,
        "Network width",
        "w",
        "Channels of a ConvNet's layers; the protocol's own unless given.",
        True,
        ge=8,
        le=512,
    )
    depth: int | None = field(None, "Network depth", "dep", "Blocks of a ConvNet; 3 unless given.", True, ge=1, le=5)
    norm: Norm | None = field(
        None, "Normalisation", "no", "Of a ConvNet: none, instance, batch or layer; instance unless given.", True
    )
    seeds: int = field(3, "Students", "st", "Networks trained from different seeds.", ge=1, le=20)
    seed: int = field(
        0, "First seed", "s", "Seed of the first student; the others count on from it.", ge=0, le=2**31 - 1
    )
    device: Device = field("auto", "Device", "dev", "Where tensors live.", True)


class SoftenSpec(Frozen):
    """A set with new labels: what a trained network says about its images."""

    source: str = field("", "Set", "run", "A run id, or the path of a saved set.", min_length=1, max_length=1000)
    teacher: str = field(
        "",
        "Teacher",
        "te",
        "The id of a trained student, whose answers become the labels.",
        min_length=1,
        max_length=80,
    )
    temperature: float = field(
        1.0, "Temperature", "T", "Divides the teacher's logits: 1 as it says, higher softer.", ge=0.05, le=100.0
    )
    device: Device = field("auto", "Device", "dev", "Where tensors live.", True)


class EditSpec(Frozen):
    """A set some of whose images were changed by hand."""

    source: str = field("", "Set", "run", "A run id, or the path of a saved set.", min_length=1, max_length=1000)
    edits: str = field(
        "",
        "Edits",
        "ed",
        "What is done to its images, in this order: 3:mirror, 3:blur:1.5, 3:swap:7, 3:label:5, 3:erase:4,4,8,8, "
        "3:paint:c86432:4,4,8,8, with spaces between them.",
        min_length=1,
        max_length=LONGEST,
    )


class RankSpec(Frozen):
    """The label-robust and augmentation-robust scores of a set (DD-Ranking)."""

    source: str = field("", "Set", "run", "A run id, or the path of a saved set.", min_length=1, max_length=1000)
    dataset: str | None = field(None, "Dataset", "d", "Dataset to test on; the set's own unless given.", max_length=500)
    protocol: ProtocolName = field(
        "quick", "Protocol", "p", "How students are trained, but for the learning rate, which is searched for."
    )
    seeds: int = field(3, "Students", "st", "Networks trained from different seeds, for each accuracy.", ge=1, le=20)
    weight: float = field(
        0.5, "Weight", "wt", "Of the improvement over random against what hard labels lose.", True, ge=0.0, le=1.0
    )
    balance: float = field(
        0.5, "Balance", "ba", "Of the improvement with augmentation against that without.", True, ge=0.0, le=1.0
    )
    seed: int = field(
        0, "First seed", "s", "Seed of the first student; the others count on from it.", True, ge=0, le=2**31 - 1
    )
    device: Device = field("auto", "Device", "dev", "Where tensors live.", True)


class ImportSpec(Frozen):
    """A synthetic set from elsewhere: a ``.pt`` or ``.npz`` of images and labels, or a set downloaded from here."""

    path: str = field(
        "", "File", "f", "A .pt or .npz file, or a saved set (folder or .zip).", min_length=1, max_length=1000
    )
    labels: str | None = field(None, "Labels file", "lf", "A second .pt file that holds the labels.", max_length=1000)
    per_class: int | None = field(
        None, "Images per class", "pc", "The images come in class order, this many of each.", ge=1, le=1000
    )
    dataset: str = field(
        "digits", "Dataset", "d", "The dataset the images stand for; names their classes.", min_length=1, max_length=500
    )
    space: Literal["auto", "unit", "normalised"] = field(
        "auto",
        "Pixel values",
        "sp",
        "unit: in [0, 1]; normalised: less the dataset's mean, over its deviation; auto: told by the values.",
        True,
    )
    size: int = field(
        32, "Image size", "px", "Side in pixels to which a folder's images are resized.", True, ge=28, le=64
    )


class StudentSpec(Frozen):
    """One network, trained once and kept: on a distilled set, on selected real images, or on all of them."""

    name: str = field(
        "", "Name", "nm", "What the student is called in lists; made from the rest unless given.", max_length=200
    )
    source: str = field(
        "full",
        "Training set",
        "src",
        "full: all training images. A baseline's name (random, kmeans, herding …): that many real images per class. "
        "Else a run id, or the path of a saved set.",
        min_length=1,
        max_length=1000,
    )
    dataset: str | None = field(
        None, "Dataset", "d", "A dataset id, or folder:PATH; the set's own unless given.", max_length=500
    )
    ipc: int = field(10, "Images per class", "ipc", "Images per class of a baseline (IPC).", ge=1, le=5000)
    network: StudentNetwork = field("convnet", "Network", "net", "What is trained.")
    protocol: Literal["auto", ProtocolName, "full"] = field(
        "auto",
        "Protocol",
        "p",
        "How it is trained; auto: full for all images and for more than 1,000 of them, else the protocol that the set "
        "was made for (dc for a baseline).",
    )
    seed: int = field(0, "Seed", "s", "Seed of the initial weights, batches and augmentation.", ge=0, le=2**31 - 1)
    width: int = field(128, "Network width", "w", "Channels of each ConvNet layer.", True, ge=8, le=512)
    depth: int = field(3, "Network depth", "dep", "Blocks of the ConvNet.", True, ge=1, le=5)
    epochs: int | None = field(
        None, "Epochs", "ep", "Passes over the training set; the protocol's own unless given.", True, ge=1, le=10_000
    )
    limit: int | None = field(
        None,
        "Training images",
        "lim",
        "Use only so many of the training images, drawn at random.",
        True,
        ge=10,
        le=1_000_000,
    )
    style: Literal["original", "fourier", "adain"] = field(
        "original",
        "Training images' style",
        "sty",
        "original, or stylised: each image with the amplitude spectrum (fourier) or the feature statistics (adain) of "
        "an image of another class, so that texture no longer tells the class.",
        True,
    )
    epsilon: float = field(
        0.0,
        "Adversarial radius",
        "eps",
        "Train on images moved by PGD at most this far, in 255ths of the pixel range; 0 for ordinary training.",
        True,
        ge=0.0,
        le=16.0,
    )
    attack_steps: int = field(
        3, "Attack steps", "as", "Gradient steps of the PGD attack in training.", True, ge=1, le=20
    )
    keep: float = field(
        0.5, "Weights kept", "keep", "Share of the random weights that edge-popup keeps.", True, ge=0.1, le=0.7
    )
    weights: Literal["kaiming", "signed"] = field(
        "kaiming",
        "Frozen weights",
        "fw",
        "Edge-popup's random weights: Kaiming normal, or a constant with random signs.",
        True,
    )
    size: int = field(
        32, "Image size", "px", "Side in pixels to which a folder's images are resized.", True, ge=28, le=64
    )
    device: Device = field("auto", "Device", "dev", "Where tensors live.", True)


SAID = 5  # problems of one spec that are told; of more, that there are more
SHOWN = 60  # characters of a value that is quoted

SPECS: dict[str, type[Frozen]] = {
    "distill": RunSpec,
    "baseline": BaselineSpec,
    "evaluate": EvaluationSpec,
    "import": ImportSpec,
    "soften": SoftenSpec,
    "edit": EditSpec,
    "rank": RankSpec,
    "student": StudentSpec,
}


# ---- specs from plain values --------------------------------------------------------------------------------


def build_spec(kind: str | type[BaseModel] = "distill", /, **values: Any) -> Any:
    """A validated spec from flat values (fields and, for a run, method parameters side by side).

    ``kind``: a key of ``SPECS``, or another table of the same make (the probes have theirs).

    Raises ``Refused`` with a sentence per problem. Method parameters that belong only to other methods are refused
    unless they are None.
    """
    model = SPECS[kind] if isinstance(kind, str) else kind
    values = {k: v for k, v in values.items() if v is not None}
    method = values.get("method", "dm")
    info = METHODS.get(method) if kind == "distill" and isinstance(method, str) else None
    if info and isinstance(values.get("parameters", {}), dict):
        own = set(info.parameters.model_fields)
        given = {k: values.pop(k) for k in list(values) if k in own}
        values["parameters"] = {**values.get("parameters", {}), **given}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        raise Refused(_sentences(model, found, info)) from None


def _sentences(model: type[BaseModel], found: list[Any], info: MethodInfo | None) -> str:
    """Pydantic's errors as sentences: what was wrong, what is allowed. ``info``: of the method of a run."""
    tables = {row.name: row for row in [*parameters(model), *(parameters(info.parameters) if info else [])]}
    said, unknown = [], []
    for error in found:
        name = next((str(p) for p in reversed(error["loc"]) if isinstance(p, str)), "")
        if error["type"] == "extra_forbidden":
            unknown.append(f"“{_quoted(name)[1:-1]}”")
        elif name in tables:
            row = tables[name]
            said.append(f"{row.label} ({name}) was {_quoted(error['input'])}, but must be {allowed(row)}.")
        else:
            said.append(f"{error['msg']}.")
    more = [f"There are {len(said) - SAID:,} more problems."] if len(said) > SAID else []
    if unknown:
        names = ", ".join(unknown[:SAID]) + (f" and {len(unknown) - SAID:,} more" if len(unknown) > SAID else "")
        more.append(f"There is no parameter {names} here; allowed are: {', '.join(tables)}.")
    return " ".join([*said[:SAID], *more])


def _quoted(value: Any) -> str:
    """A value in a sentence, not longer than it is worth."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, lists in lists in lists
        return "too large to be shown"
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
