"""The driver of questions to probes: ``python -m engine.cluster.questions``, in the place of the answerer."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from engine.cluster.driver import Driver, Errand, Gone, drive
from engine.cluster.node import Changes
from engine.cluster.parcel import Parcel, write
from engine.probes.desk import Desk, write_json
from engine.runs.process import signature
from engine.runs.store import Store


class QuestionErrand:
    """A question at the desk.

    It reserves no CPU: it takes seconds, somebody waits for it, and runs would keep it waiting for minutes.
    """

    cpus, gpus = 0.0, 0.0

    def __init__(self, desk: Desk, store: Store, digest: str):
        self.desk, self.store, self.digest = desk, store, digest
        self.folder = desk.root / digest
        self.state = {"progress": 0.0, "message": "Starting."}
        self.told = False
        self.beat()

    def parcel(self) -> Parcel:
        """The question, and the sets, students and pictures it speaks of."""
        parcel = Parcel("question", self.digest)
        parcel.add_files(self.desk.home, self.folder / "question.json")
        parcel.add_mentioned(self.store, self.desk.question(self.digest))
        return parcel

    def apply(self, changes: Changes) -> None:
        """Files of the answer; how far it is."""
        self.state = changes.state or self.state
        write(self.folder, changes.files, ())
        if changes.ended:
            (self.folder / "state.json").unlink(missing_ok=True)
        else:
            self.beat()

    def commands(self) -> list[str]:
        """Whether nobody wants the answer any more."""
        if self.told or not (self.folder / "cancel").exists():
            return []
        self.told = True
        return ["cancel"]

    def beat(self) -> None:
        """That this process is at it, and how far it is."""
        if not self.folder.exists():
            raise Gone
        write_json(self.folder / "state.json", {"pid": os.getpid(), "worker": signature(os.getpid()), **self.state})

    def waits(self) -> None:
        """Nothing but a message."""
        self.state = {"progress": 0.0, "message": "Waiting for a node of the cluster."}

    def lost(self, times: int) -> None:
        """Say so."""
        self.state = {"progress": 0.0, "message": "A node was lost; asking another."}

    def fails(self, sentence: str) -> None:
        """There is no answer."""
        write_json(self.folder / "refusal.json", {"sentence": sentence})
        (self.folder / "state.json").unlink(missing_ok=True)


def main() -> int:
    """The driver's loop."""
    store, desk = Store(), Desk()

    def make(_: Driver) -> Callable[[], Errand | None]:
        def take() -> Errand | None:
            waiting = desk.waiting()  # one that is being worked on is not among them
            return QuestionErrand(desk, store, waiting[0]) if waiting else None

        return take

    return drive(store, make, announce=False)


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)
