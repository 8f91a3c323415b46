"""What a run is: one frozen, validated object that the form, the command line, a link and a test all build.

Every field carries its label, help, range, default and short URL key, so that forms, command-line flags, links and
validation are made from this one table (``parameters``). Torch-free: the pages import it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from engine.errors import Refused

URL_VERSION = 1  # written into every shared link; raise it when a default or the meaning of a key changes

NETWORKS = ("convnet", "convnet-wide", "lenet", "mlp")  # those that methods distil with
STUDENT_NETWORKS = (*NETWORKS, "alexnet", "vgg11", "resnet18", "resnet18-bn", "vit", "edge-popup")
INITS = ("real", "noise", "mean", "kmeans")
DEVICES = ("auto", "cpu", "cuda", "mps")
PROTOCOLS = ("quick", "dc", "dsa", "frepo")
StudentNetwork = Literal[
    "convnet",
    "convnet-wide",
    "lenet",
    "mlp",
    "alexnet",
    "vgg11",
    "resnet18",
    "resnet18-bn",
    "vit",
    "edge-popup",
]
BASELINES = ("random", "optimised", "kmeans", "kmeans-real", "average", "herding", "kcenter")


def field(default: Any, label: str, key: str, help: str, advanced: bool = False, **limits: Any) -> Any:
    """A pydantic field that also knows its label, short URL key and where the form shows it."""
    extra = {"label": label, "key": key, "advanced": advanced}
    return Field(default, description=help, json_schema_extra=extra, **limits)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


# ---- the parameters of each method ------------------------------------------------------------------------------


class DMParameters(_Frozen):
    """Distribution matching."""

    variant: Literal["bank", "plain"] = field(
        "bank",
        "Variant",
        "var",
        "plain: a fresh random network and fresh real batches each step, as in the paper. bank: a pool of random "
        "networks whose class means over the real data are computed once and refreshed slowly; many times faster.",
    )
    lr_img: float = field(1.0, "Image learning rate", "lr", "Step size of SGD on the pixels.", ge=1e-4, le=1e4)
    batch_real: int = field(
        128,
        "Real images per class",
        "br",
        "How many real images estimate a class mean; 256 in the paper.",
        True,
        ge=1,
        le=2048,
    )
    augment: bool = field(
        True,
        "Siamese augmentation",
        "aug",
        "Apply one random augmentation, with the same parameters, to the real and the synthetic images (DSA).",
    )
    bank_size: int = field(
        16, "Networks in the bank", "bank", "Random networks whose class means are kept.", True, ge=1, le=256
    )
    refresh: int = field(
        2,
        "Steps per class refresh",
        "ref",
        "The bank looks at the real images of one more class every so many steps.",
        True,
        ge=1,
        le=10000,
    )


BANK_NEEDS_IPC_1 = (
    "Gradient matching with the bank works at 1 image per class only, because beyond that the network is trained "
    "between updates. Choose the variant plain (or auto), or 1 image per class."
)


class DCParameters(_Frozen):
    """Gradient matching."""

    variant: Literal["auto", "bank", "plain"] = field(
        "auto",
        "Variant",
        "var",
        "plain: real gradients are computed anew each step, as in the paper. bank (IPC 1 only): the class gradients "
        "of a pool of random networks are computed once and refreshed slowly. auto: bank at IPC 1, else plain.",
    )
    lr_img: float = field(0.1, "Image learning rate", "lr", "Step size of SGD on the pixels.", ge=1e-4, le=1e4)
    batch_real: int = field(
        64,
        "Real images per class",
        "br",
        "How many real images a class gradient sees; 256 in the paper.",
        True,
        ge=1,
        le=2048,
    )
    bank_size: int = field(
        16, "Networks in the bank", "bank", "Random networks whose class gradients are kept.", True, ge=1, le=256
    )
    refresh: int = field(
        1,
        "Steps per class refresh",
        "ref",
        "The bank looks at the real images of one more class every so many steps.",
        True,
        ge=1,
        le=10000,
    )


class FRePoParameters(_Frozen):
    """Neural feature regression with pooling."""

    lr_img: float = field(3e-3, "Learning rate", "lr", "Step size of Adam on the pixels.", ge=1e-6, le=10.0)
    label_rate: float = field(
        1.0,
        "Label learning rate",
        "lrl",
        "Step size of Adam on the labels, as a multiple of that on the pixels.",
        True,
        ge=0.0,
        le=100.0,
    )
    batch_real: int = field(
        1024,
        "Real images per look",
        "br",
        "Real images whose labels the regression must predict.",
        True,
        ge=16,
        le=8192,
    )
    reuse: int = field(
        8,
        "Steps per look",
        "re",
        "Image updates for which a network's view of the real images is kept; 1 as in the paper.",
        True,
        ge=1,
        le=1000,
    )
    advance: int = field(
        4,
        "Training steps per look",
        "adv",
        "Steps that a network trains on the synthetic set before it looks again; 1 as in the paper.",
        True,
        ge=0,
        le=1000,
    )
    pool: int = field(
        8, "Networks in the pool", "pool", "Networks of staggered age that provide the features.", True, ge=1, le=64
    )
    max_age: int = field(
        100, "Oldest network", "age", "Training steps after which a network starts afresh.", True, ge=1, le=10000
    )
    learn_labels: bool = field(True, "Learn the labels", "ll", "Learn soft labels together with the pixels.")


@dataclass(frozen=True)
class MethodInfo:
    """A distillation method as forms, help texts and tables show it."""

    id: str
    name: str
    paper: str
    idea: str
    equation: str  # LaTeX
    parameters: type[BaseModel]
    protocol: str  # the protocol its paper evaluates under


METHODS: dict[str, MethodInfo] = {
    m.id: m
    for m in (
        MethodInfo(
            "dm",
            "Distribution matching",
            "Zhao & Bilen, Dataset Condensation with Distribution Matching, WACV 2023",
            "Move the synthetic images until random networks see the same class means in them as in the real ones.",
            r"\min_{S}\;\mathbb{E}_{\theta,\omega}\sum_c\Big\|\tfrac1{|T_c|}\sum_{x\in T_c}\psi_\theta(A_\omega(x))"
            r"-\tfrac1{|S_c|}\sum_{s\in S_c}\psi_\theta(A_\omega(s))\Big\|^2",
            DMParameters,
            "dsa",
        ),
        MethodInfo(
            "dc",
            "Gradient matching",
            "Zhao, Mopuri & Bilen, Dataset Condensation with Gradient Matching, ICLR 2021",
            "Move the synthetic images until training on them would push a network the way the real ones do.",
            r"\min_{S}\;\mathbb{E}_{\theta_0}\sum_t\sum_c D\big(\nabla_\theta L(S_c;\theta_t),"
            r"\nabla_\theta L(T_c;\theta_t)\big)",
            DCParameters,
            "dc",
        ),
        MethodInfo(
            "frepo",
            "Neural feature regression",
            "Zhou, Nezhadarya & Ba, Dataset Distillation using Neural Feature Regression, NeurIPS 2022",
            "Learn images and labels from which kernel regression, on the features of briefly trained networks, "
            "predicts the labels of the real images.",
            r"\min_{X_s,y_s}\;\tfrac12\big\|y_t-K^\theta_{ts}(K^\theta_{ss}+\lambda I)^{-1}y_s\big\|^2",
            FRePoParameters,
            "frepo",
        ),
    )
}


# ---- a run ------------------------------------------------------------------------------------------------------


class RunSpec(_Frozen):
    """One distillation run. The same spec with the same seed on the same machine gives the same images.

    ``parameters`` holds the method's own parameters, an instance of ``METHODS[method].parameters``.
    """

    dataset: str = field(
        "digits", "Dataset", "d", "A dataset id, or folder:PATH for images of your own.", min_length=1, max_length=500
    )
    method: Literal["dm", "dc", "frepo"] = field("dm", "Method", "m", "The distillation method.")
    ipc: int = field(1, "Images per class", "ipc", "Synthetic images per class (IPC).", ge=1, le=100)
    init: Literal["real", "noise", "mean", "kmeans"] = field(
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
    network: Literal["convnet", "convnet-wide", "lenet", "mlp"] = field(
        "convnet", "Network", "net", "The network the method distils with.", True
    )
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
    protocol: Literal["auto", "quick", "dc", "dsa", "frepo"] = field(
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
    device: Literal["auto", "cpu", "cuda", "mps"] = field("auto", "Device", "dev", "Where tensors live.", True)
    parameters: DMParameters | DCParameters | FRePoParameters = Field(default_factory=DMParameters)

    @model_validator(mode="before")
    @classmethod
    def _method_parameters(cls, data: Any) -> Any:
        """Validate ``parameters`` against the chosen method's table, not against whichever union member fits."""
        if isinstance(data, dict):
            info = METHODS.get(data.get("method", "dm"))
            if info:
                given = data.get("parameters") or {}
                if isinstance(given, BaseModel):
                    if not isinstance(given, info.parameters):
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
        """All fields and method parameters in one flat dictionary, the form ``build_spec`` takes."""
        own = self.model_dump()
        return {**{k: v for k, v in own.items() if k != "parameters"}, **own["parameters"]}


