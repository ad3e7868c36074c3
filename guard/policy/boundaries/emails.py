"""`emailDomain`: one e-mail address at one of some domains.

The value is a bare addr-spec of RFC 5321 (4.1.2) with a dot-string and a domain name: no display name, no
quotes, no comment, no list, no route, no address literal. The mail program may read more than that, and
then what it reads is another address.
"""

from __future__ import annotations

import re
from typing import Any, Final

from guard.policy.boundaries.hosts import PATTERN, names, read
from guard.policy.boundaries.verdict import Judge, Keyword, Misstated, NotUnderstood, text

LONGEST: Final = 254  # characters; RFC 5321, 4.5.3.1.3, without the brackets
_LONGEST_LOCAL: Final = 64
_LOCAL: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_+='&~^-]*(?:\.[A-Za-z0-9_+='&~^-]+)*")

SHAPE: Final[dict[str, Any]] = {
    "description": "the value is one e-mail address at one of these domains",
    "type": "object",
    "additionalProperties": False,
    "required": ["domains"],
    "properties": {
        "domains": {
            "description": "domains; `*.example.com` is every domain below, without itself",
            "type": "array",
            "items": {"type": "string", "pattern": PATTERN},
            "minItems": 1,
            "maxItems": 1000,
        },
    },
}


def judge(stated: Any) -> Judge:
    """A judge of e-mail addresses. Raises Misstated."""
    if "*" in stated["domains"]:
        at = f"/domains/{stated['domains'].index('*')}"
        raise Misstated("`*` means every domain, and then the keyword holds nothing", at, "name the domains")
    meant = names(stated["domains"], "/domains")

    def within(value: Any) -> bool:
        local, at, domain = text(value, LONGEST).partition("@")
        if not at or len(local) > _LONGEST_LOCAL or not _LOCAL.fullmatch(local):
            raise NotUnderstood
        host = read(domain)
        if host.address is not None or "." not in host.name:
            raise NotUnderstood
        return meant.hold(host.name)

    return within


KEYWORD: Final = Keyword("emailDomain", SHAPE, judge)
