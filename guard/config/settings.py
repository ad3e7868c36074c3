"""The configuration: every field that `guard.yaml` may have, and the one strict reading of it.

There are no others, and an unknown one is an error with its line. docs/configuration.md says what each
is for. The values are frozen; a reload makes new ones.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from guard.config.launch import KEY_VARIABLE, PASSED_ON, read_file
from guard.core.errors import GuardError, printable
from guard.policy.findings import explain_invalid
from guard.policy.language import SCHEMA_URL, RoleName, Strict
from guard.policy.reading import Text, read

_NEXT: Final = "\n  next: "
_SERVER_NAME: Final = r"^(?=.{1,32}$)[a-z0-9](?:_?[a-z0-9-])*$"
_NO_OTHERS: Final[dict[str, Any]] = {"additionalProperties": False}
_ANY_NAME: Final = r"[^\s*?]{1,128}"
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
_BY_COMMAND: Final = ("env", "pass_env", "cwd")
_BY_URL: Final = ("headers", "ca", "plaintext")


def _fault(what: str, remedy: str, *field: str | int) -> ValidationError:
    """What is wrong with a value, or with a field of it, said without the value itself."""
    kind = PydanticCustomError("rule", f"{what}{_NEXT}{remedy}")
    return ValidationError.from_exception_data("", [InitErrorDetails(type=kind, loc=field, input=None)])


def _law(holds: Callable[[Any], bool], what: str, remedy: str) -> AfterValidator:
    """A law that a value keeps; `what` says that it does not."""

    def check(value: Any) -> Any:
        if not holds(value):
            raise _fault(what, remedy)
        return value

    return AfterValidator(check)


def _located(value: Any, info: ValidationInfo) -> Path:
    """An absolute path. Where a file is read, its folder is the context, and relative paths start there."""
    if isinstance(value, str) and value and "\0" not in value and info.context is not None:
        try:
            value = info.context["folder"] / Path(value).expanduser()
        except RuntimeError:
            raise _fault("begins with the home of nobody on this machine", "write the whole path") from None
    if not isinstance(value, Path) or not value.is_absolute():
        raise _fault("is not a path", "write the path of a file or folder")
    return value


def _ip(host: str) -> IPv4Address | IPv6Address | None:
    """None for a name. Raises ValueError: neither."""
    if ":" in host:
        return IPv6Address(host)
    return IPv4Address(host) if host.replace(".", "").isdigit() else None


def _authority(text: str) -> tuple[str, int | None] | None:
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


def _is_loopback(host: str) -> bool:
    """Is it in 127.0.0.0/8 (RFC 1122 section 3.2.1.3), ::1 (RFC 4291 section 2.5.3) or `localhost`?"""
    address = _ip(host)
    if isinstance(address, IPv4Address):
        return address.is_loopback
    return address == IPv6Address("::1") or host.lower() == "localhost"


def _is_listen(text: str) -> bool:
    return text == "stdio" or ((at := _authority(text)) is not None and at[1] is not None)


def _is_host(text: str) -> bool:
    return (at := _authority(text)) is not None and at[1] != 0


def _at_host(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda text: (found := pattern.fullmatch(text)) is not None and _is_host(found["authority"])


def _header_value(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"env"} and isinstance(value["env"], str):
        name = _VARIABLE_NAME.validate_python(value["env"])
        if name not in os.environ:
            raise _fault(f"the environment has no variable {name}", f"set {name} where Guard is started")
        return os.environ[name]
    if not isinstance(value, str):
        raise _fault("is neither a string nor {env: NAME}", "write one of the two")
    return value


def _caller(value: Any) -> Any:
    if isinstance(value, dict):
        return FixedCaller.model_validate(value)
    if value != "api-keys" and not isinstance(value, FixedCaller):
        raise _fault("is neither api-keys nor {role: NAME}", "write one of the two")
    return value


FilePath = Annotated[Path, BeforeValidator(_located, json_schema_input_type=str)]
Name = Annotated[
    str,
    Field(min_length=1, max_length=256),
    _law(lambda text: text.strip() == printable(text), "cannot be shown as it is", "use visible characters"),
]
Argument = Annotated[str, _law(lambda text: "\0" not in text, "holds a NUL", "remove it")]
Command = Annotated[
    list[Argument],
    Field(min_length=1),
    _law(lambda words: words[0], "names no program", "name the program first"),
]
Variable = Annotated[
    str,
    _law(lambda name: name != KEY_VARIABLE, "is Guard's own key, which is never passed on", "remove it"),
    _law(_VARIABLE.fullmatch, "is no name of a variable", "use letters, digits and `_`"),
]
_VARIABLE_NAME: Final = TypeAdapter(Variable)
Seconds = Annotated[float, Field(ge=0.1, le=86400)]
Count = Annotated[int, Field(ge=1, le=65536)]
Listen = Annotated[str, _law(_is_listen, "is no address", "write HOST:PORT, [IPV6]:PORT or stdio")]
HostHeader = Annotated[
    str,
    _law(_is_host, "is no value of the Host header", "write NAME or NAME:PORT"),
    AfterValidator(str.lower),  # RFC 9110 section 4.2.3: case does not count
]
Origin = Annotated[
    str,
    _law(_at_host(_ORIGIN), "is no Origin as browsers send it", "write https://name or https://name:port"),
]
Url = Annotated[
    str,
    _law(_at_host(_URL), "is no http or https URL without user info and fragment", "write https://HOST/PATH"),
]
HeaderName = Annotated[
    str,
    _law(_TOKEN.fullmatch, "is no name of a header", "use letters, digits and `-`"),
    _law(lambda name: not _OWN_HEADER.fullmatch(name), "is a header that Guard sets itself", "remove it"),
]
HeaderValue = Annotated[
    str,
    BeforeValidator(_header_value, json_schema_input_type=str | dict[Literal["env"], str]),
    _law(_VISIBLE.fullmatch, "is not visible ASCII", "remove line ends, and blanks at both ends"),
]
Headers = Annotated[
    dict[HeaderName, HeaderValue],
    _law(lambda them: len({*map(str.lower, them)}) == len(them), "names one twice", "keep one of the two"),
]
ServerName = Annotated[str, WithJsonSchema({"type": "string", "pattern": _SERVER_NAME})]


class Settled(Strict):
    """As Strict; and no value stands in an error."""

    model_config = ConfigDict(hide_input_in_errors=True)


class FixedCaller(Settled):
    """The one who makes every call."""

    role: RoleName
    principal: Name | None = Field(default=None, description="without it, the user who runs Guard")


class Tls(Settled):
    """What Guard shows to clients, two PEM files."""

    certificate: FilePath
    key: FilePath


class Trust(Settled):
    """An issuer whose artifacts clients may present."""

    issuer: Name
    jwks: FilePath


class Limits(Settled):
    """What clients may use of Guard."""

    body_bytes: Annotated[int, Field(ge=1 << 10, le=16 << 20)] = 4 << 20
    header_bytes: Annotated[int, Field(ge=1 << 10, le=1 << 20)] = 32 << 10
    connections: Count = 1024
    in_flight: Count = Field(default=256, description="calls of one principal at once")
    sessions: Count = Field(default=256, description="handshake-era sessions of one principal")
    session_idle_seconds: Seconds = 1800.0
    head_seconds: Seconds = 10.0
    body_seconds: Seconds = 30.0
    keep_alive_seconds: Seconds = 75.0
    refusals_per_minute: Count = Field(default=60, description="unauthenticated attempts from one address")


class ServerSettings(Settled):
    """One tool server: how it is started or reached, and how it is used."""

    command: Command | None = None
    url: Url | None = None
    env: dict[Variable, Argument] = Field(default={}, repr=False, description="further variables")
    pass_env: list[Variable] = Field(default=[], description="variables of Guard's own environment")
    cwd: FilePath | None = None
    headers: Headers = Field(default={}, repr=False)
    ca: FilePath | None = None
    plaintext: bool = Field(default=False, description="whether http may go to another host")
    audience: Name | None = Field(default=None, description="`aud` of artifacts; else the server's name")
    shared: bool = Field(default=False, description="one process or session for a tenant's principals")
    timeout: Seconds = 300.0
    idle_seconds: Seconds = 600.0
    processes: Count = Field(default=64, description="principals that may have one at the same time")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise _fault("has not one of `command` and `url`", "give one of the two")
        other, foreign = ("command", _BY_COMMAND) if self.command is None else ("url", _BY_URL)
        for name in foreign:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise _fault(f"is only for a server with `{other}`", "remove it", name)
        if self.url is not None:
            self._check_url(self.url)
        return self

    def _check_url(self, url: str) -> None:
        scheme, _, rest = url.partition("://")
        for name in ("plaintext",) if scheme == "https" else ("ca",):
            if getattr(self, name):
                raise _fault(f"has no effect with {scheme}", "remove it", name)
        at = _authority(re.split("[/?]", rest, maxsplit=1)[0])
        if scheme == "http" and not (self.plaintext or (at and _is_loopback(at[0]))):
            raise _fault("goes to another host in the clear", "write https://", "url")

    def environment(self) -> dict[str, str]:
        """The whole environment of its process: PASSED_ON, then `pass_env`, then `env`."""
        named = {*PASSED_ON, *self.pass_env} & os.environ.keys()
        return {name: os.environ[name] for name in sorted(named)} | self.env


class Settings(Settled):
    """What `guard serve` is told."""

    guard: Annotated[
        int,
        _law(lambda one: one == 1, "this Guard reads version 1 of the configuration", "write `guard: 1`"),
        Field(json_schema_extra={"const": 1}, description="version of this language"),
    ]
    home: FilePath | None = None
    policy: FilePath
    listen: Listen = "127.0.0.1:8640"
    identity: Annotated[
        FixedCaller | str,  # the str is "api-keys": `_caller` lets no other through
        BeforeValidator(_caller, json_schema_input_type=FixedCaller | Literal["api-keys"]),
    ] = "api-keys"
    conversation: Name | None = None
    durability: Literal["queued", "strict"] = "queued"
    hosts: list[HostHeader] = Field(default=[])
    origins: list[Origin] = Field(default=[])
    tls: Tls | None = None
    limits: Limits = Limits()
    servers: dict[ServerName, ServerSettings] = Field(min_length=1, json_schema_extra=_NO_OTHERS)
    trust: list[Trust] = Field(default=[])

    @model_validator(mode="after")
    def _agrees(self, info: ValidationInfo) -> Self:
        if self.stdio:
            for name in ("tls", "hosts", "origins"):
                if getattr(self, name):
                    raise _fault("has no effect on stdio", "remove it, or listen on HOST:PORT", name)
        elif not self.loopback:
            if self.identity != "api-keys":
                remedy = "write `identity: api-keys`, or listen on 127.0.0.1"
                raise _fault("would let in whoever reaches `listen`", remedy, "identity")
            if not self.hosts:
                remedy = "name in `hosts` what clients call Guard"
                raise _fault("goes beyond this machine, and `hosts` names nobody", remedy, "listen")
        self._check_servers(cut=len(self.servers) > 1 or info.context is not None)
        return self

    def _check_servers(self, *, cut: bool) -> None:
        """`server__tool` is cut at its first `__`; a single server made in code has a name that is not."""
        owners: dict[str, str] = {}
        for name, server in self.servers.items():
            if not re.fullmatch(_SERVER_NAME if cut else _ANY_NAME, name) or name != printable(name):
                remedy = "use at most 32 of a-z, 0-9, `-` and single `_`; not `_` first or last"
                raise _fault("is no name of a server", remedy, "servers", name)
            owner = owners.setdefault(self.audience(name), name)
            if owner != name:
                at = ("servers", name, *(("audience",) if server.audience is not None else ()))
                raise _fault(f"has the same audience as {printable(owner)}", "give each its own", *at)

    def audience(self, name: str) -> str:
        """`aud` of the artifacts for a server. Raises KeyError: no server has this name."""
        return self.servers[name].audience or name

    @property
    def stdio(self) -> bool:
        """Whether the client is at the pipes, and nothing is bound."""
        return self.listen == "stdio"

    @property
    def host(self) -> str:
        """What to bind, an IPv6 address without brackets; "" on stdio."""
        return (_authority(self.listen) or ("", 0))[0] if not self.stdio else ""

    @property
    def port(self) -> int:
        """What to bind; 0 for any free one, and on stdio."""
        return (_authority(self.listen) or ("", 0))[1] or 0

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches Guard; also on stdio."""
        return self.stdio or _is_loopback(self.host)


