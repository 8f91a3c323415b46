"""Checkpoints: two are kept, a damaged one is passed over, and nothing in one is ever executed."""

import pickle

import torch

from engine.runs import checkpoint


def test_the_last_two_are_kept_and_the_newest_is_read(tmp_path):
    for step in (1, 5, 9):
        checkpoint.save(tmp_path, step, {"images": torch.full((2,), float(step)), "seconds": 1.5})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000000005.pt", "000000009.pt"]
    state = checkpoint.load(tmp_path)
    assert state["step"] == 9 and state["images"].tolist() == [9.0, 9.0] and state["seconds"] == 1.5


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"images": torch.zeros(1000)})
    newest = tmp_path / "000000002.pt"
    for damage in (newest.read_bytes()[:700], b"", b"\0" * 5000):
        newest.write_bytes(damage)
        assert checkpoint.load(tmp_path)["step"] == 1


def test_without_any_there_is_none(tmp_path):
    assert checkpoint.load(tmp_path / "missing") is None


def test_what_a_killed_writer_left_is_removed(tmp_path):
    (tmp_path / ".0123456789ab").write_bytes(b"half")
    checkpoint.save(tmp_path, 1, {})
    assert [p.name for p in tmp_path.iterdir()] == ["000000001.pt"]


class Trap:
    def __reduce__(self):
        return (open, ("trap-was-sprung", "w"))


def test_a_pickle_in_its_place_is_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "000000007.pt").write_bytes(pickle.dumps(Trap(), protocol=2))
    torch.save({"format": 1, "step": 8, "x": Trap()}, tmp_path / "000000008.pt")
    assert checkpoint.load(tmp_path) is None
    assert not (tmp_path / "trap-was-sprung").exists()
