"""What a newcomer relies on: the commands that the documents name, the packages that an install brings."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
DOCUMENTS = sorted(ROOT.glob("*.md"))

# Import name of a distribution, where it is another; starlette is what streamlit's own server is made of.
IMPORTED_AS = {"PIL": "pillow", "sklearn": "scikit-learn", "starlette": "streamlit"}


def named(pattern: str) -> set[str]:
    """What the documents name in commands: fenced blocks, indented blocks and inline code."""
    return {found for document in DOCUMENTS for found in re.findall(pattern, document.read_text())}


def test_documents_name_only_targets_that_make_has() -> None:
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
    assert {"setup", "run", "test", "lint"} <= targets
    assert named(r"(?:`|^|\n\s*|&& )make ([a-z]+)") <= targets


def test_documents_name_only_commands_that_exist() -> None:
    help = subprocess.run(
        [sys.executable, "-m", "engine", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert help.returncode == 0, help.stderr
    for command in named(r"python -m engine ([a-z]+)"):
        assert re.search(rf"\b{command}\b", help.stdout), f"python -m engine {command} is documented, but not there"


def test_every_imported_package_is_installed_by_the_project() -> None:
    def names(dependencies: list[str]) -> set[str]:
        return {re.split(r"[<>=~! \[]", d, maxsplit=1)[0].lower() for d in dependencies}

    always, more = names(PROJECT["dependencies"]), names(PROJECT["optional-dependencies"]["cluster"])
    own = {"engine", "pages", "app"}
    for file in [ROOT / "app.py", *(ROOT / "engine").rglob("*.py"), *(ROOT / "pages").rglob("*.py")]:
        declared = always | more if file.parent.name == "cluster" else always
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules = [a.name for a in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module or ""]
            else:
                continue
            for top in {m.split(".")[0] for m in modules} - own - set(sys.stdlib_module_names):
                assert IMPORTED_AS.get(top, top).lower() in declared, f"{file.relative_to(ROOT)} imports {top}"


def test_every_dependency_has_a_floor_and_a_ceiling() -> None:
    for dependency in [
        *PROJECT["dependencies"],
        *(d for extra in PROJECT["optional-dependencies"].values() for d in extra),
    ]:
        assert ">=" in dependency and "<" in dependency.replace(">=", ""), dependency


def test_make_and_the_tests_look_for_the_same_browsers() -> None:
    conftest = (ROOT / "tests" / "browser" / "conftest.py").read_text()
    names = re.search(r"^NAMES = \((.*)\)", conftest, re.MULTILINE)
    line = re.search(r"^CHROMIUM = (.*)$", MAKEFILE, re.MULTILINE)
    assert names and line
    assert re.findall(r'"([^"]+)"', names[1]) == re.findall(r"command -v ([^ ]+)", line[1])


def test_the_check_can_be_started_on_a_fresh_clone() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()


@pytest.mark.parametrize("suffix", ["*.py", "*.css", "*.js", "*.toml"])
def test_nothing_is_fetched_from_elsewhere(suffix: str) -> None:
    """A seminar room may be offline: no script, style or font comes from another host."""
    for folder in ("pages", "assets", ".streamlit"):
        for file in (ROOT / folder).rglob(suffix):
            hosts = re.findall(r"https?://[^\s\"')]+", file.read_text())
            assert not [h for h in hosts if "www.w3.org" not in h], f"{file.relative_to(ROOT)}: {hosts}"
