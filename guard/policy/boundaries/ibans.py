"""`iban`: an account of one of some countries, or one of some accounts.

ISO 13616: a country, two check digits, and a basic account number of the form that the country has in
SWIFT's IBAN registry (release 101). The value is in capitals, without spaces or in groups of four as
printed; both mean the same account.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from guard.core.errors import printable
from guard.policy.boundaries.verdict import Judge, Keyword, Misstated, NotUnderstood, text

_REGISTRY: Final = """
    AD:8n+12c AE:19n AL:8n+16c AT:16n AZ:4a+20c BA:16n BE:12n BG:4a+6n+8c BH:4a+14c BI:23n BR:23n+1a+1c
    BY:4c+4n+16c CH:5n+12c CR:18n CY:8n+16c CZ:20n DE:18n DJ:23n DK:14n DO:4c+20n EE:16n EG:25n ES:20n
    FI:14n FK:2a+12n FO:14n FR:10n+11c+2n GB:4a+14n GE:2a+16n GI:4a+15c GL:14n GR:7n+16c GT:24c
    HN:4a+20n HR:17n HU:24n IE:4a+14n IL:19n IQ:4a+15n IS:22n IT:1a+10n+12c JO:4a+4n+18c KW:4a+22c
    KZ:3n+13c LB:4n+20c LC:4a+24c LI:5n+12c LT:16n LU:3n+13c LV:4a+13c LY:21n MC:10n+11c+2n MD:20c
    ME:18n MK:3n+10c+2n MN:16n MR:23n MT:4a+5n+18c MU:4a+19n+3a NI:4a+20n NL:4a+10n NO:11n OM:3n+16c
    PK:4a+16c PL:24n PS:4a+21c PT:21n QA:4a+21c RO:4a+16c RS:18n RU:14n+15c SA:2n+18c SC:4a+20n+3a
    SD:14n SE:20n SI:15n SK:20n SM:1a+10n+12c SO:19n ST:21n SV:4a+20n TL:19n TN:20n TR:6n+16c UA:6n+19c
    VA:18n VG:4a+16n XK:16n YE:4a+4n+18c
"""
FORMS: Final[Mapping[str, str]] = dict(entry.split(":") for entry in _REGISTRY.split())
"""What follows the check digits, by country: so many digits (n), capitals (a), or either (c)."""

_LONGEST: Final = 42  # 34 characters and the spaces of a printed one
_KINDS: Final = {"n": "[0-9]", "a": "[A-Z]", "c": "[A-Z0-9]"}
_PRINTED: Final = re.compile(r"(?:[A-Z0-9]{4} ){3,8}[A-Z0-9]{1,4}")
_COMPACT: Final = re.compile(r"[A-Z0-9]{15,34}")
_LOWEST, _HIGHEST = 2, 98  # of the check digits; the others are congruent to these

_COUNTRY: Final = {"type": "string", "enum": sorted(FORMS)}
SHAPE: Final[dict[str, Any]] = {
    "description": "the value is an IBAN of one of these countries, or one of these",
    "type": "object",
    "additionalProperties": False,
    "minProperties": 1,
    "maxProperties": 1,
    "properties": {
        "countries": {
            "description": "countries, as the IBAN begins",
            "type": "array",
            "items": _COUNTRY,
            "minItems": 1,
            "maxItems": len(FORMS),
        },
        "accounts": {
            "description": "the accounts themselves",
            "type": "array",
            "items": {"type": "string"},
            "minItems": 1,
            "maxItems": 10_000,
        },
    },
}


def pattern(form: str) -> re.Pattern[str]:
    """What an IBAN of a country with this form looks like, without spaces."""
    parts = (f"{_KINDS[part[-1]]}{{{part[:-1]}}}" for part in form.split("+"))
    return re.compile("[A-Z]{2}[0-9]{2}" + "".join(parts))


_PATTERNS: Final = {country: pattern(form) for country, form in FORMS.items()}


def read(value: Any) -> str:
    """An IBAN without spaces. Raises NotUnderstood."""
    plain = text(value, _LONGEST)
    if _PRINTED.fullmatch(plain):
        plain = plain.replace(" ", "")
    form = _PATTERNS.get(plain[:2])
    if not _COMPACT.fullmatch(plain) or form is None or not form.fullmatch(plain):
        raise NotUnderstood
    if not _LOWEST <= int(plain[2:4]) <= _HIGHEST or remainder(plain) != 1:
        raise NotUnderstood
    return plain


def remainder(iban: str) -> int:
    """ISO 7064, MOD 97-10, of the country and check digits moved to the end, letters as 10 to 35."""
    return int("".join(str(int(char, 36)) for char in iban[4:] + iban[:4])) % 97


def judge(stated: Any) -> Judge:
    """A judge of IBANs. Raises Misstated."""
    countries = frozenset(stated.get("countries", ()))
    accounts = frozenset(
        _account(account, f"/accounts/{index}") for index, account in enumerate(stated.get("accounts", ()))
    )

    def within(value: Any) -> bool:
        iban = read(value)
        return iban[:2] in countries or iban in accounts

    return within


def _account(account: str, at: str) -> str:
    try:
        return read(account)
    except NotUnderstood:
        what = f"`{printable(account)}` is not an IBAN"
        raise Misstated(what, at, "check its country, its length and its check digits") from None


KEYWORD: Final = Keyword("iban", SHAPE, judge)
