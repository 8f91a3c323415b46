"""Image files: a strange one is read rightly, one that cannot be read is named and left out of its class."""

from __future__ import annotations

import threading
import time

import pytest
from PIL import Image

from engine.data import folder, folder_check
from engine.data.folder_check import Unreadable, check_folder, open_image
from engine.errors import Refused
from tests.hostile.archives import Entry, entries, files, raw_zip, write
from tests.hostile.case import Case, bounded, name_of
from tests.hostile.images import CASES


@pytest.mark.filterwarnings("ignore::UserWarning")  # of Pillow, about what it makes the best of
@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_an_image_among_sound_ones(inside, case: Case) -> None:
    content = case.make()
    path = write(inside, raw_zip([*entries(), Entry("cats/hostile.png", content)]))
    with bounded():
        report = check_folder(path)
        readable = report.counts == {"cats": 7, "dogs": 6}
        assert readable or report.counts == {"cats": 6, "dogs": 6}
        if readable:
            case.read(open_image(content, 64))
        else:
            (warning,) = report.warnings
            case.refused(Refused(warning))
            with pytest.raises(Unreadable):
                open_image(content, 64)


def test_large_images_are_decoded_one_at_a_time(inside, monkeypatch) -> None:
    """Threads decode images side by side, but each copy of a large one takes a hundred megabytes."""
    path, at_work, seen = write(inside, raw_zip(entries(files(count=70)))), set(), []
    flat = folder_check._flat

    def watched(image: Image.Image) -> Image.Image:
        at_work.add(threading.get_ident())
        seen.append(len(at_work))
        time.sleep(0.001)
        at_work.discard(threading.get_ident())
        return flat(image)

    monkeypatch.setattr(folder_check, "_flat", watched)
    monkeypatch.setattr(folder.os, "cpu_count", lambda: 4)
    folder.load(f"folder:{path}")
    assert max(seen) > 1
    seen.clear()
    monkeypatch.setattr(folder_check, "LARGE", 10)
    folder.load(f"folder:{path}")
    assert max(seen) == 1 and len(seen) == 140


def test_a_check_takes_its_time_and_no_more(inside, monkeypatch) -> None:
    path = write(inside, raw_zip(entries()))
    monkeypatch.setattr(folder_check, "SECONDS_OF_CHECK", 0.0)
    assert check_folder(path).warnings == ["1 of the 12 images were opened to check them."]
