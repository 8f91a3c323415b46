"""The film player: the frames of one or several runs under one timeline, drawn by the browser (torch-free)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.runs.store import Run
from pages.components.component import component

LINKED = ("at", "timeline", "layer", "arrange")

_mount = component("player")


def player(
    runs: Sequence[Run],
    *,
    key: str,
    height: str = "",
    badge: str = "",
    message: str = "",
    autoplay: bool = False,
    still: bool = False,
    report: bool = False,
    fork: bool = False,
    together: bool = False,
    linked: bool = False,
    titles: Sequence[str] = (),
    leads: dict[str, Any] | None = None,
) -> Any:
    """Show the film of ``runs``; several share one timeline and stand side by side.

    While a run is going its frames appear as they are made, without any script run. ``height`` is a CSS length, the
    picture's own when empty. ``badge`` stands where the status of the run would (“Replay”); ``message`` is shown
    before the first frame; ``autoplay`` plays a finished film in a loop (not for people who asked for less motion);
    ``still`` shows only the last frame. With ``report`` the result's ``step`` is where the film came to rest, and
    with ``fork`` its ``fork`` the step shown when “Fork here” was pressed, once; these rerun the page. ``together``:
    the runs are branches of one, and are shown from where they part. ``linked``: the address holds where the film was
    halted, its timeline, layer and arrangement (the keys of ``LINKED``). ``titles``: what the runs are called here.
    ``leads``: where an image that is chosen, by a click or by Shift and the arrow keys, leads (see
    ``pages.components.leading``).
    """
    data = {
        "runs": [
            {"id": run.id, "title": title, "status": run.status}
            for run, title in zip(runs, titles or [run.title for run in runs], strict=True)
        ],
        "height": height,
        "badge": badge,
        "message": message,
        "autoplay": autoplay,
        "still": still,
        "report": report,
        "fork": fork,
        "together": together,
        "linked": linked,
        "leads": leads,
    }
    return _mount(key=key, data=data, on_step_change=lambda: None, on_fork_change=lambda: None)
