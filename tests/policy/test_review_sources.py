"""Attacks on trust: what one source calls untrusted, lifted by a field of another."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from guard.core.model import Tool
from guard.policy.layers import layered
from guard.policy.origins.leaves import TRUST, Members, leaves_of
from guard.policy.rules import Policy, least_trusted
from tests.policy.calls import policy

READ = Tool("s", "read_file")
ORIGIN = {"id": "o", "tools": ["send"], "arguments": ["/to"], "accept": ["trusted"]}
FIELDS: list[dict[str, str]] = [
    {},
    {"/x": "untrusted"},
    {"/x": "trusted"},
    {"/x/y": "trusted"},
    {"/*/y": "trusted"},
    {"/*": "untrusted", "/x": "trusted"},
    {"/x/*": "mixed", "/x": "untrusted"},
    {"": "untrusted", "/*/y": "mixed"},
    {"/*": "mixed", "/*/*": "trusted"},
]
SAID = Members([(name, Members([("y", f"{name}y"), ("z", f"{name}z")])) for name in ("x", "w")])


def written(*sources: dict[str, Any], **more: Any) -> Policy:
    named = [{"tools": ["read_file"], **source} for source in sources]
    return policy(sources=named, origins=[ORIGIN], **more)


def trusted(of: Policy) -> dict[str, str]:
    """How far each value of SAID is trusted."""
    whole, fields = of.trust(READ)
    return {leaf.at: leaf.trust for leaf in leaves_of(SAID, whole, fields) if not leaf.name}


def test_a_field_of_one_source_does_not_lift_what_another_calls_untrusted() -> None:
    """Of several sources that name a tool the least counts, also where only one of them has the field."""
    one = {"tools": ["read_*"], "trust": "untrusted"}
    assert written(one, {"trust": "mixed", "fields": {"/x": "trusted"}}).trust(READ) == (
        "untrusted",
        {"/x": "untrusted"},
    )


@pytest.mark.parametrize("above", [{"/x": "untrusted"}, {"/*": "untrusted"}, {"": "untrusted"}])
def test_a_deeper_field_of_a_lower_layer_does_not_lift_a_field_of_a_higher_one(above: dict[str, str]) -> None:
    """A layer can only take away."""
    higher = written({"trust": "trusted", "fields": above}, id="high")
    lower = written({"trust": "trusted", "fields": {"/x/y": "trusted"}})
    assert trusted(layered([higher, lower]))["/x/y"] == "untrusted"


@pytest.mark.parametrize(("one", "other"), [*product(FIELDS, FIELDS)])
def test_no_value_is_trusted_further_than_by_each_source_alone(
    one: dict[str, str], other: dict[str, str]
) -> None:
    """Whatever two sources say of the parts and of the whole, in one layer or in two."""
    for left, right in product(TRUST, TRUST):
        first, second = {"trust": left, "fields": one}, {"trust": right, "fields": other}
        alone = [trusted(written(source)) for source in (first, second)]
        for both in (
            trusted(written(first, second)),
            trusted(written(second, first)),
            trusted(layered([written(first, id="high"), written(second)])),
        ):
            for at, label in both.items():
                least = least_trusted(*(said[at] for said in alone))
                assert least_trusted(label, least) == label, at


def test_one_source_alone_says_what_it_says() -> None:
    """Its deepest field counts, also above the trust of the whole."""
    assert written({"trust": "untrusted", "fields": {"/x": "trusted", "/x/y": "mixed"}}).trust(READ) == (
        "untrusted",
        {"/x": "trusted", "/x/y": "mixed"},
    )
