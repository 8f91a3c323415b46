"""Tables of parameters: one row feeds the form, the command line, the link and the validation (torch-free)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field


def field(default: Any, label: str, key: str, help: str, advanced: bool = False, **limits: Any) -> Any:
    """A pydantic field that also knows its label, short URL key and where the form shows it."""
    extra: dict[str, Any] = {"label": label, "key": key, "advanced": advanced}
    return Field(default, description=help, json_schema_extra=extra, **limits)


class Frozen(BaseModel):
    """A table of parameters: never changed once made, with no field that is not its own and no infinite number."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Parameter:
    """One row of the table: what a widget, a flag, a URL key and an error sentence are made from."""

    name: str
    label: str
    key: str
    help: str
    kind: Literal["int", "float", "bool", "choice", "text"]
    default: Any
    low: float | None
    high: float | None
    longest: int | None
    choices: tuple[str, ...]
    optional: bool
    advanced: bool


KINDS: dict[Any, str] = {int: "int", float: "float", bool: "bool"}


def parameters(model: type[BaseModel]) -> list[Parameter]:
    """The rows of ``model``'s table, in the order of its fields; the nested method parameters are not among them."""
    rows = []
    for name, info in model.model_fields.items():
        if not isinstance(info.json_schema_extra, dict):
            continue
        extra: dict[str, Any] = info.json_schema_extra
        annotation, optional = info.annotation, False
        members = [a for a in get_args(annotation) if a is not type(None)]
        if type(None) in get_args(annotation):
            annotation, optional = members[0], True
        choices = tuple(str(c) for c in get_args(annotation)) if get_origin(annotation) is Literal else ()
        kind: Any = "choice" if choices else KINDS.get(annotation, "text")
        low = next((m.ge for m in info.metadata if hasattr(m, "ge")), None)
        high = next((m.le for m in info.metadata if hasattr(m, "le")), None)
        longest = next((m.max_length for m in info.metadata if hasattr(m, "max_length")), None)
        rows.append(
            Parameter(
                name,
                extra["label"],
                extra["key"],
                info.description or "",
                kind,
                info.default,
                low,
                high,
                longest,
                choices,
                optional,
                extra["advanced"],
            )
        )
    return rows


def allowed(row: Parameter) -> str:
    """What values a parameter takes, in words."""
    if row.kind == "choice":
        return "one of " + ", ".join(row.choices)
    if row.kind == "bool":
        return "true or false"
    if row.kind in ("int", "float"):
        word = "a whole number" if row.kind == "int" else "a number"
        if row.low is not None and row.high is not None:
            return f"{word} from {row.low:g} to {row.high:.10g}"
        return word
    return f"a text of 1 to {row.longest} characters" if row.longest else "a non-empty text"
