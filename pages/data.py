"""Your images: bring a folder of images by class, or a distilled set made elsewhere."""

from __future__ import annotations

import io
import re
import secrets
import shutil
import time
from pathlib import Path
from typing import IO

import streamlit as st
from PIL import Image, ImageOps

from engine.data.catalogue import DATASETS, availability
from engine.data.folder_check import FolderReport, Unreadable, check_folder, name_of, open_image, opened
from engine.errors import Refused
from engine.home import aside, limbeck_home
from engine.runs.validate import check
from engine.spec import ImportSpec, RunSpec, build_spec
from engine.table import parameters
from pages.components import address, roles
from pages.components.choice import named
from pages.components.grid import class_grid, data_url
from pages.components.shared import dataset_title, executor, store

PREVIEW_CLASSES, PREVIEW_ROWS, PREVIEW_SIDE, PREVIEW_SECONDS = 20, 4, 48, 5.0
SPACES = {"auto": "told by the values", "unit": "in [0, 1]", "normalised": "normalised"}
DATASET_KEY = next(p.key for p in parameters(RunSpec) if p.name == "dataset")


# ---- files that people send -----------------------------------------------------------------------------------------


def keep(upload: IO[bytes], name: str) -> Path:
    """Save an upload under a folder of its own whose name nobody chose; only the file's stem is the sender's."""
    roles.demand("bring files")
    folder = limbeck_home() / "uploads" / secrets.token_hex(8)
    folder.mkdir(parents=True)
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(name).stem).strip("-")[:60] or "images"
    path = folder / f"{stem}{re.sub('[^a-z0-9.]', '', Path(name).suffix.lower())[:8]}"
    with aside(path) as part, part.open("wb") as file:
        shutil.copyfileobj(upload, file)
    return path


def take_zip() -> None:
    """An upload arrived: keep it when it holds images by class, else say what is wrong and forget it."""
    state = st.session_state
    upload = state.data_upload
    if upload is None:
        return
    path = keep(upload, upload.name)
    try:
        check_folder(path)
    except Refused as refused:
        state.data_refused = f"{name_of(Path(upload.name))}: {refused}"
        shutil.rmtree(path.parent, ignore_errors=True)
        return
    state.data_source, state.data_typed = str(path), ""


def take_typed() -> None:
    st.session_state.data_source = st.session_state.data_typed


@st.cache_data(ttl=600, max_entries=20, show_spinner="Checking the images")
def checked(path: str, fingerprint: tuple[int, int]) -> FolderReport:
    """The checker's report; ``fingerprint`` makes a changed file be checked anew."""
    return check_folder(Path(path))


@st.cache_data(ttl=600, max_entries=20, show_spinner=False)
def sheet(path: str, fingerprint: tuple[int, int], count: int) -> bytes:
    """A contact sheet as PNG: the first ``count`` classes, a column each, with the first few images of each."""
    side = PREVIEW_SIDE
    out = Image.new("RGB", (count * side, PREVIEW_ROWS * side), "#808080")
    rows, until = [0] * count, time.monotonic() + PREVIEW_SECONDS
    with opened(Path(path)) as folder:
        for found in folder.train:
            if found.label >= count or rows[found.label] == PREVIEW_ROWS:
                continue
            if time.monotonic() > until:
                break
            try:
                image = open_image(folder.read(found), side)
            except Unreadable:
                continue
            at = (found.label * side, rows[found.label] * side)
            out.paste(ImageOps.fit(image.convert("RGB"), (side, side)), at)
            rows[found.label] += 1
    buffer = io.BytesIO()
    out.save(buffer, "PNG")
    return buffer.getvalue()


# ---- images by class ------------------------------------------------------------------------------------------------


def choose() -> str:
    """Where the images are: uploaded, typed or named by the address. The path as text, or nothing."""
    state = st.session_state
    if "data_source" not in state or "data_typed" not in state:  # the page is opened, perhaps by a link
        state.data_source = address.query().get("dataset", "").removeprefix("folder:")
        state.data_typed = "" if Path(state.data_source).is_relative_to(limbeck_home()) else state.data_source
    st.file_uploader(
        "A .zip of images by class", type=["zip"], key="data_upload", on_change=take_zip, max_upload_size=200,
        help="One folder per class, with its images inside. Folders train and test around them are used as they are.",
    )  # fmt: skip
    st.text_input(
        "or a folder or .zip on this machine", key="data_typed", on_change=take_typed,
        help="The path of a folder that holds one folder per class.",
    )  # fmt: skip
    st.caption("For instance cats/1.jpg, cats/2.jpg, dogs/1.jpg … 2 to 100 classes, images of any size.")
    refused = state.pop("data_refused", None)
    if refused:
        st.error(refused)
    return state.data_source.strip()


