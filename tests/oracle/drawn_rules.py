"""What rules say of how much, when, in which order, with values from where, and whom to ask."""

from __future__ import annotations

from drawn import AMOUNTS, APART, POINTERS, TEXTS, TOOL_GLOBS, Dice, Document

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Apia", "Australia/Lord_Howe")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
TIMES = ("08:00", "00:00", "18:00", "02:30", "09:00", "23:59", "12:00", "03:00")
SOURCES = ("tool:git/read", "tool:bank/r", "prompt:git/read", "server:git", "sent:git/read", "user")
LARGE = 6  # decimals: with them no sum of 10^12 can be counted
WINDOWS = ("60s", "1s", "90m", "24h", "31d")


def limit(dice: Dice) -> Document:
    """What a limit bounds: calls, an amount, calls at once, depth, the size of a result."""
    apart = dice.some(APART, 1, 3)
    per = {"per": apart[0] if len(apart) == 1 and dice.once_in(2) else apart}
    match dice.below(8):
        case 0 | 1:
            return per | {"calls": dice.one((3, 1, 2, 10_000)), "window": dice.one(WINDOWS)}
        case 2 | 3 | 4:
            return per | _budget(dice)
        case 5:
            window = {"window": dice.one(WINDOWS)} if dice.once_in(2) else {}
            return per | {"at_once": dice.one((2, 1, 10_000))} | window
        case 6:
            return {"depth": dice.one((1, 0, 2))}
        case _:
            return {"result_bytes": dice.one((65_536, 0, 1, 2_000))}


def _budget(dice: Dice) -> Document:
    budget: Document = {
        "of": dice.one(("/n", "/n", "/n", *filter(None, POINTERS))),
        "window": dice.one(WINDOWS),
    }
    if dice.once_in(2):
        budget["digits"] = dice.one((2, 0, 6, 3))
    budget["sum"] = dice.one(
        (20, 0, 3, 1_000_000_000 if budget.get("digits") == LARGE else 1_000_000_000_000)
    )
    if dice.once_in(3):
        budget["currency"] = {
            "at": dice.one(("/s", *filter(None, POINTERS))),
            "is": dice.one(("a", *TEXTS[2:6])),
        }
    return budget


def hours(dice: Dice) -> Document:
    rule: Document = {"from": dice.one(TIMES), "to": dice.one((*TIMES, "24:00")), "zone": dice.one(ZONES)}
    if dice.once_in(2):
        rule["days"] = dice.some(DAYS, 1, 7)
    return rule


def sequence(dice: Dice) -> Document:
    others = [dice.one((*TOOL_GLOBS, "r*", "*")) for _ in range(1 + dice.below(2))]
    word, window = dice.one((("requires", "within"), ("after", "for")))
    rule: Document = {word: [*others, {"match": "w*", "server": "git"}] if dice.once_in(3) else others}
    if dice.once_in(2):
        rule[window] = dice.one(WINDOWS)
    if dice.once_in(2):
        rule["calls"] = dice.one((1, 2, 0, 3))
    return rule


def origins(dice: Dice) -> Document:
    rule: Document = {
        "arguments": dice.some((*POINTERS, "/*", "/l/*", "/*/0", "/o/*"), 1, 3),
        "accept": dice.some(("unseen", "user", "policy", "trusted", "mixed", "tool:git/read"), 1, 4),
    }
    if dice.once_in(3):
        rule["constants"] = [str(one) for one in dice.some((*TEXTS[:5], *AMOUNTS[:4]), 1, 2)]
    if dice.once_in(2):
        rule["otherwise"] = dice.one(("ask", "ask", "deny"))
    return rule | (asked(dice) if dice.once_in(2) else {})


def asked(dice: Dice) -> Document:
    """Whom a rule asks, and how long the question stands."""
    rule: Document = {}
    if dice.once_in(2):
        rule["approver"] = dice.one(("client", "client", "reviewer"))
    if dice.once_in(2):
        rule["ttl"] = dice.one(("10m", "1s", "2h"))
    return rule
