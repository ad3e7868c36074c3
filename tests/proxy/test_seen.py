"""Who called a moment ago is not who calls now."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from guard.core.errors import Reason, Refused
from guard.core.model import Conversation, Principal
from guard.proxy.house import House
from guard.proxy.wire import Request
from guard.proxy.world import Gate

ADA = Principal("default", "api-key", "ada", "reader")


def revoked() -> Principal:
    raise Refused(Reason.REVOKED_KEY)


def gate() -> Gate:
    parts: dict[str, Any] = {"issuer": None, "log": None, "clock": None}
    return Gate(cast("House", SimpleNamespace(**parts)), revoked, Conversation("c", "inferred"), ADA)


def test_a_key_that_was_revoked_while_the_body_came_lists_nothing() -> None:
    """What the transport saw before the body is good for no list, however slowly the body came."""
    with pytest.raises(Refused) as refusal:
        gate().identify()
    assert refusal.value.reason is Reason.REVOKED_KEY


def test_what_was_seen_is_good_for_the_first_step_of_one_call_only() -> None:
    """`bind` asks again, and finds the key revoked."""
    one, message = gate(), Request(1, "tools/call", {"name": "t"}, modern=True)
    assert one.identify(message) == ADA
    with pytest.raises(Refused):
        one.identify(message)
