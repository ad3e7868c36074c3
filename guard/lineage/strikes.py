"""What denials that were counted bring about: the containment, and the entry that says why."""

from __future__ import annotations

import os
from typing import Final

from guard.lineage.entry import SALT_BYTES, Draft, Kind, draft
from guard.lineage.transaction import Contain, Strike

CONVERSATION: Final = "conversation"


def contains(one: Strike, conversation: str) -> Contain:
    """What it puts out of use. `conversation` is the log's own id of the transaction's."""
    return Contain(one.kind, conversation if one.kind == CONVERSATION else one.target)


def told(one: Strike, what: Contain) -> Draft:
    """The entry in the house's conversation, for reviewers: what, since which call, and why."""
    fields = {"kind": what.kind, "target": what.target, "denials": one.most, "window": one.window}
    return draft(Kind.CONTAINED, one.call, fields, os.urandom(SALT_BYTES * len(fields)))
