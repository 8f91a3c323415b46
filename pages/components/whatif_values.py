"""What each image of a set is worth: the section Values of “Image by image” (torch-free)."""

from __future__ import annotations

import html

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from engine.runs.store import Store
from pages.components import reports, roles
from pages.components.asking import Answered
from pages.components.choice import one_of
from pages.components.cues import ink
from pages.components.pieces import download, figure, is_dark
from pages.components.whatif_state import ORDERS, knobs, known, put, question

# From blue (harmful) over near-white to burnt orange (valuable), after ColorBrewer's PuOr and RdBu: told apart by
# colour-blind eyes, and alike in lightness on both sides, so that strength can be read in grey.
DIVERGING = [
    (0.0, "#053061"), (0.17, "#2166ac"), (0.33, "#92c5de"), (0.5, "#f7f7f7"), (0.67, "#fdb863"), (0.83, "#c55a11"),
    (1.0, "#6e2f05"),
]  # fmt: skip
CELLS_WITH_NUMBERS = 150
PRESS = (
    "Students are trained on the set and on parts of it: {students} of them, each in about a second for ten small "
    "images and in some seconds for a hundred."
)


def show_values(where: Store, run: str) -> None:
    now = st.session_state.pieces
    knobs("values", ["kind", "seeds", "images", "split"])
    with st.expander("More settings"):
        knobs("values", ["orders", "tolerance", "seed"])
    spec = question("valuation", where, source=run, **now["values"]["values"])
    if spec is None:
        return
    if not known("valuation", spec):
        st.info("These values have not been worked out yet. " + _cost(where, run, now["values"]["values"]))
        if not st.button(
            "Work out the values", type="primary", icon=":material/play_arrow:", **roles.locked("measure")
        ):
            return
    found = put("valuation", spec, "pieces_valuation")
    if found is not None:
        draw(found)


def _cost(where: Store, run: str, values: dict[str, object]) -> str:
    layout = where.events(run, kinds=("layout",), limit=1)
    if not layout or values["kind"] != "leave-one-out":
        return "Students are trained on the set and on many parts of it, which takes minutes."
    most = layout[0].data["columns"] * layout[0].data["rows"]
    return PRESS.format(students=f"{(most + 1) * int(str(values['seeds'])):,}")


def draw(found: Answered) -> None:
    """The answer: values under the images, class by class, and as a ranking."""
    now, facts = st.session_state.pieces, found.answer.facts
    table, classes = found.table("values"), found.table("classes")
    now["order"] = one_of("Order of the images", ORDERS, "pieces_order", now["order"])
    order = list(table["image"])
    if now["order"] != "set":
        order = list(table.sort_values("rank", ascending=now["order"] == "worst")["image"])
    path = found.image("set")
    urls = reports.cut(path, len(table)) if path else []
    st.html(tiles(table.set_index("image").loc[order], urls))
    st.caption(
        "Percentage points of accuracy, ± one standard error, under each image. Blue: students are better without it. "
        "Orange: they need it."
    )
    worst = int(facts["worst"])
    st.button(
        f"Edit image {worst}, the least valuable", icon=":material/edit:", key="pieces_edit_worst",
        on_click=_edit, args=(worst,),
    )  # fmt: skip
    st.subheader("Class by class", anchor=False)
    figure(
        heat(classes, order, table, is_dark()), "pieces_heat",
        "What each image is worth for the accuracy on each class, in percentage points; the data can be downloaded",
        classes, "values-by-class",
    )  # fmt: skip
    st.subheader("Ranking", anchor=False)
    ranked = table.sort_values("rank")
    st.dataframe(
        pd.DataFrame(
            {
                "Rank": ranked["rank"],
                "Picture": [urls[i] if i < len(urls) else None for i in ranked["image"]],
                "Image": ranked["image"],
                "Class": ranked["class"],
                "Value (points)": [f"{v:+.2f}" for v in ranked["value"]],
                "Standard error": ["–" if pd.isna(e) else f"{e:.2f}" for e in ranked["error"]],
                "On its own class": [f"{v:+.1f}" for v in ranked["own_class"]],
            }
        ),
        hide_index=True, row_height=44, height=min(44 * len(ranked) + 38, 480),
        column_config={"Picture": st.column_config.ImageColumn(width="small")},
    )  # fmt: skip
    st.caption("Rank 1 is the image that students miss least.")
    download(table, "values", "Download the values (CSV)")


def _edit(image: int) -> None:
    now = st.session_state.pieces
    now |= {"section": "edit", "image": image}
    for key in ("pieces_section", "pieces_image"):
        st.session_state.pop(key, None)


