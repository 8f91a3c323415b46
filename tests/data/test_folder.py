import io
import os
import stat
import struct
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from engine.data import folder_check, load
from engine.data.folder_check import check_folder
from engine.errors import Refused


def picture(mode="RGB", size=(40, 30), value=None, form="PNG"):
    channels = {"RGB": 3, "RGBA": 4, "L": 1, "LA": 2}[mode]
    pixels = np.random.default_rng(value).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels.squeeze() if channels == 1 else pixels, mode).save(out, form)
    return out.getvalue()


def files(classes=("cats", "dogs"), count=6, parts=("",), top="", **how):
    return {
        f"{top}{part}{name}/{i}.png": picture(value=i, **how)
        for part in parts
        for name in classes
        for i in range(count)
    }


def write_zip(path, contents):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def write_folder(path, contents):
    for name, content in contents.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


@pytest.fixture(params=["zip", "folder"])
def write(request, tmp_path):
    return lambda contents: (
        write_zip(tmp_path / "mine.zip", contents)
        if request.param == "zip"
        else write_folder(tmp_path / "mine", contents)
    )


# ---- what is taken --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("top", ["", "pictures/"])
def test_classes_and_a_split_of_ones_own(write, top):
    path = write(files(("cats", "dogs", "owls"), 10, top=top))
    report = check_folder(path)
    assert report.classes == ("cats", "dogs", "owls") and report.counts == dict.fromkeys(report.classes, 10)
    assert report.test_counts is None and report.warnings == []
    data = load(f"folder:{path}", 28)
    assert data.train_images.shape == (24, 3, 28, 28) and data.test_images.shape == (6, 3, 28, 28)
    assert data.test_labels.bincount().tolist() == [2, 2, 2] and data.title == "mine"
    again = load(f"folder:{path}", 28)
    assert again is data and load(f"folder:{path}", 32).size == 32


@pytest.mark.parametrize("top", ["", "pictures/"])
def test_train_and_test_folders(write, top):
    path = write({**files(parts=("train/",), count=6, top=top), **files(parts=("test/",), count=2, top=top)})
    report = check_folder(path)
    assert report.counts == {"cats": 6, "dogs": 6} and report.test_counts == {"cats": 2, "dogs": 2}
    data = load(f"folder:{path}")
    assert len(data.train_labels) == 12 and len(data.test_labels) == 4


def test_the_middle_square_is_kept(tmp_path):
    image = Image.new("RGB", (120, 40), "red")
    image.paste("blue", (40, 0, 80, 40))
    out = io.BytesIO()
    image.save(out, "PNG")
    path = write_zip(tmp_path / "a.zip", {f"{c}/{i}.png": out.getvalue() for c in "ab" for i in range(5)})
    images = load(f"folder:{path}").train_images
    assert images.shape[2:] == (32, 32) and (images[:, 2] > 240).all() and (images[:, 0] < 15).all()


def test_grey_only_when_all_are_grey(tmp_path):
    grey = files(count=5, mode="L")
    assert load(f"folder:{write_zip(tmp_path / 'a.zip', grey)}").channels == 1
    mixed = {**grey, "cats/0.png": picture("RGB", value=1)}
    assert load(f"folder:{write_zip(tmp_path / 'b.zip', mixed)}").channels == 3


def test_transparency_lies_on_white(tmp_path):
    out = io.BytesIO()
    Image.new("RGBA", (30, 30), (0, 0, 0, 0)).save(out, "PNG")
    path = write_zip(tmp_path / "a.zip", {f"{c}/{i}.png": out.getvalue() for c in "ab" for i in range(5)})
    assert (load(f"folder:{path}").train_images == 255).all()


def test_photographs_are_upright(tmp_path):
    """A picture whose upper half is white, stored lying on its side as telephones do."""
    image = Image.new("L", (60, 60), 0)
    image.paste(255, (0, 0, 30, 60))
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    image.save(out, "JPEG", exif=exif)
    path = write_zip(tmp_path / "a.zip", {f"{c}/{i}.jpg": out.getvalue() for c in "ab" for i in range(5)})
    images = load(f"folder:{path}").train_images
    assert (images[:, :, :14] > 240).all() and (images[:, :, 18:] < 15).all()


