"""Change the core formulas one place at a time, and see whether their tests notice.

    make mutants                            # all of them: some minutes
    python tests/mutants.py herding scores  # those whose file or change has one of these words

Each mutant is (file, what is there, what stands there instead, the tests that must fail). They run in a copy of the
tree, each in a process of its own that is forked once the libraries are imported. A survivor is a test that is missing,
and makes the exit status 1; a mutant whose place is not there any more makes it 2.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 300  # seconds of a mutant; one that hangs is noticed, too

PROTOCOLS = "tests/students/test_protocols.py"
RANKING = "tests/students/test_ranking.py -k by_hand"
DYNAMICS = "tests/baselines/test_dynamics.py -k hand|event|el2n|aum|places|leaves_the_hardest"
PICKS = "tests/baselines/test_baselines.py -k plain_version"
BIAS = "tests/probes/test_bias_measures.py -k hand|neither|kappa|bootstrap|widen"
INTERVALS = "tests/test_intervals.py"
MAPS = "tests/probes/test_attribution_measures.py -k correlation|overlap|cosine|share|colours|areas"
CURVES = "tests/probes/test_attribution_measures.py -k deletion|order|infidelity|squares"
PATH = "tests/probes/test_attribution_methods.py -k linear_function|halved|no_gap|baselines_are"
TRANSFER = "tests/probes/test_robustness_transfer.py -k hand|trace|shrunk"
GROUPS = "tests/probes/test_robustness.py -k hand_computed|smallest_radius|ball|surest|intervals"
EQUATIONS = "tests/distill/test_equations.py"
WORTH = "tests/probes/test_valuation.py -k game|alike|add_up|order|disagree"
EDITS = "tests/test_edits.py"

MUTANTS: tuple[tuple[str, str, str, str], ...] = (
    # ---- how students are trained ----
    ("engine/students/protocols.py", "else self.rate / 10 for", "else self.rate / 5 for", PROTOCOLS),
    ("engine/students/protocols.py", "step < restart else", "step <= restart else", PROTOCOLS),
    ("engine/students/protocols.py", "(self.epochs // 2 + 1)", "(self.epochs // 2)", PROTOCOLS),
    ("engine/students/protocols.py", "self.epochs * math.ceil(images / self.batch)", "self.epochs", PROTOCOLS),
    ("engine/students/protocols.py", "(step + 1) / warm", "step / warm", PROTOCOLS),
    ("engine/students/protocols.py", "(1 + math.cos(math.pi", "(1 - math.cos(math.pi", PROTOCOLS),
    ("engine/students/protocols.py", "math.log(x1 / x0)))", "math.log(x1 * x0)))", PROTOCOLS),
    ("engine/students/protocols.py", "(below or above)[-1 if below else 0][1]", "below[-1][1]", PROTOCOLS),
    ("engine/students/protocols.py", "epochs=1000, augment=\"dc\"", "epochs=300, augment=\"dc\"", PROTOCOLS),
    ("engine/students/protocols.py", "rate=10 * protocol.rate", "rate=protocol.rate", PROTOCOLS),
    # ---- robust scores ----
    ("engine/students/ranking.py", "return real_hard - syn_hard", "return syn_hard - real_hard", RANKING),
    ("engine/students/ranking.py", "(math.e - math.exp(-1))", "(math.e + math.exp(-1))", RANKING),
    ("engine/students/ranking.py", "weight * ior - (1 - weight) * hlr", "weight * ior + (1 - weight) * hlr", RANKING),
    ("engine/students/ranking.py", "(1 - balance) * (syn_plain", "balance * (syn_plain", RANKING),
    # ---- selections ----
    ("engine/baselines/herding.py", "(k + 1) * mean", "k * mean", PICKS),
    ("engine/baselines/herding.py", "* mean - total", "* mean + total", PICKS),
    ("engine/baselines/herding.py", "distances[out] = torch.inf", "distances[out[:-1]] = torch.inf", PICKS),
    ("engine/baselines/kcenter.py", "sum(1).argmin()", "sum(1).argmax()", PICKS),
    ("engine/baselines/kcenter.py", "torch.minimum(nearest", "torch.maximum(nearest", PICKS),
    ("engine/baselines/kcenter.py", "int(nearest.argmax())", "int(distances.argmax())", PICKS),
    ("engine/baselines/el2n.py", "min(EPOCHS, dynamics.errors.shape[1]) - 1", "0", DYNAMICS),
    ("engine/baselines/el2n.py", ".mean(0)", ".max(0).values", DYNAMICS),
    ("engine/baselines/ccs.py", "(len(sizes) - i)", "len(sizes)", DYNAMICS),
    ("engine/baselines/ccs.py", "min(int(beta * len(scores)), len(scores) - count) :]", "0:]", DYNAMICS),
    ("engine/baselines/ccs.py", "0.2 if kept <= 0.2 else 0.1", "0.2 if kept <= 0.1 else 0.1", DYNAMICS),
    ("engine/baselines/ccs.py", "dynamics.margins.mean((0, 1))", "dynamics.margins.mean(0)[-1]", DYNAMICS),
    ("engine/baselines/forgetting.py", "right[:, :-1] & ~right[:, 1:]", "~right[:, :-1] & right[:, 1:]", DYNAMICS),
    ("engine/baselines/forgetting.py", "~right.any(1).any(0)", "~right.any(1).all(0)", DYNAMICS),
    ("engine/baselines/forgetting.py", "margins > 0", "margins >= 0", DYNAMICS),
    ("engine/baselines/forgetting.py", "places = max(places, ipc", "places = min(places, ipc", DYNAMICS),
    # ---- intervals of shares ----
    ("engine/intervals.py", "share + z * z / (2 * trials)", "share - z * z / (2 * trials)", INTERVALS),
    ("engine/intervals.py", "z * z / (4 * trials * trials)", "z * z / (4 * trials)", INTERVALS),
    # ---- texture and shape ----
    ("engine/probes/bias/measures.py", "self.shape / self.usable if", "self.shape / self.trials if", BIAS),
    ("engine/probes/bias/measures.py", "self.usable / self.trials if", "self.shape / self.trials if", BIAS),
    ("engine/probes/bias/measures.py", "conflict = shape != texture", "conflict = shape == shape", BIAS),
    ("engine/probes/bias/measures.py", "int(self.usable < FEW)", "int(self.usable <= FEW)", BIAS),
    ("engine/probes/bias/measures.py", "- b)\n    return Agreement", "* b)\n    return Agreement", BIAS),
    ("engine/probes/bias/measures.py", "(shape | texture).sum(1)", "texture.sum(1)", BIAS),
    ("engine/probes/bias/measures.py", "each = hits / (hits + misses)", "each = misses / (hits + misses)", BIAS),
    ("engine/probes/bias/measures.py", "(both + none - expected) / (1 - expected)", "both + none - expected", BIAS),
    # ---- maps ----
    ("engine/probes/attribution/figures.py", "x, y = rankdata(a), rankdata(b)", "x, y = a, b", MAPS),
    ("engine/probes/attribution/figures.py", "len(top[0] & top[1]) / count", "len(top[0] & top[1]) / a.size", MAPS),
    ("engine/probes/attribution/figures.py", "-np.abs(m).ravel()", "-m.ravel()", MAPS),
    ("engine/probes/attribution/figures.py", "2 * vab + c2", "vab + c2", MAPS),
    ("engine/probes/attribution/figures.py", "volume = np.abs(maps)", "volume = maps", MAPS),
    ("engine/probes/attribution/figures.py", "[0.025, 0.975]", "[0.05, 0.95]", MAPS),
    ("engine/probes/attribution/quality.py", "_pixels, base, image[None])", "_pixels, image[None], base)", CURVES),
    ("engine/probes/attribution/quality.py", "rank[None, :] < np.round", "rank[None, :] <= np.round", CURVES),
    ("engine/probes/attribution/quality.py", "rank[order] = np.arange(len(order))", "rank[:] = order", CURVES),
    ("engine/probes/attribution/quality.py", "local = method ==", "local = method !=", CURVES),
    ("engine/probes/attribution/quality.py", "size // 4, size // 2 + 1", "size // 4, size + 1", CURVES),
    ("engine/probes/attribution/path.py", "(gradients[1:] + gradients[:-1]) / 2", "gradients[1:]", PATH),
    ("engine/probes/attribution/path.py", "(places[worst] + places[worst + 1]) / 2", "places[worst] + 1e-3", PATH),
    ("engine/probes/attribution/path.py", "missed.abs().argsort(descending=True)", "missed.abs().argsort()", PATH),
    ("engine/probes/attribution/methods.py", "- rise) / abs(rise)", "- rise)", PATH),
    ("engine/probes/attribution/methods.py", "else attribution.abs()).sum(1)", "else attribution).sum(1)", PATH),
    # ---- robustness and transfer ----
    ("engine/probes/robustness/scores.py", "np.maximum(joint.sum(0", "np.maximum(joint.sum(1", TRANSFER),
    ("engine/probes/robustness/scores.py", "@ probabilities / len(labels)", "@ probabilities", TRANSFER),
    ("engine/probes/robustness/scores.py", "return float((joint[some]", "return -float((joint[some]", TRANSFER),
    ("engine/probes/robustness/scores.py", "s[keep] ** 2 / n", "s[keep] ** 2 / (n - 1)", TRANSFER),
    ("engine/probes/robustness/scores.py", "f = features - features.mean(0)", "f = features", TRANSFER),
    ("engine/probes/robustness/attacks.py", "2.5 * radius / steps / 255 if", "0.25 * radius / steps / 255 if", GROUPS),
    ("engine/probes/robustness/attacks.py", "radius / 255, labels)", "2 * radius / 255, labels)", GROUPS),
    ("engine/probes/robustness/attacks.py", "None if level is None else level / grain", "level", GROUPS),
    # ---- what-ifs ----
    ("engine/probes/whatif/valuation.py", "[whole - game.worth", "[game.worth", WORTH),
    ("engine/probes/whatif/valuation.py", "now - before, now", "now - before, before", WORTH),
    ("engine/probes/whatif/valuation.py", "if part and abs(goal", "if abs(goal", WORTH),
    ("engine/probes/whatif/valuation.py", "< spec.tolerance:", "> 1:", WORTH),
    ("engine/probes/whatif/valuation.py", "_error(own.mean(0))]", "_error(own.mean(0).T)]", WORTH),
    ("engine/probes/whatif/valuation.py", "math.sqrt(rows.shape[1])", "rows.shape[1]", WORTH),
    ("engine/editing.py", "return replace(synthetic, images=images, labels=labels)", "return synthetic", EDITS),
    ("engine/editing.py", "image.flip(-1)", "image.flip(-2)", EDITS),
    ("engine/editing.py", "images = (pixels - mean) / std", "images = (pixels.clamp(0, 1) - mean) / std", EDITS),
    ("engine/editing.py", "out[to], out[most] = label[most], label[to]", "out[to] = label[most]", EDITS),
    ("engine/editing.py", "synthetic.zca.whiten(images) if", "images if", EDITS),
    ("engine/edits.py", "out[y : y + height, x : x + width]", "out[x : x + width, y : y + height]", EDITS),
    # ---- methods ----
    ("engine/distill/dm.py", "- means).square().sum()", "- means).abs().sum()", EQUATIONS),
    ("engine/distill/frepo.py", "0.5 * (real @ (features.T", "1.0 * (real @ (features.T", EQUATIONS),
    ("engine/distill/frepo.py", ".clamp(max=1 / labels.shape[1])", "", EQUATIONS),
)  # fmt: skip


def tree(folder: Path) -> None:
    """A copy of what git knows of, as it lies here."""
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    for name in names.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)


def passed(folder: Path, tests: str) -> bool | None:
    """Whether the tests pass in ``folder``; None where there are none to run."""
    if (child := os.fork()) == 0:
        import signal

        import pytest

        signal.alarm(LIMIT)
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        file, *chosen = tests.split(" ", 2)
        more = [chosen[0], chosen[1].replace("|", " or ")] if chosen else []
        os._exit(int(pytest.main(["-x", "-q", "--rootdir", str(folder), file, *more])))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return None if status in (3, 4, 5) else status == 0


def main(words: list[str]) -> int:
    """Run the mutants that ``words`` name, all without any, and print those that live."""
    sys.dont_write_bytecode = True  # two versions of a file may be of one second and one size
    sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() not in (ROOT, ROOT / "tests")]
    for heavy in ("captum.attr", "scipy.stats", "sklearn.cluster", "torchvision"):  # imported once, and not engine
        import_module(heavy)

    chosen = [m for m in MUTANTS if not words or any(word in f"{m[0]} {m[2]}" for word in words)]
    lived, lost = [], []
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside).resolve()
        tree(folder)
        for tests in dict.fromkeys(m[3] for m in chosen):
            if not passed(folder, tests):
                print(f"{tests}: does not pass as it is, or has no tests")
                lost.append(tests)
        for file, old, new, tests in chosen:
            text = (folder / file).read_text()
            if text.count(old) != 1 or tests in lost:
                lost.append(f"{file}: {old}")
                print(f"lost      {file}: {old!r} is there {text.count(old)} times", flush=True)
                continue
            (folder / file).write_text(text.replace(old, new))
            alive = passed(folder, tests)
            (folder / file).write_text(text)
            lived += [f"{file}: {old} -> {new}"] if alive else []
            print(f"{'SURVIVED' if alive else 'noticed '}  {file}: {old!r} -> {new!r}", flush=True)
    print(f"{len(chosen)} mutants, {len(lived)} survived, {len(lost)} lost")
    return 2 if lost else 1 if lived else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