def shade(value: float, most: float) -> tuple[str, str]:
    """Background and text colour of a value between -``most`` and ``most``."""
    share = 0.5 if not most else 0.5 + value / most / 2
    places, colours = zip(*DIVERGING, strict=True)
    back, light = "#", 0.0
    for at, weight in zip((1, 3, 5), (0.2126, 0.7152, 0.0722), strict=True):
        part = round(float(np.interp(share, places, [int(colour[at : at + 2], 16) for colour in colours])))
        back += f"{part:02x}"
        light += weight * (part / 255) ** 2.2  # relative luminance; of two inks the one that stands out more
    return back, "#000000" if light > 0.18 else "#ffffff"


def tiles(table: pd.DataFrame, urls: list[str]) -> str:
    """HTML of the images, each with its value on its colour. ``table``: by image, in the order shown."""
    most = float(table["value"].abs().max())
    parts = []
    for image, row in table.iterrows():
        at, name = int(str(image)), html.escape(str(row["class"]))
        back, text = shade(row["value"], most)
        error = "" if pd.isna(row["error"]) else f" ± {row['error']:.1f}"
        about = f"Image {at}, class {name}: worth {row['value']:+.1f}{error} points, rank {row['rank']}"
        picture = f'<img src="{urls[at]}" alt="{about}">' if at < len(urls) else f"<span>{at}</span>"
        parts.append(
            f'<figure title="{about}">{picture}<figcaption><b style="background:{back};color:{text}">'
            f"{row['value']:+.1f}<small>{error}</small></b>{at} · {name}</figcaption></figure>"
        )
    ramp = ",".join(f"{colour} {100 * at:.0f}%" for at, colour in DIVERGING)
    return f"""<style>
.worth {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(100px, 1fr)); gap: 10px 8px;
  max-height: 560px; overflow: auto; }}
.worth figure {{ margin: 0; min-width: 0; max-width: 128px; }}
.worth img {{ display: block; width: 100%; image-rendering: pixelated; }}
.worth b {{ display: block; text-align: center; padding: 2px 0; font-size: 15px; font-variant-numeric: tabular-nums;
  white-space: nowrap; }}
.worth small {{ font-weight: 400; font-size: 12px; }}
.worth figcaption {{ font-size: 13px; line-height: 1.35; text-align: center; overflow-wrap: anywhere; }}
.ramp {{ display: flex; flex-wrap: wrap; align-items: center; gap: 8px; padding-top: 10px; font-size: 14px; }}
.ramp i {{ height: 14px; width: min(220px, 40%); border-radius: 2px; background: linear-gradient(90deg, {ramp}); }}
</style><div class="worth" tabindex="0" role="group" aria-label="The images and what they are worth">{"".join(parts)}
</div><div class="ramp"><span>harmful, −{most:.1f}</span><i></i><span>{most:+.1f}, valuable</span></div>"""


def heat(classes: pd.DataFrame, order: list[int], table: pd.DataFrame, dark: bool) -> go.Figure:
    """Images down, classes across: by how many percentage points the accuracy on the class is higher with the image."""
    text, _ = ink(dark)
    wide = classes.pivot(index="image", columns="class", values="value").loc[order]
    wide = wide[list(dict.fromkeys(classes["class"]))]
    of = table.set_index("image")["class"]
    most = float(wide.abs().to_numpy().max()) or 1.0
    numbers = wide.size <= CELLS_WITH_NUMBERS
    made = go.Figure(
        go.Heatmap(
            z=wide.to_numpy(),
            x=[html.escape(str(c)) for c in wide.columns],
            y=[f"{i} · {html.escape(str(of[i]))}" for i in wide.index],
            zmin=-most,
            zmax=most,
            colorscale=DIVERGING,
            xgap=1,
            ygap=1,
            texttemplate="%{z:+.0f}" if numbers else None,
            hovertemplate="image %{y}, on class %{x}: %{z:+.1f} points<extra></extra>",
            colorbar={"thickness": 10, "tickfont": {"color": text, "size": 12}, "ticksuffix": " "},
        )
    )
    axis = {"type": "category", "showgrid": False, "zeroline": False, "tickfont": {"color": text, "size": 13}}
    made.update_layout(
        height=min(110 + 28 * len(wide), 1400) if len(wide) <= 40 else 110 + 14 * len(wide),
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        font={"size": 13, "color": text},
        xaxis={**axis, "title": {"text": "Accuracy on the class", "font": {"color": text}}},
        yaxis={**axis, "title": {"text": "Image · its label", "font": {"color": text}},
               "autorange": "reversed"},
    )  # fmt: skip
    return made