def show(text: str) -> str | None:
    """The images at a path, checked; returns the dataset's name when all is well."""
    try:
        path = Path(text).expanduser().resolve()
        stat = path.stat()
        fingerprint = (stat.st_mtime_ns, stat.st_size)
        report = checked(str(path), fingerprint)
    except Refused as refused:
        st.error(str(refused))
        return None
    except (OSError, ValueError, RuntimeError):
        st.error(f"There is no folder or .zip at “{text[:200]}”. Give the path of one that this machine can read.")
        return None
    name = f"folder:{path}"
    if st.query_params.get("dataset") != name:
        st.query_params["dataset"] = name

    classes = report.classes
    counts = [report.counts[c] for c in classes]
    few, many = min(counts), max(counts)
    each = f"{few:,} each" if few == many else f"{few:,} to {many:,} each"
    tested = f"; {sum(report.test_counts.values()):,} more to test on" if report.test_counts else ""
    st.write(f"**{path.stem}**: {sum(counts):,} images of {len(classes)} classes, {each}{tested}.")
    for warning in report.warnings:
        st.warning(warning)
    shown = classes[:PREVIEW_CLASSES]
    class_grid(
        data_url(content=sheet(str(path), fingerprint, len(shown)), mime="image/png"),
        [f"{c} ({n:,})" for c, n in zip(shown, counts, strict=False)],
        alt=f"The first {PREVIEW_ROWS} images of each class",
    )
    if len(classes) > len(shown):
        st.caption(f"The first {len(shown)} of {len(classes)} classes.")
    if st.button("Distil these", type="primary", icon=":material/water_drop:"):
        st.switch_page("pages/distil.py", query_params={DATASET_KEY: name})
    return name


# ---- a set from elsewhere -------------------------------------------------------------------------------------------


def submit_import() -> None:
    state = st.session_state
    if state.import_file is None:
        state.import_refused = "Choose the file of images first."
        return
    path = keep(state.import_file, state.import_file.name)
    labels = keep(state.import_labels, state.import_labels.name) if state.import_labels else None
    try:
        spec = build_spec(
            "import", path=str(path), labels=str(labels) if labels else None, per_class=state.import_per_class,
            dataset=state.import_dataset, space=state.import_space,
        )  # fmt: skip
        check(spec)
        run = executor().submit("import", spec, title=f"{name_of(Path(Path(state.import_file.name).stem))}, imported")
    except Refused as refused:
        state.import_refused = str(refused)
        for saved in filter(None, (path, labels)):
            shutil.rmtree(saved.parent, ignore_errors=True)
        return
    state.import_run = run


def importing(run_id: str, before: str) -> None:
    """How the import fares; redraws the page when its status has changed."""
    run = store().run(run_id)
    if run is None:
        st.caption(f"There is no import “{run_id[:80]}” here any more.")
        return
    if run.status != before:
        st.rerun()
    if run.status in ("failed", "interrupted", "stopped"):
        st.error(run.message)
    elif run.status == "done":
        st.success(f"{run.title}: ready. {run.message}")
        with st.container(horizontal=True):
            st.page_link(
                "pages/compare.py", label="Compare it", icon=":material/compare:",
                query_params={"dataset": run.dataset, "runs": run.id},
            )  # fmt: skip
            st.page_link(
                "pages/distil.py", label="Look at it", icon=":material/visibility:", query_params={"run": run.id},
            )  # fmt: skip
    else:
        st.progress(min(max(run.progress, 0.0), 1.0), f"{run.title} — {run.message}")


def a_set_from_elsewhere(own: str | None) -> None:
    state = st.session_state
    row = {p.name: p for p in parameters(ImportSpec)}
    left, right = st.columns(2)
    left.file_uploader(
        "Images: .pt or .npz, or a set or run exported from here", type=["pt", "pth", "npz", "safetensors", "zip"],
        key="import_file", max_upload_size=200,
        help="A float tensor N×C×H×W, normalised or in [0, 1], alone or with its labels; or what “Export” made of a "
        "run here or elsewhere, which says by itself what it stands for. Files that hold program code are refused.",
    )  # fmt: skip
    right.file_uploader(
        "Labels: a second .pt file, where the first has none", type=["pt", "pth"], key="import_labels",
        max_upload_size=50, help=row["labels"].help,
    )  # fmt: skip
    options = [*([own] if own else []), *(name for name in DATASETS if availability(name).ready)]
    left.selectbox(
        row["dataset"].label, options, format_func=dataset_title, key="import_dataset", help=row["dataset"].help
    )
    left.selectbox(
        row["space"].label, row["space"].choices, format_func=named(SPACES), key="import_space", help=row["space"].help
    )
    right.number_input(
        f"{row['per_class'].label}, where no file has labels", int(row["per_class"].low or 1),
        int(row["per_class"].high or 1000), None, key="import_per_class", help=row["per_class"].help,
    )  # fmt: skip
    st.button("Import this set", on_click=submit_import, icon=":material/upload:")
    refused = state.pop("import_refused", None)
    if refused:
        st.error(refused)
    run_id = state.get("import_run") or address.query().get("import")
    if run_id:
        st.query_params["import"] = run_id
        run = store().run(run_id)
        going = run is not None and run.status in ("queued", "running", "paused")
        st.fragment(importing, run_every=0.5 if going else None)(run_id, run.status if run else "")


# ---- the page -------------------------------------------------------------------------------------------------------

st.title("Your images")
st.write("Distil images of your own, or bring a distilled set made with other code and test it here.")
if roles.presenter():
    st.subheader("Images by class")
    left, right = st.columns(2, gap="large")
    with left:
        source = choose()
    with right:
        mine = show(source) if source else None
        if not source:
            st.query_params.pop("dataset", None)
            st.info("Here you will see your images, a column per class, before anything is distilled from them.")
    st.subheader("A distilled set or run from elsewhere")
    a_set_from_elsewhere(mine)
else:
    st.info(roles.only("bring images and sets"))