def test_unreadable_images_are_named_and_left_out(write):
    broken = picture(size=(200, 200), form="JPEG")
    path = write({**files(count=8), "cats/broken.jpg": broken[: len(broken) // 2], "dogs/text.png": b"hello"})
    report = check_folder(path)
    assert report.counts == {"cats": 8, "dogs": 8}
    assert any("broken.jpg" in w and "text.png" in w and w.startswith("2 images") for w in report.warnings)
    data = load(f"folder:{path}")
    assert len(data.train_labels) + len(data.test_labels) == 16 and any("broken.jpg" in note for note in data.notes)


def test_what_is_no_image_is_left_out_with_a_word(write):
    extra = {"cats/notes.txt": b"x", ".DS_Store": b"x", "__MACOSX/cats/._0.png": b"x", "cats/.hidden.png": b"x"}
    report = check_folder(write({**files(), **extra}))
    assert report.counts == {"cats": 6, "dogs": 6}
    assert report.warnings == ["Left out, for they are no images: 1 file."]


def test_a_changed_folder_is_read_anew(tmp_path):
    path = write_folder(tmp_path / "mine", files(count=5))
    first = load(f"folder:{path}")
    write_folder(path, {"owls/" + name.split("/")[1]: content for name, content in files(("cats",), 5).items()})
    assert len(load(f"folder:{path}").classes) == 3 and len(first.classes) == 2


def test_checking_needs_no_torch():
    code = "import sys, engine.data.folder_check; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


# ---- what is refused ------------------------------------------------------------------------------------------------


def both_refuse(path, pattern):
    """The checker and the loader say the same, with nobody's path in it."""
    with pytest.raises(Refused, match=pattern) as refusal:
        check_folder(path)
    assert str(path.parent) not in str(refusal.value)
    with pytest.raises(Refused, match=pattern):
        load(f"folder:{path}")


@pytest.mark.parametrize(
    ("contents", "pattern"),
    [
        (files(("cats",)), "1 class"),
        ({"a.png": b"", "b.png": b""}, "0 classes"),
        ({"readme.txt": b""}, "no images"),
        (files(count=4), "“cats” has 4 readable training images; every class needs at least 5"),
        (files(tuple(f"c{i}" for i in range(101)), 1), "101 classes"),
        ({**files(), "cats/more.zip": b"PK"}, "another archive.*more.zip"),
        ({**files(parts=("train/",)), **files(("cats",), 2, ("test/",))}, "“dogs” has no readable test image"),
        ({**files(parts=("train/",)), **files(("cats", "dogs", "owls"), 2, ("test/",))}, "“owls” has test images, but"),
        ({"train/a.png": b"", "test/a.png": b""}, "no classes in the folder “train”"),
        ({name: b"not an image" for name in files()}, "12 of 12 images cannot be read"),
    ],
)
def test_folders_that_make_no_dataset(write, contents, pattern):
    both_refuse(write(contents), pattern)


def test_sizes_and_missing_paths(tmp_path):
    path = write_zip(tmp_path / "a.zip", files())
    for size in (27, 65, 0):
        with pytest.raises(Refused, match="28 to 64"):
            load(f"folder:{path}", size)
    both_refuse(tmp_path / "none.zip", "no folder and no .zip")
    for name in ("", "~nobody-at-all/x", "a\0b", "x" * 5000, "/"):
        with pytest.raises(Refused):
            load(f"folder:{name}")


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "cats/../../evil.png", "C:/evil.png", "..\\evil.png"])
def test_paths_out_of_the_zip(tmp_path, name):
    both_refuse(write_zip(tmp_path / "a.zip", {**files(), name: picture()}), "would leave its folder")
    assert not (tmp_path / "evil.png").exists()


def test_links_in_a_zip(tmp_path):
    path = write_zip(tmp_path / "a.zip", files())
    link = zipfile.ZipInfo("cats/link.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    both_refuse(path, "holds a link")


@pytest.mark.parametrize("target", ["file", "folder", "loop"])
def test_links_in_a_folder(tmp_path, target):
    path = write_folder(tmp_path / "mine", files())
    outside = write_folder(tmp_path / "outside", {"secret.png": picture()})
    where = {"file": outside / "secret.png", "folder": outside, "loop": path}[target]
    os.symlink(where, path / "cats" / "link.png")
    both_refuse(path, "holds a link")


def test_a_bomb_by_ratio(tmp_path):
    both_refuse(write_zip(tmp_path / "a.zip", {**files(), "cats/bomb.bmp": bytes(20_000_000)}), "100 times its size")
    many = {f"cats/{i}.bmp": bytes(900_000) for i in range(50)}
    both_refuse(write_zip(tmp_path / "b.zip", {**files(), **many}), "would unpack to 4.* MB")


def test_a_bomb_by_pixels(tmp_path):
    """A PNG of a few hundred bytes that says it is 60,000 × 60,000: never decoded, named, left out."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    rows = chunk(b"IDAT", zlib.compress(bytes(1000)))
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rows + chunk(b"IEND", b"")
    path = write_zip(tmp_path / "a.zip", {**files(count=8), "cats/bomb.png": bomb})
    report = check_folder(path)
    assert any("bomb.png" in warning for warning in report.warnings) and report.counts["cats"] == 8
    assert any("bomb.png" in note for note in load(f"folder:{path}").notes)


def test_a_table_of_contents_that_is_too_large(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "a.zip", files(count=40))
    monkeypatch.setattr(folder_check, "MAX_DIRECTORY_BYTES", 1000)
    monkeypatch.setattr(folder_check, "MAX_FILE_BYTES", 1000)
    both_refuse(path, "not a zip that can be read")


def test_limits_on_count_and_size(write, monkeypatch):
    path = write(files())
    monkeypatch.setattr(folder_check, "MAX_FILES", 11)
    both_refuse(path, "more than 11 files")
    monkeypatch.setattr(folder_check, "MAX_FILES", 100)
    monkeypatch.setattr(folder_check, "MAX_FILE_BYTES", 1000)
    with pytest.raises(Refused, match="larger than|not a zip"):
        check_folder(path)


@pytest.mark.parametrize("damage", ["text", "empty", "cut", "flipped", "encrypted", "unknown method"])
def test_damaged_zips(tmp_path, damage):
    path = write_zip(tmp_path / "a.zip", files())
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    if damage == "text":
        content = b"this is no zip"
    elif damage == "empty":
        content = b""
    elif damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[200] ^= 0xFF
    elif damage == "encrypted":
        content[entry + 8] |= 1
    else:
        content[entry + 10] = 99
    path.write_bytes(content)
    both_refuse(path, "a.zip")


@pytest.mark.parametrize("trouble", ["name", "no name", "place"])
def test_entries_that_contradict_the_table_of_contents(tmp_path, trouble):
    path = write_zip(tmp_path / "a.zip", {name.replace("dogs", "dögs"): c for name, c in files().items()})
    content = bytearray(path.read_bytes())
    if trouble == "name":
        at = content.index("dögs".encode())  # the first is the entry's own
        content[at + 1] = 0xFF
    elif trouble == "no name":
        content[content.rindex("dögs".encode())] = 0
    else:  # the first entry is said to lie before the file begins
        end = content.rindex(b"PK\x05\x06")
        content[end + 16 : end + 20] = struct.pack("<I", struct.unpack_from("<I", content, end + 16)[0] + 5000)
    path.write_bytes(content)
    both_refuse(path, "a.zip")


def test_strange_names_are_shown_safely(tmp_path):
    path = write_zip(tmp_path / "a.zip", files(("cats", "do\x1b[31mgs")))
    with pytest.raises(Refused, match="not printable") as refusal:
        check_folder(path)
    assert "\x1b" not in str(refusal.value)


def test_a_damaged_image_does_not_shift_labels(tmp_path):
    """Each class has one colour; a broken file among them must not move the labels of those after it."""

    def flat(value):
        out = io.BytesIO()
        Image.new("L", (32, 32), value).save(out, "PNG")
        return out.getvalue()

    contents = {f"{c}/{i}.png": flat(v) for c, v in (("a", 10), ("b", 200)) for i in range(10)}
    contents["a/3.png"] = b"broken"
    data = load(f"folder:{write_zip(tmp_path / 'a.zip', contents)}")
    assert torch.equal(data.train_images[:, 0, 0, 0] > 100, data.train_labels == 1)
    assert torch.equal(data.test_images[:, 0, 0, 0] > 100, data.test_labels == 1)
