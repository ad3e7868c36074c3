"""What is wrong with a document, said with its line, its field and a remedy."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Final, get_args, get_origin

from pydantic import BaseModel, ValidationError

from guard.core.canonical import escape
from guard.core.errors import GuardError, printable
from guard.policy.reading import Text

_WORDS: Final = {
    "missing": "is missing",
    "extra_forbidden": "is no field of the language",
    "string_pattern_mismatch": "has a form that is not allowed",
}


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, as a remedy; else all of them."""
    names = sorted(known)
    close = get_close_matches(word, names)
    return (
        f"did you mean `{printable(close[0])}`?"
        if close
        else f"known here: {printable(', '.join(names)) or 'none'}"
    )


def invalid(text: Text, pointer: str, what: str, remedy: str = "") -> GuardError:
    """An error about the value at a pointer: the file, the line, the field."""
    field = printable(pointer.lstrip("/").replace("/", ".")) or "the document"
    return GuardError(f"{field}: {what}", where=text.where(pointer), remedy=remedy)


def explain_invalid(error: ValidationError, text: Text, model: type[BaseModel]) -> GuardError:
    """The first of the errors that pydantic found: unknown fields before others, in the order of the lines.

    Args:
        error: what pydantic raised.
        text: what was read, with its lines.
        model: the model that it was read as, for the names of its fields.
    """
    faults = [(_pointer(fault["loc"], text), fault) for fault in error.errors()]
    lines = {pointer: int(text.where(pointer).rpartition(":")[2]) for pointer, _ in faults}
    pointer, fault = min(
        faults, key=lambda found: (found[1]["type"] != "extra_forbidden", lines[found[0]], found[0])
    )
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    kind, name = fault["type"], str(fault["loc"][-1]) if fault["loc"] else ""
    message = fault["msg"].removeprefix("Value error, ")
    what = _WORDS.get(kind) or message[:1].lower() + message[1:]
    remedy = "see docs/policy.md"
    if kind == "extra_forbidden":
        remedy = nearest(name, _fields(model, fault["loc"][:-1]))
    elif kind == "missing":
        remedy = f"add `{name}`"
    elif kind == "string_pattern_mismatch":
        remedy = f"it must match {fault['ctx']['pattern']}"
    return invalid(text, pointer, f"{what}{more}", remedy)


def _pointer(loc: tuple[int | str, ...], text: Text) -> str:
    """The pointer of a pydantic location, without the steps that name `[key]` or a branch of a union."""
    pointer = ""
    for index, step in enumerate(loc):
        longer = f"{pointer}/{escape(str(step))}"
        if longer in text.lines or (index == len(loc) - 1 and step != "[key]" and not _is_branch(step)):
            pointer = longer
    return pointer


def _is_branch(step: int | str) -> bool:
    return isinstance(step, str) and (step in ("bool", "str", "dict[str,any]") or step.endswith("]"))


def _fields(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    """The names of the fields at a location, found by walking the annotations."""
    here: Any = model
    for step in loc:
        fields = _by_name(here)
        if fields:
            here = _bare(fields.get(str(step)))
        elif get_origin(here) in (list, dict):
            here = _bare(get_args(here)[-1])
    return list(_by_name(here))


def _by_name(annotation: Any) -> dict[str, Any]:
    """The fields of a model, {} for anything else."""
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return {}
    return {field.alias or name: field.annotation for name, field in annotation.model_fields.items()}


def _bare(annotation: Any) -> Any:
    """An annotation without `Annotated` and without its None."""
    while get_origin(annotation) is Annotated or get_origin(annotation) is UnionType:
        annotation = get_args(annotation)[0]
    return annotation