class BaselineSpec(_Frozen):
    """A baseline: real images selected, or summarised, without any distillation."""

    dataset: str = field("digits", "Dataset", "d", "A dataset id, or folder:PATH.", min_length=1, max_length=500)
    kind: Literal["random", "optimised", "kmeans", "kmeans-real", "average", "herding", "kcenter"] = field(
        "random", "Baseline", "k", "How real images are selected or summarised."
    )
    ipc: int = field(1, "Images per class", "ipc", "Images per class (IPC).", ge=1, le=100)
    seed: int = field(0, "Seed", "s", "Seed of everything random.", ge=0, le=2**31 - 1)
    size: int = field(
        32, "Image size", "px", "Side in pixels to which a folder's images are resized.", True, ge=28, le=64
    )
    protocol: Literal["quick", "dc", "dsa", "frepo"] = field(
        "quick", "Protocol", "p", "Protocol of the accuracy computed when the images are ready."
    )
    students: int = field(3, "Students", "st", "Networks trained from different seeds; 0 for none.", True, ge=0, le=20)
    device: Literal["auto", "cpu", "cuda", "mps"] = field("auto", "Device", "dev", "Where tensors live.", True)


class EvaluationSpec(_Frozen):
    """Students trained on a synthetic set under a protocol and tested once."""

    source: str = field(
        "", "Synthetic set", "run", "A run id, or the path of a saved set.", min_length=1, max_length=1000
    )
    dataset: str | None = field(None, "Dataset", "d", "Dataset to test on; the set's own unless given.")
    protocol: Literal["quick", "dc", "dsa", "frepo"] = field("quick", "Protocol", "p", "The evaluation protocol.")
    network: StudentNetwork | None = field(
        None, "Network", "net", "The students' network; the protocol's own unless given."
    )
    seeds: int = field(3, "Students", "st", "Networks trained from different seeds.", ge=1, le=20)
    seed: int = field(
        0, "First seed", "s", "Seed of the first student; the others count on from it.", ge=0, le=2**31 - 1
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = field("auto", "Device", "dev", "Where tensors live.", True)


class ImportSpec(_Frozen):
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


class StudentSpec(_Frozen):
    """One network, trained once and kept: on a distilled set, on selected real images, or on all of them."""

    name: str = field("", "Name", "nm", "What the student is called in lists; made from the rest unless given.")
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
    protocol: Literal["auto", "quick", "dc", "dsa", "frepo", "full"] = field(
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
        None, "Training images", "lim", "Use only so many of the training images, drawn at random.", True, ge=10
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
    device: Literal["auto", "cpu", "cuda", "mps"] = field("auto", "Device", "dev", "Where tensors live.", True)


SPECS: dict[str, type[_Frozen]] = {
    "distill": RunSpec,
    "baseline": BaselineSpec,
    "evaluate": EvaluationSpec,
    "import": ImportSpec,
    "student": StudentSpec,
}


# ---- the table, as rows -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parameter:
    """One row of the table: what a widget, a flag, a URL key and an error sentence are made from."""

    name: str
    label: str
    key: str
    help: str
    kind: Literal["int", "float", "bool", "choice", "text"]
    default: Any
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    optional: bool
    advanced: bool


def parameters(model: type[BaseModel]) -> list[Parameter]:
    """The rows of ``model``'s table, in the order of its fields; the nested method parameters are not among them."""
    rows = []
    for name, info in model.model_fields.items():
        if not isinstance(info.json_schema_extra, dict):
            continue
        extra: dict[str, Any] = info.json_schema_extra
        annotation, optional = info.annotation, False
        members = [a for a in get_args(annotation) if a is not type(None)]
        if type(None) in get_args(annotation):
            annotation, optional = members[0], True
        choices = tuple(str(c) for c in get_args(annotation)) if get_origin(annotation) is Literal else ()
        kind = "choice" if choices else {int: "int", float: "float", bool: "bool"}.get(annotation, "text")
        low = next((m.ge for m in info.metadata if hasattr(m, "ge")), None)
        high = next((m.le for m in info.metadata if hasattr(m, "le")), None)
        rows.append(
            Parameter(
                name,
                extra["label"],
                extra["key"],
                info.description or "",
                kind,
                info.default,
                low,
                high,
                choices,
                optional,
                extra["advanced"],
            )
        )
    return rows


def build_spec(kind: str | type[BaseModel] = "distill", /, **values: Any) -> Any:
    """A validated spec from flat values (fields and, for a run, method parameters side by side).

    ``kind``: a key of ``SPECS``, or another table of the same make (the probes have theirs).

    Raises ``Refused`` with a sentence per problem. Method parameters that belong only to other methods are refused
    unless they are None.
    """
    model = SPECS[kind] if isinstance(kind, str) else kind
    values = {k: v for k, v in values.items() if v is not None}
    if kind == "distill":
        method = values.get("method", "dm")
        if method in METHODS:
            own = set(METHODS[method].parameters.model_fields)
            given = {k: values.pop(k) for k in list(values) if k in own}
            values["parameters"] = {**values.get("parameters", {}), **given}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise Refused(" ".join(_sentence(model, e, values.get("method", "dm")) for e in error.errors())) from None


def _sentence(model: type[BaseModel], error: Any, method: str) -> str:
    """One pydantic error as a sentence: what was wrong, what is allowed."""
    name = next((str(p) for p in reversed(error["loc"]) if isinstance(p, str)), "")
    own = parameters(METHODS[method].parameters) if model is RunSpec and method in METHODS else []
    tables = [*parameters(model), *own]
    row = next((r for r in tables if r.name == name), None)
    if error["type"] == "extra_forbidden":
        return f"There is no parameter “{name}” here; allowed are: {', '.join(r.name for r in tables)}."
    if row is None:
        return str(error["msg"]) + "."
    return f"{row.label} ({name}) was {error['input']!r}, but must be {allowed(row)}."


def allowed(row: Parameter) -> str:
    """What values a parameter takes, in words."""
    if row.kind == "choice":
        return "one of " + ", ".join(row.choices)
    if row.kind == "bool":
        return "true or false"
    if row.kind in ("int", "float"):
        word = "a whole number" if row.kind == "int" else "a number"
        if row.low is not None and row.high is not None:
            return f"{word} from {row.low:g} to {row.high:.10g}"
        return word
    return "a non-empty text"
