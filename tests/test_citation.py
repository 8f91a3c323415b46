"""CITATION.cff can be read, and names every paper that the code does."""

import re
from pathlib import Path

import pytest
import yaml

from engine.methods import METHODS

ROOT = Path(__file__).resolve().parents[1]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
PAPERS = CITATION["references"]
NAMED = re.compile(r"([A-ZÀ-Ý][\w'-]+)(?:(?:, [A-Z][\w-]+)*,? & [A-Z][\w-]+| et al\.)")  # the first of the authors


def test_the_software_is_described() -> None:
    assert CITATION["cff-version"] == "1.2.0" and CITATION["title"] == "Limbeck"
    assert {"message", "authors", "version", "license"} <= CITATION.keys()
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{CITATION["version"]}"' in project and f'license = "{CITATION["license"]}"' in project


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper["title"][:30])
def test_every_paper_says_who_when_where_and_what_for(paper: dict) -> None:
    assert all(author["family-names"] and author["given-names"] for author in paper["authors"])
    assert 1900 < paper["year"] < 2100 and paper["notes"]
    assert paper["conference"]["name"] if paper["type"] == "conference-paper" else paper.get("journal") or paper["url"]


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.id)
def test_every_method_has_its_paper(method) -> None:
    assert [
        paper
        for paper in PAPERS
        if paper["title"] in method.paper
        and str(paper["year"]) in method.paper
        and method.paper.startswith(paper["authors"][0]["family-names"])
        and re.search(rf"\b{method.id}\b", paper["notes"])
    ], method.paper


def test_everybody_who_is_cited_in_the_code_is_in_the_list() -> None:
    first = {paper["authors"][0]["family-names"] for paper in PAPERS}
    for file in [*(ROOT / "engine").rglob("*.py"), *(ROOT / "pages").rglob("*.py")]:
        if file.name in ("catalogue.py", "glossary.py"):  # where datasets and words come from: nothing to implement
            continue
        text = re.sub(r'(?:"\s*\n\s*f?"|\s*\n\s*(?:# )?)', " ", file.read_text()).replace("  ", " ")
        assert {named[1] for named in NAMED.finditer(text)} <= first, file.name
