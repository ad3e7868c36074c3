"""What the fields of `guard.yaml` may hold: each type with its law, and the words for what breaks it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from guard.config.launch import KEY_VARIABLE
from guard.core.errors import printable
from guard.lineage.postgres.address import SCHEMES, holds_secret

NEXT: Final = "\n  next: "
SERVER_NAME: Final = r"^(?=.{1,32}$)[a-z0-9](?:_?[a-z0-9-])*$"
NO_OTHERS: Final[dict[str, Any]] = {"additionalProperties": False}
ANY_NAME: Final = r"[^\s*?]{1,128}"
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_VISIBLE: Final = re.compile(r"[!-~](?:[ -~]{0,8190}[!-~])?")
_URL: Final = re.compile(r"https?://(?P<authority>[^/?#]+)(?:[/?][!\"$-~]{0,8192})?")
# as browsers send it, small and without the default port (RFC 6454 section 6.2): another is never met
_ORIGIN: Final = re.compile(r"(?!http:.*:80$|https:.*:443$)[a-z][a-z0-9+.-]*://(?P<authority>[^/?#A-Z]+)")
_AUTHORITY: Final = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]{2,45})\]|(?P<host>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?))"
    r"(?::(?P<port>0|[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
)
_OWN_HEADER: Final = re.compile(
    r"host|content-(?:length|type|encoding)|accept(?:-encoding)?|transfer-encoding|connection|te|trailer"
    r"|upgrade|keep-alive|last-event-id|mcp-.*",
    re.ASCII | re.IGNORECASE,
)
_METHOD: Final = re.compile(r"[!-~]{1,128}")
_OWN_METHOD: Final = re.compile(
    r"initialize|ping|server/discover|tools/(?:list|call)|prompts/(?:list|get)|completion/complete"
    r"|resources/(?:list|read|subscribe|unsubscribe|templates/list)|logging/setLevel|subscriptions/listen"
    r"|sampling/createMessage|elicitation/create|roots/list|notifications/.*|rpc\..*"
)
"""Methods that Guard knows or no client requests; `rpc.` is JSON-RPC's own (version 2.0, section 4)."""
_META_KEY: Final = re.compile(
    r"(?:[A-Za-z](?:[A-Za-z0-9.-]{0,126}[A-Za-z0-9])?/)?[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?"
)
_OWN_META: Final = re.compile(
    r"(?:dev\.guard-mcp|io\.modelcontextprotocol)/.*|progressToken|traceparent|tracestate|baggage"
)
"""Keys of `_meta` that Guard reads or sets itself."""
BY_COMMAND: Final = ("env", "pass_env", "cwd")
BY_URL: Final = ("headers", "ca", "plaintext")


def fault(what: str, remedy: str, *field: str | int) -> ValidationError:
    """What is wrong with a value, or with a field of it, said without the value itself."""
    kind = PydanticCustomError("rule", f"{what}{NEXT}{remedy}")
    return ValidationError.from_exception_data("", [InitErrorDetails(type=kind, loc=field, input=None)])


def law(holds: Callable[[Any], bool], what: str, remedy: str) -> AfterValidator:
    """A law that a value keeps; `what` says that it does not."""

    def check(value: Any) -> Any:
        if not holds(value):
            raise fault(what, remedy)
        return value

    return AfterValidator(check)


def _located(value: Any, info: ValidationInfo) -> Path:
    """An absolute path. Where a file is read, its folder is the context, and relative paths start there."""
    if isinstance(value, str) and value and "\0" not in value and info.context is not None:
        try:
            value = info.context["folder"] / Path(value).expanduser()
        except RuntimeError:
            raise fault("begins with the home of nobody on this machine", "write the whole path") from None
    if not isinstance(value, Path) or not value.is_absolute():
        raise fault("is not a path", "write the path of a file or folder")
    return value


def _ip(host: str) -> IPv4Address | IPv6Address | None:
    """None for a name. Raises ValueError: neither."""
    if ":" in host:
        return IPv6Address(host)
    return IPv4Address(host) if host.replace(".", "").isdigit() else None


def authority(text: str) -> tuple[str, int | None] | None:
    """Host, without brackets, and port of `HOST`, `HOST:PORT`, `[v6]` or `[v6]:PORT` (RFC 3986 section 3.2).

    None for anything else: user info, a zone, an IPv4 address that is spelled in another way.
    """
    if (found := _AUTHORITY.fullmatch(text)) is None:
        return None
    host, port = found["v6"] or found["host"], None if found["port"] is None else int(found["port"])
    try:
        bad = bool(found["v6"]) != isinstance(_ip(host), IPv6Address) or ".." in host
    except ValueError:
        return None
    return None if bad else (host, port)