def load_settings(path: Path) -> Settings:
    """Read a configuration, and the variables that it names.

    Raises:
        GuardError: the first thing that is wrong, with its line and what to do; never a value.
    """
    data = read_file(path)
    try:
        text = read(data, name=str(path))
    except GuardError as error:
        # the reader shows a scalar that is spelled badly, and here that may be a secret
        what = re.sub(r"^`.*` means", "a value without quotes means", error.what)
        raise GuardError(what, where=error.where, remedy=error.remedy) from None
    try:
        return Settings.model_validate(text.value, context={"folder": path.absolute().parent})
    except ValidationError as error:
        raise _explained(error, text) from None


def settings_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a configuration, for editors and other tools."""
    return {"$schema": SCHEMA_URL, **Settings.model_json_schema()}


def _explained(error: ValidationError, text: Text) -> GuardError:
    """As `explain_invalid`, with the remedies of this language."""
    found = explain_invalid(error, text, Settings)
    what, remedy = found.what, found.remedy.replace("docs/policy.md", "docs/configuration.md")
    if _NEXT in what:
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        what, _, remedy = what.removesuffix(more).partition(_NEXT)
        what += more
    what = re.sub(r"input should be a valid dictionary( or instance of \w+)?", "is not an object", what)
    return GuardError(what, where=found.where, remedy=remedy)
