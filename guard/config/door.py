"""What clients meet first: how they are known, which names mean this Guard, and its certificate."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from guard.config.home import DEFAULT_TENANT, clock
from guard.config.launch import identity
from guard.config.settings import FixedCaller, Settings
from guard.core.errors import GuardError
from guard.core.model import Principal
from guard.identity.api_keys import authenticate
from guard.lineage.store import Store
from guard.proxy.http import Identify


def who(settings: Settings, store: Store) -> tuple[Identify, str]:
    """How callers are known, and the tenant that servers are started for before anybody calls.

    Over HTTP by the key in `Authorization`, read anew at each look (RFC 6750 section 2.1); on stdio by
    the launch. A fixed caller is one whatever the request says.
    """
    fixed = settings.identity if isinstance(settings.identity, FixedCaller) else None
    if fixed is not None or settings.stdio:
        by_launch, tenant = identity(
            store, role=fixed.role if fixed else None, principal=fixed.principal if fixed else None
        )
        return (lambda _: by_launch), tenant

    def by_bearer(value: str | None) -> Callable[[], Principal]:
        scheme, _, token = (value or "").partition(" ")
        text = token.strip(" ") if scheme.lower() == "bearer" else None
        return lambda: authenticate(text, store.api_key, clock() // 1000)

    return by_bearer, DEFAULT_TENANT


def hosts(settings: Settings, port: int) -> frozenset[str]:
    """Values of `Host` that mean this Guard, with and without the port; on loopback its names too."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    names = [
        *settings.hosts,
        *(["localhost", "127.0.0.1", "[::1]", host.lower()] if settings.loopback else []),
    ]
    return frozenset(each for name in names for each in (name, f"{name}:{port}"))


def tls(settings: Settings) -> ssl.SSLContext | None:
    """The certificate that clients are shown; None where there is none. Raises GuardError."""
    if settings.tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(settings.tls.certificate, settings.tls.key)
    except (OSError, ssl.SSLError) as error:
        raise GuardError(
            f"certificate and key cannot be used: {error.strerror or error}",
            where=f"{settings.tls.certificate}",
            remedy="give two PEM files that belong together",
        ) from None
    return context
