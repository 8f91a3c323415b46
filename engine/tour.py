"""The guided tour: its stops as data (torch-free).

A stop names a page, the address that shows its subject there, live, and what is to be said about it. ``{0}`` and
``{1}`` in an address stand for the stop's runs, or for others of their kind where these are not here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

Measure = Literal["accuracy", "gain"]


@dataclass(frozen=True)
class Part:
    """Something of the page that a stop speaks of: a term of its equation (under the same ``key`` there), or a place.

    ``lights`` are CSS selectors of what is outlined; “host >>> inner” reaches into a component. ``words`` say the same
    to those who do not see it.
    """

    key: str
    name: str
    words: str
    lights: tuple[str, ...]


@dataclass(frozen=True)
class Question:
    """What is asked before a number is shown: an accuracy, or the gain over as many random real images. The choices
    are ranges of it, divided at ``bounds`` (fractions); the number itself is the run's own."""

    text: str
    choices: tuple[str, ...]
    measure: Measure
    bounds: tuple[float, ...]
    why: str


@dataclass(frozen=True)
class Stop:
    """One stop. ``runs`` came with the program: gallery-<dataset>-<method>-<images per class>.

    ``without``: the address where there is no run of that kind. ``student``: a dataset of which a trained student is
    needed; as long as there is none the stop is at ``prepare``, a page and its address, and says ``preparing``.
    ``method``: whose equation ``equation`` is, in MathML, with its paper.
    """

    title: str
    page: str
    query: dict[str, str]
    sentences: tuple[str, ...]
    terms: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    without: dict[str, str] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    method: str = ""
    equation: str = ""
    question: Question | None = None
    student: str = ""
    prepare: tuple[str, dict[str, str]] | None = None
    preparing: tuple[str, ...] = ()


# ---- equations: MathML, whose parts carry the keys of what they touch ------------------------------------------------


def _part(key: str, *inner: str) -> str:
    return f'<mrow data-part="{key}">{"".join(inner)}</mrow>'


def _row(text: str) -> str:
    """Plain symbols: letters as identifiers, all else as operators."""
    return "".join(f"<mi>{c}</mi>" if c.isalpha() else f"<mo>{c}</mo>" for c in text)


def _sub(base: str, below: str) -> str:
    return f"<msub>{_row(base)}<mrow>{_row(below)}</mrow></msub>"


def _star(below: str) -> str:
    return f"<msubsup><mi>θ</mi><mrow>{_row(below)}</mrow><mo>*</mo></msubsup>"


def _math(says: str, *inner: str) -> str:
    return f'<math display="block" aria-label="{says}"><mrow>{"".join(inner)}</mrow></math>'


_MIN = _part("images", "<munder><mi>min</mi><mi>S</mi></munder>")
_CLASSES = "<munder><mo>∑</mo><mi>c</mi></munder>"
_THETA = _part("network", "<mi>θ</mi>")


def _gradient(images: str) -> str:
    return f"<msub><mo>∇</mo>{_THETA}</msub>{_row('L(')}{_sub(images, 'c')}{_row(')')}"


def _mean(images: str) -> str:
    return f"<mover><msub><mi>ψ</mi>{_THETA}</msub><mo>¯</mo></mover>{_row('(')}{_sub(images, 'c')}{_row(')')}"


GRADIENTS = _math(
    "Minimise over the synthetic images S, summed over classes c, the distance D of two gradients by the weights "
    "theta: of the loss on the synthetic images of the class, and of the loss on its real images T.",
    _MIN, _CLASSES, _part("distance", "<mi>D</mi>"), "<mo>(</mo>",
    _part("synthetic", _gradient("S")), "<mo>,</mo>", _part("real", _gradient("T")), "<mo>)</mo>",
)  # fmt: skip
FEATURES = _math(
    "Minimise over the synthetic images S, summed over classes c, the squared distance of two mean features psi of a "
    "network theta: of the real images T of the class, and of its synthetic ones.",
    _MIN, _CLASSES,
    _part("distance", f"<msup><mrow><mo>‖</mo>{_part('real', _mean('T'))}<mo>−</mo>"
                      f"{_part('synthetic', _mean('S'))}<mo>‖</mo></mrow><mn>2</mn></msup>"),
)  # fmt: skip
TRAJECTORIES = _math(
    "Minimise over the synthetic images S the squared distance of the student's weights after N steps on S from the "
    "expert's weights M epochs later, divided by the squared length of the expert's way.",
    _MIN, "<mfrac><msup><mrow><mo>‖</mo>",
    _part("student", f"<msub><mover><mi>θ</mi><mo>^</mo></mover><mrow>{_row('s+N')}</mrow></msub>{_row('(S)')}"),
    "<mo>−</mo>", _part("expert", _star("s+M")), "<mo>‖</mo></mrow><mn>2</mn></msup>",
    "<msup>", _part("way", "<mo>‖</mo>", _star("s"), "<mo>−</mo>", _star("s+M"), "<mo>‖</mo>"), "<mn>2</mn></msup>",
    "</mfrac>",
)  # fmt: skip


