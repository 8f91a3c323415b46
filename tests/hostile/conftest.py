"""Where hostile inputs are tried: nothing may appear outside the folder that they are given in."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamlit.runtime.scriptrunner.script_cache import ScriptCache


@pytest.fixture(scope="module")
def compiled_once() -> Iterator[None]:
    """Pages are compiled once for all sessions: that takes longer than to draw one."""
    with pytest.MonkeyPatch.context() as patch:
        read = ScriptCache().get_bytecode
        patch.setattr(ScriptCache, "get_bytecode", lambda _, path: read(path))
        yield


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder two levels deep to put an input into, the working folder. What is around it must stay as it was, and
    nothing may be left among temporary files; ``sprung`` is what code in a file would make."""
    folder, temporary, home = tmp_path / "around" / "inside", tmp_path / "temporary", tmp_path / "home"
    for made in (folder, temporary, home):
        made.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LIMBECK_HOME", str(home))
    monkeypatch.delenv("LIMBECK_DATA", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    yield folder
    assert [p.name for p in tmp_path.iterdir() if p.name not in ("around", "temporary", "home")] == []
    assert [p.name for p in folder.parent.iterdir()] == ["inside"]
    assert list(temporary.iterdir()) == []
    assert not list(tmp_path.rglob("sprung*"))