def is_loopback(host: str) -> bool:
    """Is it in 127.0.0.0/8 (RFC 1122 section 3.2.1.3), ::1 (RFC 4291 section 2.5.3) or `localhost`?"""
    address = _ip(host)
    if isinstance(address, IPv4Address):
        return address.is_loopback
    return address == IPv6Address("::1") or host.lower() == "localhost"


def _is_listen(text: str) -> bool:
    return text == "stdio" or ((at := authority(text)) is not None and at[1] is not None)


def _is_host(text: str) -> bool:
    return (at := authority(text)) is not None and at[1] != 0


def _at_host(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda text: (found := pattern.fullmatch(text)) is not None and _is_host(found["authority"])


def _is_store(url: str) -> bool:
    try:
        holds_secret(url)  # it can be taken apart
    except ValueError:
        return False
    scheme, found, rest = url.partition("://")
    return (
        scheme in SCHEMES and bool(found and rest) and _VISIBLE.fullmatch(url) is not None and " " not in url
    )


def _header_value(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"env"} and isinstance(value["env"], str):
        name = _VARIABLE_NAME.validate_python(value["env"])
        if name not in os.environ:
            raise fault(f"the environment has no variable {name}", f"set {name} where Guard is started")
        return os.environ[name]
    if not isinstance(value, str):
        raise fault("is neither a string nor {env: NAME}", "write one of the two")
    return value


FilePath = Annotated[Path, BeforeValidator(_located, json_schema_input_type=str)]
Name = Annotated[
    str,
    Field(min_length=1, max_length=256),
    law(lambda text: text.strip() == printable(text), "cannot be shown as it is", "use visible characters"),
]
Argument = Annotated[str, law(lambda text: "\0" not in text, "holds a NUL", "remove it")]
Command = Annotated[
    list[Argument],
    Field(min_length=1),
    law(lambda words: words[0], "names no program", "name the program first"),
]
Variable = Annotated[
    str,
    law(lambda name: name != KEY_VARIABLE, "is Guard's own key, which is never passed on", "remove it"),
    law(_VARIABLE.fullmatch, "is no name of a variable", "use letters, digits and `_`"),
]
_VARIABLE_NAME: Final = TypeAdapter(Variable)
Seconds = Annotated[float, Field(ge=0.1, le=86400)]
Count = Annotated[int, Field(ge=1, le=65536)]
Listen = Annotated[str, law(_is_listen, "is no address", "write HOST:PORT, [IPV6]:PORT or stdio")]
HostHeader = Annotated[
    str,
    law(_is_host, "is no value of the Host header", "write NAME or NAME:PORT"),
    AfterValidator(str.lower),  # RFC 9110 section 4.2.3: case does not count
]
Origin = Annotated[
    str,
    law(_at_host(_ORIGIN), "is no Origin as browsers send it", "write https://name or https://name:port"),
]
Url = Annotated[
    str,
    law(_at_host(_URL), "is no http or https URL without user info and fragment", "write https://HOST/PATH"),
]
StoreUrl = Annotated[
    str,
    law(_is_store, "is no URL of a PostgreSQL database", "write postgresql://USER@HOST/DATABASE"),
    law(
        lambda url: not holds_secret(url),
        "holds a password",
        "remove it, and give `password_file` or `password_env` (or libpq's own PGPASSFILE)",
    ),
]
HeaderName = Annotated[
    str,
    law(_TOKEN.fullmatch, "is no name of a header", "use letters, digits and `-`"),
    law(lambda name: not _OWN_HEADER.fullmatch(name), "is a header that Guard sets itself", "remove it"),
]
HeaderValue = Annotated[
    str,
    BeforeValidator(_header_value, json_schema_input_type=str | dict[Literal["env"], str]),
    law(_VISIBLE.fullmatch, "is not visible ASCII", "remove line ends, and blanks at both ends"),
]
Headers = Annotated[
    dict[HeaderName, HeaderValue],
    law(lambda them: len({*map(str.lower, them)}) == len(them), "names one twice", "keep one of the two"),
]
MethodName = Annotated[
    str,
    law(_METHOD.fullmatch, "is no name of a method", "use visible ASCII characters, at most 128"),
    law(
        lambda name: not _OWN_METHOD.fullmatch(name),
        "is not for the configuration to let through",
        "remove it",
    ),
]
MetaKey = Annotated[
    str,
    law(_META_KEY.fullmatch, "is no key of `_meta`", "write NAME or PREFIX/NAME"),
    law(lambda key: not _OWN_META.fullmatch(key), "is a key that Guard looks after itself", "remove it"),
]
ServerName = Annotated[str, WithJsonSchema({"type": "string", "pattern": SERVER_NAME})]
