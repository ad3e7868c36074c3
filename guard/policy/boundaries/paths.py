r"""`pathWithin`: a path that lies in one of some folders, whoever reads it.

Only the text is judged; no disk is asked. So a symbolic link inside a root may lead out of it, and
`..` is never resolved: what `a/link/..` means depends on the disk. Grammar: POSIX.1-2017, 4.13, and
Microsoft's "Naming Files, Paths, and Namespaces". What POSIX and Windows, a shell or a decoder could
read as something else is not understood.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from guard.core.errors import printable
from guard.policy.boundaries.verdict import Judge, Keyword, Misstated, NotUnderstood, text

LONGEST: Final = 4096  # characters; PATH_MAX
_STEERING: Final = frozenset('\\%$`*?<>|"{}')
_RESEMBLING: Final = _STEERING | frozenset("/.:~")
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_DEVICE: Final = re.compile(r"(?:con|prn|aux|nul|conin|conout|clock|com[0-9]|lpt[0-9])(?:[. ]|$)")
_SHORT: Final = re.compile(r"~[0-9]")
_CUT_OFF: Final = ". "  # by Windows, at the end of a name
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
"""What draws nothing (Default_Ignorable_Code_Point) and yet counts as printable."""

_FOLDER: Final = {"type": "string", "minLength": 1, "maxLength": LONGEST}
SHAPE: Final[dict[str, Any]] = {
    "description": "the value is a path inside one of these folders",
    "type": "object",
    "additionalProperties": False,
    "required": ["roots"],
    "properties": {
        "roots": {
            "description": "absolute folders; a root itself is inside",
            "type": "array",
            "items": _FOLDER,
            "minItems": 1,
            "maxItems": 64,
        },
        "base": {**_FOLDER, "description": "absolute folder that relative paths start from"},
        "style": {"description": "how paths are written, `posix` by default", "enum": ["posix", "windows"]},
    },
}

Segments = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Path:
    """A path that can be read in one way only.

    Attributes:
        anchor: "/", or a drive such as "C:"; "" for a relative path.
        segments: the names below it, without `.` and empty ones.
    """

    anchor: str
    segments: Segments

    def below(self, root: Path) -> bool:
        """Whether it is the root or lies below it, letter by letter."""
        return self.anchor == root.anchor and self.segments[: len(root.segments)] == root.segments

    def folded(self) -> Path:
        """The same for a disk that does not tell capitals or compatibility forms apart."""
        return Path(fold(self.anchor), tuple(map(fold, self.segments)))


def fold(name: str) -> str:
    """A name without what some disks and servers ignore (Unicode NFKC_Casefold, near enough)."""
    once = unicodedata.normalize("NFKC", name).casefold()
    return unicodedata.normalize("NFKC", once).rstrip(_CUT_OFF)


def posix(value: str) -> Path:
    """Read a POSIX path. Raises NotUnderstood."""
    if value.startswith("//"):
        raise NotUnderstood  # POSIX leaves its meaning open; on Windows it is a server
    return Path("/" if value.startswith("/") else "", _segments(value.split("/"), _posix_name))


def windows(value: str) -> Path:
    """Read a Windows path with a drive, or a relative one; small letters only. Raises NotUnderstood."""
    plain = value.replace("\\", "/")
    anchor = plain[:2].upper() if _DRIVE.match(plain) else ""
    rest = plain[len(anchor) :]
    if bool(anchor) != rest.startswith("/") or rest.startswith("//"):
        raise NotUnderstood  # C:name, \name, \\server and \\?\ depend on more than the text
    return Path(anchor, tuple(map(_lower, _segments(rest.split("/"), _windows_name))))


def _segments(parts: list[str], check: Callable[[str], None]) -> Segments:
    named = tuple(part for part in parts if part not in ("", "."))
    for part in named:
        check(part)
    return named


def _posix_name(name: str) -> None:
    _name(name)
    if _DRIVE.match(name):
        raise NotUnderstood


def _windows_name(name: str) -> None:
    _name(name)
    if ":" in name or name.endswith(".") or _SHORT.search(name) or _DEVICE.match(fold(name)):
        raise NotUnderstood


def _name(name: str) -> None:
    """Refuse a segment that is more than a name: dots, escapes, patterns, what does not show."""
    if not name.isprintable() or _UNSEEN.search(name) or not _STEERING.isdisjoint(name):
        raise NotUnderstood
    if name.strip() != name or not name.strip(_CUT_OFF):
        raise NotUnderstood
    if any(map(_resembles, name)):
        raise NotUnderstood


def _resembles(char: str) -> bool:
    """Whether the compatibility form of a character that is not ASCII holds one that steers."""
    return not char.isascii() and not _RESEMBLING.isdisjoint(unicodedata.normalize("NFKC", char))


def _lower(name: str) -> str:
    return "".join(char.lower() if char.isascii() else char for char in name)


_READERS: Final[dict[str, Callable[[str], Path]]] = {"posix": posix, "windows": windows}


def judge(stated: Any) -> Judge:
    """A judge of paths. Raises Misstated."""
    style = stated.get("style", "posix")
    read = _READERS[style]
    roots = [_folder(root, style, f"/roots/{index}") for index, root in enumerate(stated["roots"])]
    loose = [root.folded() for root in roots]
    base = _folder(stated["base"], style, "/base") if "base" in stated else None

    def within(value: Any) -> bool:
        path = read(text(value, LONGEST))
        if not path.anchor:
            path = _from(base, path)
        plainly = any(path.below(root) for root in roots)
        if any(path.folded().below(root) for root in loose) != plainly:
            raise NotUnderstood  # inside on some disks, outside on others
        return plainly

    return within


def _from(base: Path | None, path: Path) -> Path:
    """A relative path, from the base. An option, a home folder and a URL only look like one."""
    if base is None or (path.segments and (path.segments[0][0] in "-~" or ":" in path.segments[0])):
        raise NotUnderstood
    return Path(base.anchor, base.segments + path.segments)


def _folder(root: str, style: str, at: str) -> Path:
    remedy = "write an absolute path such as `/srv/data`, or with `style: windows` such as `C:/data`"
    try:
        path = _READERS[style](root)
    except NotUnderstood:
        raise Misstated(f"`{printable(root)}` is not a plain {style} path", at, remedy) from None
    if not path.anchor:
        raise Misstated(f"`{printable(root)}` is not absolute", at, remedy)
    return path


KEYWORD: Final = Keyword("pathWithin", SHAPE, judge)
