"""The configuration: every field that `guard.yaml` may have, and the one strict reading of it.

There are no others, and an unknown one is an error with its line. docs/configuration.md says what each
is for. The values are frozen; a reload makes new ones.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from guard.config.fields import (
    ANY_NAME,
    BY_COMMAND,
    BY_URL,
    NEXT,
    NO_OTHERS,
    SERVER_NAME,
    Argument,
    Command,
    Count,
    FilePath,
    Headers,
    HostHeader,
    Listen,
    MetaKey,
    MethodName,
    Name,
    Origin,
    Seconds,
    ServerName,
    StoreUrl,
    Url,
    Variable,
    authority,
    fault,
    is_loopback,
    law,
)
from guard.config.launch import PASSED_ON
from guard.config.policies import Policies, read_file
from guard.core.errors import GuardError, printable
from guard.lineage.postgres.address import Address
from guard.policy.findings import explain_invalid
from guard.policy.grammar import SCHEMA_URL, RoleName, Strict, one_or_more
from guard.policy.reading import Text, read


class Settled(Strict):
    """As Strict; and no value stands in an error."""

    model_config = ConfigDict(hide_input_in_errors=True)


class FixedCaller(Settled):
    """The one who makes every call."""

    role: RoleName
    principal: Name | None = Field(default=None, description="without it, the user who runs Guard")


def _caller(value: Any) -> Any:
    if isinstance(value, dict):
        return FixedCaller.model_validate(value)
    if value != "api-keys" and not isinstance(value, FixedCaller):
        raise fault("is neither api-keys nor {role: NAME}", "write one of the two")
    return value


class SharedStore(Settled):
    """A PostgreSQL database that several Guards share."""

    url: StoreUrl = Field(repr=False)
    password_file: FilePath | None = Field(default=None, description="its first line is the password")
    password_env: Variable | None = Field(default=None, description="the variable that holds the password")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.password_file is not None and self.password_env is not None:
            raise fault("has no effect beside `password_env`", "keep one of the two", "password_file")
        return self


def _store(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value


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
    processes: Count = Field(default=96, description="of them at the same time")
    methods: list[MethodName] = Field(default=[], description="further methods that are let through to it")
    meta: list[MetaKey] = Field(default=[], description="further keys of `_meta` that are passed on to it")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if (self.command is None) == (self.url is None):
            raise fault("has not one of `command` and `url`", "give one of the two")
        other, foreign = ("command", BY_COMMAND) if self.command is None else ("url", BY_URL)
        for name in foreign:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise fault(f"is only for a server with `{other}`", "remove it", name)
        if self.url is not None:
            self._check_url(self.url)
        return self

    def _check_url(self, url: str) -> None:
        scheme, _, rest = url.partition("://")
        for name in ("plaintext",) if scheme == "https" else ("ca",):
            if getattr(self, name):
                raise fault(f"has no effect with {scheme}", "remove it", name)
        at = authority(re.split("[/?]", rest, maxsplit=1)[0])
        if scheme == "http" and not (self.plaintext or (at and is_loopback(at[0]))):
            raise fault("goes to another host in the clear", "write https://", "url")

    def environment(self) -> dict[str, str]:
        """The whole environment of its process: PASSED_ON, then `pass_env`, then `env`."""
        named = {*PASSED_ON, *self.pass_env} & os.environ.keys()
        return {name: os.environ[name] for name in sorted(named)} | self.env


class Approvals(Settled):
    """How people are asked."""

    park: Annotated[float, Field(ge=0, le=3600, description="seconds that a call waits for a reviewer")] = (
        60.0
    )


class Settings(Settled):
    """What `guard serve` is told."""

    guard: Annotated[
        int,
        law(lambda one: one == 1, "this Guard reads version 1 of the configuration", "write `guard: 1`"),
        Field(json_schema_extra={"const": 1}, description="version of this language"),
    ]
    home: FilePath | None = None
    store: Annotated[
        SharedStore | None, BeforeValidator(_store, json_schema_input_type=str | SharedStore | None)
    ] = None
    policy: Annotated[
        list[FilePath],
        Field(min_length=1, description="the policies that decide, the highest first"),
        BeforeValidator(one_or_more, json_schema_input_type=str | list[str]),
    ]
    policy_keys: FilePath | None = Field(
        default=None, description="a JWK set: the keys whose signatures of policies count"
    )
    require_signed: bool = Field(default=False, description="nothing unsigned decides")
    watch: bool = Field(default=True, description="whether changed files are read again without being told")
    intent: Annotated[
        list[Name],
        BeforeValidator(one_or_more, json_schema_input_type=str | list[str]),
    ] = Field(default=[], description="what every call declares")
    approvals: Approvals = Approvals()
    listen: Listen = "127.0.0.1:8640"
    identity: Annotated[
        FixedCaller | str,  # the str is "api-keys": `caller` lets no other through
        BeforeValidator(_caller, json_schema_input_type=FixedCaller | Literal["api-keys"]),
    ] = "api-keys"
    conversation: Name | None = None
    durability: Literal["queued", "strict", "normal"] = "queued"
    hosts: list[HostHeader] = Field(default=[])
    origins: list[Origin] = Field(default=[])
    tls: Tls | None = None
    limits: Limits = Limits()
    servers: dict[ServerName, ServerSettings] = Field(min_length=1, json_schema_extra=NO_OTHERS)
    trust: list[Trust] = Field(default=[])

    @property
    def policies(self) -> Policies:
        """Which policies decide."""
        return Policies(tuple(self.policy), self.policy_keys, self.require_signed)

    @model_validator(mode="after")
    def _agrees(self, info: ValidationInfo) -> Self:
        if self.stdio:
            for name in ("tls", "hosts", "origins"):
                if getattr(self, name):
                    raise fault("has no effect on stdio", "remove it, or listen on HOST:PORT", name)
        elif not self.loopback:
            if self.identity != "api-keys":
                remedy = "write `identity: api-keys`, or listen on 127.0.0.1"
                raise fault("would let in whoever reaches `listen`", remedy, "identity")
            if not self.hosts:
                remedy = "name in `hosts` what clients call Guard"
                raise fault("goes beyond this machine, and `hosts` names nobody", remedy, "listen")
        self._check_servers(cut=len(self.servers) > 1 or info.context is not None)
        return self

    def _check_servers(self, *, cut: bool) -> None:
        """`server__tool` is cut at its first `__`; a single server made in code has a name that is not."""
        owners: dict[str, str] = {}
        for name, server in self.servers.items():
            if not re.fullmatch(SERVER_NAME if cut else ANY_NAME, name) or name != printable(name):
                remedy = "use at most 32 of a-z, 0-9, `-` and single `_`; not `_` first or last"
                raise fault("is no name of a server", remedy, "servers", name)
            owner = owners.setdefault(self.audience(name), name)
            if owner != name:
                at = ("servers", name, *(("audience",) if server.audience is not None else ()))
                raise fault(f"has the same audience as {printable(owner)}", "give each its own", *at)

    def audience(self, name: str) -> str:
        """`aud` of the artifacts for a server. Raises KeyError: no server has this name."""
        return self.servers[name].audience or name

    @property
    def address(self) -> Address | None:
        """Where the shared store is; None for the one that the home uses."""
        if self.store is None:
            return None
        return Address(self.store.url, self.store.password_file, self.store.password_env or "")

    @property
    def stdio(self) -> bool:
        """Whether the client is at the pipes, and nothing is bound."""
        return self.listen == "stdio"

    @property
    def host(self) -> str:
        """What to bind, an IPv6 address without brackets; "" on stdio."""
        return (authority(self.listen) or ("", 0))[0] if not self.stdio else ""

    @property
    def port(self) -> int:
        """What to bind; 0 for any free one, and on stdio."""
        return (authority(self.listen) or ("", 0))[1] or 0

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches Guard; also on stdio."""
        return self.stdio or is_loopback(self.host)


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
    if NEXT in what:
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        what, _, remedy = what.removesuffix(more).partition(NEXT)
        what += more
    what = re.sub(r"input should be a valid dictionary( or instance of \w+)?", "is not an object", what)
    return GuardError(what, where=found.where, remedy=remedy)
