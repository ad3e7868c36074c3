"""What a decision with its explanation costs, on policies of 10 to 10,000 rules, beside two others.

    python scripts/bench_policy.py [--rounds 15] [--calls 2000]

Half of the rules list a tool with its scope, half are an intent of one tool: an integer of at most 500 and
a string by a pattern. Calls go to 5 tools in turn, none is refused. `cedarpy` judges the same tools: one
Cedar policy says what a listing and its intent say, the string by `like`; all parsed before. `jsonschema`
has one validator a tool, made and chosen before: the schema alone, yes or no, without scopes, pins, rules or
an explanation. CPU time of this process in microseconds a call; the median of rounds in which all take
turns. Writes build/figures/bench-policy.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import cedarpy
import figures
from jsonschema import Draft202012Validator

from guard.core.model import Allow, Call, Conversation, Facts, Pin, Principal, Tool
from guard.policy.decide import decide
from guard.policy.document import load
from guard.policy.explain import explain

SIZES = (10, 100, 1_000, 10_000)
TOOLS_CALLED = 5
BESIDE = 100  # rules, where others are measured
ARGUMENTS = {"amount": 25, "account": "acct-00017"}
SCHEMA = {
    "properties": {"amount": {"type": "integer", "maximum": 500}, "account": {"pattern": "^acct-[0-9]+$"}},
    "required": ["amount", "account"],
}
CEDAR = """permit(principal in Role::"payer", action == Action::"t{n}", resource) when {{
  context has amount && context.amount <= 500 && context has account && context.account like "acct-*"
}};"""
Judge = Callable[[int], object]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=2_000)
    options = parser.parse_args()
    judges: dict[str, Judge] = {}
    for rules in SIZES:
        judges[f"us_{rules}"] = explaining(rules)
        judges[f"decide_us_{rules}"] = deciding(rules)
    judges[f"cedarpy_us_{BESIDE}"] = cedar(BESIDE)
    judges[f"jsonschema_us_{BESIDE}"] = schemas(BESIDE)
    found: dict[str, list[float]] = {name: [] for name in judges}
    for _ in range(options.rounds):
        for name, judge in judges.items():
            found[name].append(timed(judge, options.calls))
    result = {name: round(median(times), 2) for name, times in found.items()}
    for name, microseconds in result.items():
        print(f"{microseconds:10.2f}  {name}")
    figures.write("bench-policy", {**result, "growth": round(result["us_10000"] / result["us_100"], 2)})
    return 0


def timed(judge: Judge, calls: int) -> float:
    began = time.process_time_ns()
    for number in range(calls):
        judge(number % TOOLS_CALLED)
    return (time.process_time_ns() - began) / 1_000 / calls


def explaining(rules: int) -> Judge:
    policy, calls = load(document(rules), name="bench.json"), [call(n) for n in range(TOOLS_CALLED)]
    assert all(isinstance(explain(each, policy).decision, Allow) for each in calls)
    return lambda number: explain(calls[number], policy)


def deciding(rules: int) -> Judge:
    policy, calls = load(document(rules), name="bench.json"), [call(n) for n in range(TOOLS_CALLED)]
    return lambda number: decide(calls[number], policy)


def document(rules: int) -> bytes:
    named = [f"t{number}" for number in range(rules // 2)]
    members: dict[str, Any] = {
        "guard": 1,
        "id": "bench",
        "version": 1,
        "roles": {"payer": {"scopes": ["pay"]}},
        "tools": [{"match": name, "scopes": ["pay"]} for name in named],
        "intents": [{"id": f"i{name}", "tools": [name], "schema": SCHEMA} for name in named],
    }
    return json.dumps(members, separators=(",", ":")).encode()


def call(number: int) -> Call:
    name = f"t{number}"
    return Call(
        id="decision",
        principal=Principal("default", "launch", "someone", "payer"),
        tool=Tool("bank", name, "", Pin.MATCHES),
        audience="bank",
        method="tools/call",
        params={"name": name, "arguments": ARGUMENTS},
        conversation=Conversation("c", "launch"),
        facts=Facts(now=1_000_000),
    )


def cedar(rules: int) -> Judge:
    policies = cedarpy.PolicySet.from_str("\n".join(CEDAR.format(n=number) for number in range(rules // 2)))
    role = {"uid": {"type": "Role", "id": "payer"}, "attrs": {}, "parents": []}
    user = {"uid": {"type": "User", "id": "someone"}, "attrs": {}, "parents": [role["uid"]]}
    entities = cedarpy.Entities.from_json_str(json.dumps([role, user]))

    def judge(number: int) -> object:
        request = {
            "principal": {"type": "User", "id": "someone"},
            "action": {"type": "Action", "id": f"t{number}"},
            "resource": {"type": "Server", "id": "bank"},
            "context": ARGUMENTS,
        }
        return cedarpy.is_authorized(request, policies, entities).allowed

    assert judge(0) is True
    return judge


def schemas(rules: int) -> Judge:
    validators = [Draft202012Validator(SCHEMA) for _ in range(rules // 2)]
    return lambda number: validators[number].is_valid(ARGUMENTS)


if __name__ == "__main__":
    sys.exit(main())
