"""`money`: an amount in one of some currencies, between bounds.

Amounts are reckoned in decimal, as the digits stand. A number, a text such as `12.50`, a text with its
currency, or an object that holds both. More decimals than the currency has (ISO 4217) are not
understood: who receives the amount would round it, each in its way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from guard.policy.boundaries.verdict import Judge, Keyword, Misstated, NotUnderstood, text

_TWO: Final = (
    "AED ALL AMD ARS AUD AZN BAM BDT BGN BOB BRL CAD CHF CNY COP CRC CZK DKK DOP EGP EUR GBP GEL GHS GTQ HKD "
    "HUF IDR ILS INR KES KZT LKR MAD MDL MXN MYR NGN NOK NZD PEN PHP PKR PLN QAR RON RSD RUB SAR SEK SGD THB "
    "TRY TWD TZS UAH USD UYU UZS ZAR"
)
_NONE: Final = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF"
_THREE: Final = "BHD IQD JOD KWD LYD OMR TND"
PLACES: Final[Mapping[str, int]] = {
    **dict.fromkeys(_TWO.split(), 2),
    **dict.fromkeys(_NONE.split(), 0),
    **dict.fromkeys(_THREE.split(), 3),
}
"""Decimals of each currency that the keyword knows (ISO 4217, list one)."""

_LONGEST: Final = 40  # characters
_DIGITS: Final = r"(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,6})?"
_AMOUNT: Final = re.compile(_DIGITS)
_WITH_CURRENCY: Final = re.compile(rf"(?P<before>[A-Z]{{3}} )?(?P<amount>-?{_DIGITS})(?P<after> [A-Z]{{3}})?")

_BOUND: Final = {
    "type": "string",
    "pattern": f"^{_DIGITS}$",
    "description": "decimal text such as `500.00`",
}
_MEMBER: Final = {"type": "string", "minLength": 1, "maxLength": 256}
SHAPE: Final[dict[str, Any]] = {
    "description": "the value is more than nothing and no more than the bound of its currency",
    "type": "object",
    "additionalProperties": False,
    "required": ["maximum"],
    "properties": {
        "maximum": {
            "description": "the largest amount, by currency; other currencies are outside",
            "type": "object",
            "propertyNames": {"enum": sorted(PLACES)},
            "additionalProperties": _BOUND,
            "minProperties": 1,
        },
        "minimum": {
            "description": "the smallest amount, by currency; without it the smallest above nothing",
            "type": "object",
            "propertyNames": {"enum": sorted(PLACES)},
            "additionalProperties": _BOUND,
            "minProperties": 1,
        },
        "amount": {**_MEMBER, "description": "of an object: the member with the amount, `amount` by default"},
        "currency": {**_MEMBER, "description": "of an object: the member with the currency, else `currency`"},
    },
}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is permitted of one currency: from `least`, which is above nothing, to `most`."""

    least: Decimal
    most: Decimal


def judge(stated: Any) -> Judge:
    """A judge of amounts. Raises Misstated."""
    least = stated.get("minimum", {})
    for currency in least:
        if currency not in stated["maximum"]:
            what = f"a minimum without a maximum in {currency}"
            raise Misstated(what, f"/minimum/{currency}", "add it under `maximum`, or remove it")
    bounds = {
        currency: _bounds(currency, least.get(currency), most) for currency, most in stated["maximum"].items()
    }
    members = (stated.get("amount", "amount"), stated.get("currency", "currency"))

    def within(value: Any) -> bool:
        amount, currency = _read(value, members)
        if currency is None:
            if len(bounds) != 1:
                raise NotUnderstood
            currency = next(iter(bounds))
        if currency not in PLACES or -int(amount.as_tuple().exponent) > PLACES[currency]:
            raise NotUnderstood
        return currency in bounds and bounds[currency].least <= amount <= bounds[currency].most

    return within


def _bounds(currency: str, least: str | None, most: str) -> Bounds:
    smallest = Decimal(1).scaleb(-PLACES[currency])
    found = Bounds(smallest if least is None else Decimal(least), Decimal(most))
    if not smallest <= found.least <= found.most:
        what = f"no amount of {currency} lies between its bounds"
        raise Misstated(what, f"/maximum/{currency}", "correct the bounds; nothing and less is never inside")
    return found


def _read(value: Any, members: tuple[str, str]) -> tuple[Decimal, str | None]:
    """The amount, and its currency where the value says one. Raises NotUnderstood."""
    if type(value) is dict:
        currency = value.get(members[1])
        if type(currency) is not str:
            raise NotUnderstood
        return _number(value.get(members[0])), currency
    if type(value) is str and (" " in value):
        match = _WITH_CURRENCY.fullmatch(text(value, _LONGEST))
        if match is None or bool(match["before"]) == bool(match["after"]):
            raise NotUnderstood
        return Decimal(match["amount"]), (match["before"] or match["after"]).strip()
    return _number(value), None


def _number(value: Any) -> Decimal:
    """A JSON number or a decimal text, without trailing zeros of a number's. Raises NotUnderstood."""
    if type(value) is int:
        return Decimal(value)
    if type(value) is float:
        return _shortest(Decimal(repr(value)))
    if not _AMOUNT.fullmatch(text(value, _LONGEST)):
        raise NotUnderstood
    return Decimal(value)


def _shortest(number: Decimal) -> Decimal:
    """The same number with no more decimals than it needs. Raises NotUnderstood if there is none."""
    if not number.is_finite():
        raise NotUnderstood
    return number.normalize()


KEYWORD: Final = Keyword("money", SHAPE, judge)