# ---- what there is on the pages --------------------------------------------------------------------------------------

FILM = ".st-key-film >>> .stage"
REAL, REAL_FOUND = ".method .of-real.images", ".method .of-real.found"
SYNTHETIC, SYNTHETIC_FOUND = ".method .of-synthetic.images", ".method .of-synthetic.found"
NETWORK, COMPARED, MOVED = ".method .network", ".method .compared", ".method .moved"
LOSS, CURVE = ".st-key-loss", ".st-key-accuracy"
SLOW = ".st-key-slow_parts >>> .parts li:nth-child({})"  # one step in slow motion, where somebody has taken it
DRAWING = "below the film, in the drawing of the method"

IMAGES = Part("images", "the images", "Lit: the synthetic images, whose pixels are what is learned.", (FILM, MOVED))


def _study(sets: str, counts: str) -> str:
    """A study of shape bias of six small networks: about half a minute on two free cores."""
    small = {"seeds": 2, "training": 60, "width": 32, "minutes": 3.0}
    return json.dumps({"sets": sets, "counts": counts, **small}, separators=(",", ":"))


# ---- the stops -------------------------------------------------------------------------------------------------------

STOPS: tuple[Stop, ...] = (
    Stop(
        "What is a distilled image?",
        "pages/distil.py",
        {"run": "{0}", "reveal": "0"},
        (
            "Dataset distillation shrinks a training set to a few synthetic images. These ten stand for the 60,000 "
            "handwritten digits of MNIST, one for each class.",
            "Nobody drew them: their pixels were changed step by step, so that a network that sees these ten and "
            "nothing else gets new digits right.",
            "Play the film, or drag the timeline below it, to see how they came to be.",
        ),
        terms=("distillation", "ipc", "student"),
        runs=("gallery-mnist-dc-1",),
        without={"d": "digits", "m": "dc", "ipc": "1"},
        parts=(
            Part("images", "the images", "Lit: the distilled images, a column for each class.", (FILM,)),
            Part("timeline", "the timeline", "Lit: the timeline under the film.", (".st-key-film >>> .transport",)),
        ),
        question=Question(
            "Which teach a network more: ten random real digits, one of each class, or these ten?",
            ("The ten real digits", "Both about the same", "These ten"),
            "gain",
            (-0.02, 0.02),
            "A real digit shows one way to write it; a distilled one was shaped by very many of them.",
        ),
    ),
    Stop(
        "Matching gradients",
        "pages/distil.py",
        {"run": "{0}"},
        (
            "A network learns by following the gradient of its loss: the direction in which its weights should move.",
            "Gradient matching computes that direction once from real images of a class and once from the synthetic "
            "ones, and changes the synthetic pixels until the two directions agree.",
            "Whoever trains on the synthetic images is then pushed the way the real ones would have pushed.",
        ),
        terms=("gradient-matching", "inner-loop"),
        runs=("gallery-mnist-dc-1",),
        without={"d": "digits", "m": "dc", "ipc": "1"},
        method="dc",
        equation=GRADIENTS,
        parts=(
            Part("real", "the real gradient", f"Lit: the real images of a class and what is computed of them, "
                 f"{DRAWING}.", (REAL, REAL_FOUND, SLOW.format(1))),
            Part("synthetic", "the synthetic gradient", f"Lit: the synthetic images and what is computed of them, "
                 f"{DRAWING}.", (SYNTHETIC, SYNTHETIC_FOUND, SLOW.format(2))),
            Part("network", "the network", f"Lit: the network that both go through, {DRAWING}.", (NETWORK,)),
            Part("distance", "their distance", f"Lit: the comparison, {DRAWING}, and beside the film the loss, which "
                 "is this distance over time.", (COMPARED, LOSS, SLOW.format(3))),
            IMAGES,
        ),
    ),
    Stop(
        "Matching features",
        "pages/distil.py",
        {"run": "{0}", "reveal": "0"},
        (
            "Distribution matching trains no network at all. A network with random weights turns each image into a "
            "list of numbers, its features.",
            "The synthetic images of a class are moved until the mean of their features lies where that of the real "
            "ones does.",
            "That is cheap, so that there is time for many images per class: here are ten of each.",
        ),
        terms=("feature", "feature-mean", "random-network"),
        runs=("gallery-mnist-dm-10",),
        without={"d": "digits", "m": "dm", "ipc": "10"},
        method="dm",
        equation=FEATURES,
        parts=(
            Part("real", "the real mean", f"Lit: the real images of a class and their mean feature, {DRAWING}.",
                 (REAL, REAL_FOUND, SLOW.format(1))),
            Part("synthetic", "the synthetic mean", f"Lit: the synthetic images and their mean feature, {DRAWING}.",
                 (SYNTHETIC, SYNTHETIC_FOUND, SLOW.format(2))),
            Part("network", "the network", f"Lit: the random network that both go through, {DRAWING}.", (NETWORK,)),
            Part("distance", "their distance", f"Lit: the comparison, {DRAWING}, and beside the film the loss, which "
                 "is this distance over time.", (COMPARED, LOSS, SLOW.format(3))),
            IMAGES,
        ),
        question=Question(
            "A network trains on these hundred images alone. How many of a hundred new digits will it get right?",
            ("Fewer than 85", "85 to 95", "More than 95"),
            "accuracy",
            (0.85, 0.95),
            "Ten images of a class leave room for different ways of writing it, and these were shaped by all of them.",
        ),
    ),
    Stop(
        "Matching trajectories",
        "pages/distil.py",
        {"run": "{0}"},
        (
            "An expert is a network that trained on all real images; its weights were kept along the way, as its "
            "trajectory.",
            "A student starts at one of these points and takes some steps on the synthetic images. Those are moved "
            "until it arrives where the expert was, epochs later.",
            "The gradient goes back through every step of the student, which costs time and memory.",
        ),
        terms=("trajectory", "expert", "unrolling"),
        runs=("gallery-digits-mtt-1",),
        without={"d": "digits", "m": "mtt", "ipc": "1"},
        method="mtt",
        equation=TRAJECTORIES,
        parts=(
            Part("student", "where the student arrives", f"Lit: the synthetic images and the student's weights, "
                 f"{DRAWING}.", (SYNTHETIC, SYNTHETIC_FOUND, SLOW.format(2))),
            Part("expert", "where the expert was", f"Lit: the expert's weights, {DRAWING}. They come from the real "
                 "images.", (REAL, REAL_FOUND, SLOW.format(1))),
            Part("way", "the expert's way", f"Lit: where both set out, {DRAWING}. Dividing by the length of the "
                 "expert's way makes early and late parts of it count alike.", (NETWORK,)),
            IMAGES,
        ),
    ),
    Stop(
        "Noise or digits?",
        "pages/compare.py",
        {"dataset": "mnist", "runs": "{0},{1}", "film": "true"},
        (
            "Both sets hold ten images of MNIST. One looks like digits, the other like noise, and networks learn from "
            "either.",
            "The noisy set was made for one fixed initial network: it only has to push those very weights to the right "
            "place, by whatever pixels do that.",
            "The other one had to serve ever new random networks. What serves them all is what the digits of a class "
            "have in common, and that is what we recognise.",
        ),
        terms=("initialisation", "random-network", "protocol"),
        runs=("gallery-mnist-dd-1", "gallery-mnist-dc-1"),
        without={"dataset": "digits"},
        parts=(
            Part("films", "the two films", "Lit: the two sets side by side, under one timeline.",
                 (".st-key-compare_player >>> .stage",)),
            Part("start", "the start", "Lit: the timeline. At its left end both still show what they began with.",
                 (".st-key-compare_player >>> .transport",)),
        ),
    ),
    Stop(
        "What it has to beat, and what it costs",
        "pages/distil.py",
        {"run": "{0}", "reveal": "0"},
        (
            "A distilled set is worth its price only if it beats real images of the same number. Such baselines are "
            "the dashed lines of the accuracy, which appears when you have answered.",
            "Picking random real images takes no time. Distilling took what stands above the film, and takes it again "
            "for every other dataset.",
            "“Make a baseline” on the page Compare has nine cleverer ways to pick images, under the same protocols.",
        ),
        terms=("baseline", "coreset", "herding", "protocol"),
        runs=("gallery-cifar10-dm-10",),
        without={"d": "digits", "m": "dm", "ipc": "10"},
        parts=(
            Part("lines", "the baselines", "Lit: accuracy while distilling. Dashed lines are baselines of as many "
                 "images.", (CURVE,)),
            Part("cost", "the cost", "Lit: the distilling time, above the film.", (".st-key-film >>> .facts",)),
        ),
        question=Question(
            "By how much do these hundred images beat a hundred random real ones?",
            ("By less than 5 points", "By 5 to 15 points", "By more than 15 points"),
            "gain",
            (0.05, 0.15),
            "A hundred photographs leave most of what a class looks like unseen, and no method squeezes all of it in.",
        ),
    ),
    Stop(
        "What the student sees",
        "pages/attribution.py",
        {"dataset": "digits", "section": "maps"},
        (
            "A student of distilled digits has never seen a real one, and here it answers for real ones. Each pixel of "
            "its map says how much it spoke for the answer.",
            "Look whether the map follows the strokes, or marks places where nothing is written.",
            "Train a second student on real images and choose both: they may give the same answer for different "
            "reasons.",
        ),
        terms=("attribution", "completeness", "sanity-check"),
        runs=("gallery-digits-dm-10",),
        parts=(
            Part("maps", "the maps", "Lit: the image, and beside it the map of each student.", (".maps figure",)),
            Part("train", "the button", "Lit: the button that trains the student.", (".st-key-train",)),
        ),
        student="digits",
        prepare=("pages/students.py", {"dataset": "digits", "src": "{0}", "p": "quick", "w": "32"}),
        preparing=(
            "First there has to be a student. The form is set to a network that learns from a hundred distilled "
            "digits: press “Train”, which takes some seconds.",
            "As soon as it is trained, this card leads on to the pixels that make its answers.",
        ),
        without={"dataset": "digits", "src": "random", "p": "quick", "w": "32"},
    ),
    Stop(
        "Texture or shape?",
        "pages/bias.py",
        {
            "dataset": "shapes",
            "section": "study",
            "n": "100",
            "study": _study("{0}", "500"),
        },
        (
            "Show a network the shape of one thing with the texture of another: which of the two does it name?",
            "Press “Run this study”. It trains networks on ten distilled shapes, on ten random ones and on 500, and "
            "asks them all; that takes about half a minute.",
            "Look at the shape bias together with its interval: of so few networks most differences are chance, and "
            "the page says so.",
        ),
        terms=("cue-conflict", "shape-bias", "coverage"),
        runs=("gallery-shapes-dm-1",),
        without={"dataset": "shapes", "section": "study", "n": "100", "study": _study("none", "10,500")},
        parts=(
            Part("press", "the button", "Lit: the button that runs the study, until it has been run.",
                 ('[data-testid="stBaseButton-primary"]',)),
            Part("bias", "the answer", "Lit: shape bias against accuracy for each way of training, once it is there.",
                 (".st-key-study_figure",)),
        ),
    ),
    Stop(
        "Shortcuts",
        "pages/robustness.py",
        {"section": "shortcut", "n": "100", "r": "2", "st": "1", "tr": "100", "w": "16"},
        (
            "In these training images all stars stand on the left and all moons on the right: the place tells the "
            "class as surely as the shape does.",
            "Press “Train and measure”: with the small numbers of the form it takes less than a minute. Students learn "
            "from distilled, from random and from all images, and are then shown stars on the right.",
            "Look at the last of the tests: who is wrong there went by the place. A distilled set can carry such a "
            "shortcut on.",
        ),
        terms=("shortcut", "spurious-correlation"),
        parts=(
            Part("press", "the button", "Lit: the button that trains and measures.",
                 ('[data-testid="stBaseButton-primaryFormSubmit"]',)),
            Part("tests", "the answer", "Lit: the accuracy in each test, once it is there.",
                 (".st-key-robust_figure_shortcut",)),
        ),
    ),
    Stop(
        "What it is for, and what it could be abused for",
        "pages/students.py",
        {"dataset": "digits", "src": "{0}", "net": "mlp", "p": "quick"},
        (
            "A small set makes training cheap. Press “Train”: another kind of network learns from a hundred images in "
            "seconds. That serves to try many networks, and to rehearse old things while learning new ones.",
            "Who makes the set decides what networks learn from it. A backdoor, or the bias of a dataset, can be "
            "distilled into pixels in which nobody sees it.",
            "Nor is a synthetic image anonymous by itself: it was made from people's pictures and may resemble them "
            "(Carlini, Feldman & Nasr 2022). Ask for real test images, and for where a set came from.",
        ),
        terms=("cross-architecture", "backdoor", "spurious-correlation"),
        runs=("gallery-digits-dm-10",),
        without={"dataset": "digits", "src": "random", "net": "mlp", "p": "quick"},
        parts=(
            Part("train", "the button", "Lit: the button that trains the network.", (".st-key-train",)),
            Part("set", "the set", "Lit: what the network is trained on.", (".st-key-student_source",)),
        ),
    ),
)  # fmt: skip


def number(text: str | None) -> int | None:
    """The stop that an address names, counted from 1; None where it names none."""
    if text is None or not text.isascii() or not text.isdecimal() or len(text) > 3:
        return None
    return int(text) if 1 <= int(text) <= len(STOPS) else None
