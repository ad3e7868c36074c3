# ruff: noqa: E501 - one case a line
"""What is refused before it can decide anything, each by name: texts, policies, schemas, cases."""

from __future__ import annotations

from typing import Any

DEEP: Any = True
for _ in range(40):
    DEEP = {"not": DEEP}
TEXTS: dict[str, bytes] = {
    "too large": b"#" * ((1 << 20) + 1),
    "not UTF-8": b"\n\na: \xff\nb: 1\n",
    "not UTF-8 at once": b"\xff\n\n",
    "empty": b"",
    "a comment": b"# nothing\n",
    "two documents": b"a: 1\n---\nb: 1\n",
    "a directive": b"%YAML 1.1\n---\na: 1\n",
    "a tag directive": b"%TAG ! tag:example.com,2000:\n---\na: 1\n",
    "an anchor": b"a: 1\nb: &x 1\n",
    "an alias": b"a: 1\nb: *x\n",
    "a tag": b"a: 1\nb: !!str 1\n",
    "a key that is a list": b"a: 1\n? [x]\n: 2\n",
    "a key that is a number": b"a: 1\n12: 2\n",
    "a key that is nothing": b"null: 2\n",
    "a key twice": b"a: 1\nb: 2\na: 3\n",
    "a key twice below": b"a:\n  - b: 1\n    b: 2\n",
    "too deep": b"- " * 65 + b"x",
    "too deep in flow": b"[" * 65 + b"]" * 65,
    "too deep in JSON": b'{"a":\n' * 65 + b"1" + b"}" * 65,
    "a surrogate": b'a: 1\nb: "\\ud800"\n',
    "a value is missing": b"a: 1\nb:\nc: 2\n",
    "too large a number": b"a: 1\nb: 9007199254740992\n",
    "far too large a number": b"a: 123456789012345678901234567890\n",
    "too small a number": b"a: -9007199254740992\n",
    "no double": b"a: 1\nb: 1e999\n",
    "a word of two meanings": b"a: 1\nb: yes\n",
    "a merge": b"a: 1\n<<: {c: 1}\nb: <<\n",
    "a tab": b"a: 1\n\tb: 2\n",
    "a bell": b"a: 1\nb: \x07\n",
    "an open quote": b"a: 1\nb: 'c\n",
    "an open list": b"a: 1\nb: [c\n",
    "JSON with a comma": b'{"a": 1,\n}',
    "JSON that goes on after its fault": b'\n{"a": 1,\n}\n\n\n',
    "JSON of another kind of text": b'{"a": \xc3\xa9}',
    "JSON with a surrogate in a list": b'{"a": [1,\n{"b": "\\udc00"}]}',
    "JSON with a comment": b'{"a": 1}\n// end',
    "JSON with NaN": b'{"a": 1,\n "b": NaN}',
    "JSON that stops": b'{"a": 1,\n\n "b": ',
    "JSON with a member twice": b'{"a": 1,\n "a": 2}',
    "JSON with a member twice below": b'{"a": {"b": 1,\n "b": 2}}',
    "JSON with a large number": b'{"a": 1,\n "b": [1, 12345678901234567890]}',
    "JSON with a surrogate": b'{"a": 1,\n "b": "\\ud800"}',
    "JSON with a surrogate for a name": b'{"a": 1,\n "\\ud800": 1}',
    "JSON with a number beyond doubles": b'{"a": 1,\n "b": 1e999}',
}
READ: dict[str, bytes] = {
    "as deep as may be": b"- " * 63 + b"x",
    "as deep as may be in a mapping": b"".join(b" " * n + b"a:\n" for n in range(63)) + b" " * 63 + b"b",
    "as deep as may be in flow": b"[" * 64 + b"]" * 64,
    "as deep as may be in JSON": b'{"a":' * 64 + b"1" + b"}" * 64,
    "as large as may be": b"a: b" + b" " * ((1 << 20) - 4),
    "the largest numbers": b"a: [9007199254740991, -9007199254740991, 1.5e300, -0, 0.0]\n",
    "JSON after space": b' \n\t{"a": "\\u00e9"}',
    "words": b'a: [yes man, 1.2.3, "no", null, true, 1-2, x]\nb: {c: {}, d: []}\n"": 1\n',
    "odd names": b'"a/b~c": {"": [{x: 1}]}\n',
}
SCHEMAS: dict[str, Any] = {
    "no schema": 1,
    "an unknown keyword": {"maxlength": 1},
    "a keyword far from any": {"xyzzy": 1},
    "an unknown format": {"format": "emial"},
    "a format far from any": {"format": "xyzzy"},
    "another dialect": {"$schema": "http://json-schema.org/draft-07/schema#"},
    "a reference elsewhere": {"$ref": "https://example.com/a"},
    "a reference that is no text": {"$ref": 1},
    "a reference to nothing": {"$ref": "#/$defs/a"},
    "a reference to no schema": {"$ref": "#/required", "required": ["a"]},
    "a reference to an anchor that is not there": {"$ref": "#a"},
    "a reference to itself": {"$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"},
    "a reference to the root": {"properties": {"a": {"$ref": "#"}}},
    "two that name each other": {
        "$defs": {"a": {"not": {"$ref": "#/$defs/b"}}, "b": {"not": {"$ref": "#/$defs/a"}}},
        "$ref": "#/$defs/a",
    },
    "an identifier": {"$id": "a"},
    "old definitions": {"definitions": {}},
    "old dependencies": {"dependencies": {}},
    "old items": {"additionalItems": False},
    "an encoding": {"contentEncoding": "base64"},
    "then without if": {"then": True},
    "else without if": {"else": True},
    "minContains alone": {"minContains": 1},
    "maxContains alone": {"properties": {"a/b": {"maxContains": 1}}},
    "too many values": {"enum": [*range(10_001)]},
    "too deep": DEEP,
    "too many parts": {"properties": {f"p{n}": True for n in range(2_001)}},
    "too large once written out": {
        "$defs": {
            "a": {"anyOf": [{"minimum": n} for n in range(100)]},
            "b": {"allOf": [{"$ref": "#/$defs/a"}] * 100},
        },
        "$ref": "#/$defs/b",
    },
    "too deep once written out": {
        "$defs": {
            **{f"d{n}": {"not": {"not": {"$ref": f"#/$defs/d{n + 1}"}}} for n in range(60)},
            "d60": True,
        },
        "$ref": "#/$defs/d0",
    },
    "a pattern of two meanings": {"pattern": "^\\d+$"},
    "a pattern of two meanings for names": {"patternProperties": {"^\\w/~": True}},
    "a pattern that is none": {"properties": {"a": {"pattern": "("}}},
    "a name's pattern that is none": {"patternProperties": {"(": True}},
    "a pattern that looks back": {"pattern": "(?<=a)b"},
    "a type that is none": {"type": "text"},
    "a required that is no list": {"required": "a"},
    "a minimum that is a text": {"properties": {"a": {"minimum": "1"}}},
    "properties that are a list": {"properties": []},
    "a part that is no schema": {"properties": {"a": 1}},
    "a part of a list that is no schema": {"anyOf": [True, "a"]},
    "an empty list": {"anyOf": []},
    "a boundary that is misstated": {"properties": {"a": {"pathWithin": {"roots": "x"}}}},
    "as large as may be once written out": {
        "$defs": {"a": {"anyOf": [{"minimum": n} for n in range(98)]}},
        "allOf": [{"$ref": "#/$defs/a"}] * 39,
    },
    "a pattern after two backslashes": {"pattern": r"^\\d$"},
    "a pattern after three backslashes": {"pattern": r"^\\\d$"},
    "a boundary that is unknown": {"pathwithin": {}},
}
GOOD: dict[str, Any] = {"roles": {"r": {"scopes": ["a"]}}, "tools": [{"match": "t", "scopes": ["a"]}]}
POLICIES: dict[str, dict[str, Any]] = {
    "nothing": {"guard": None, "id": None, "version": None},
    "no version": {"version": 0},
    "a version in quotes": {"version": "1"},
    "another language": {"guard": 2},
    "a wrong id": {"id": "A B"},
    "an unknown field": {"protcted": []},
    "two unknown fields": {"protcted": [], "xyzzy": 1},
    "a role that is unknown": {"roles": {"r": {"inherits": ["q"]}}},
    "a role that is nearly known": {"roles": {"reader": {}, "writer": {"inherits": ["raeder"]}}},
    "a circle of roles": {"roles": {"a": {"inherits": ["b"]}, "b": {"inherits": ["a"]}}},
    "a role in itself": {"roles": {"a": {"inherits": ["a"]}}},
    "a scope with a space": {"roles": {"r": {"scopes": ["a b"]}}},
    "a role with capitals": {"roles": {"R": {"scopes": []}}},
    "a field of a role": {"roles": {"r": {"scope": []}}},
    "a tool without scopes": {"tools": [{"match": "t"}]},
    "a tool without a name": {"tools": [{"match": "", "scopes": []}]},
    "a tool that is a text": {"tools": ["t"]},
    "observing without an end": {"mode": "observe"},
    "an end without observing": {"observe_until": "2027-01-01T00:00:00Z"},
    "a day that is no time": {"expires": "2027-01-01"},
    "a day that there is not": {"expires": "2027-02-30T00:00:00Z"},
    "an id twice": {"protected": [{"id": "x", "tools": ["t"]}, {"id": "x", "tools": ["t"]}]},
    "an id of another kind": {
        "protected": [{"id": "x", "tools": ["t"]}],
        "intents": [{"id": "x", "tools": ["t"], "schema": True}],
    },
    "a rule about nothing": {"protected": [{"id": "x"}]},
    "an intent without schema": {"intents": [{"id": "x", "tools": ["t"]}]},
    "a limit of two kinds": {
        "limits": [{"id": "l", "tools": ["t"], "per": "role", "calls": 1, "at_once": 1, "window": "1s"}]
    },
    "a limit of no kind": {"limits": [{"id": "l", "tools": ["t"], "per": "role"}]},
    "a limit without a window": {"limits": [{"id": "l", "tools": ["t"], "per": "role", "calls": 1}]},
    "a limit per nothing": {"limits": [{"id": "l", "tools": ["t"], "per": [], "calls": 1, "window": "1s"}]},
    "a limit per moon": {"limits": [{"id": "l", "tools": ["t"], "per": "moon", "calls": 1, "window": "1s"}]},
    "a window that is none": {
        "limits": [{"id": "l", "tools": ["t"], "per": "role", "calls": 1, "window": "soon"}]
    },
    "a window that is too long": {
        "limits": [{"id": "l", "tools": ["t"], "per": "role", "calls": 1, "window": "9999d"}]
    },
    "a window of nothing": {
        "limits": [{"id": "l", "tools": ["t"], "per": "role", "calls": 1, "window": "0s"}]
    },
    "a sum of nothing": {"limits": [{"id": "l", "tools": ["t"], "per": "role", "sum": 1, "window": "1s"}]},
    "a sum of no pointer": {
        "limits": [{"id": "l", "tools": ["t"], "per": "role", "sum": 1, "of": "amount", "window": "1s"}]
    },
    "a sum with too many digits": {
        "limits": [
            {"id": "l", "tools": ["t"], "per": "role", "sum": 1, "of": "/a", "digits": 99, "window": "1s"}
        ]
    },
    "a depth in a window": {"limits": [{"id": "l", "tools": ["t"], "depth": 1, "window": "1s"}]},
    "hours of no day": {
        "hours": [{"id": "h", "tools": ["t"], "days": [], "from": "07:00", "to": "08:00", "zone": "UTC"}]
    },
    "hours that are none": {
        "hours": [{"id": "h", "tools": ["t"], "days": ["mon"], "from": "7", "to": "08:00", "zone": "UTC"}]
    },
    "hours in no zone": {
        "hours": [
            {"id": "h", "tools": ["t"], "days": ["mon"], "from": "07:00", "to": "08:00", "zone": "Mars/Base"}
        ]
    },
    "a sequence of both kinds": {
        "sequences": [
            {"id": "s", "tools": ["t"], "requires": ["a"], "within": "1h", "after": ["b"], "for": "1h"}
        ]
    },
    "a sequence of no kind": {"sequences": [{"id": "s", "tools": ["t"]}]},
    "a sequence without a time": {"sequences": [{"id": "s", "tools": ["t"], "requires": ["a"]}]},
    "an origin of no argument": {
        "origins": [{"id": "o", "tools": ["t"], "arguments": [], "accept": ["user"]}]
    },
    "an origin of a word": {
        "origins": [{"id": "o", "tools": ["t"], "arguments": ["to"], "accept": ["user"]}]
    },
    "an origin that is unknown": {
        "origins": [{"id": "o", "tools": ["t"], "arguments": ["/to"], "accept": ["moon"]}]
    },
    "constants without policy": {
        "origins": [{"id": "o", "tools": ["t"], "arguments": ["/to"], "accept": ["user"], "constants": ["a"]}]
    },
    "a source with a wrong trust": {"sources": [{"tools": ["t"], "trust": "full"}]},
    "an ask with a wrong approver": {"asks": [{"id": "a", "tools": ["t"], "approver": "me"}]},
    "an ask with a time that is too long": {"asks": [{"id": "a", "tools": ["t"], "ttl": "900d"}]},
    "a containment of nothing": {"containment": {"principal": {"denials": 0, "window": "1h"}}},
    "a server with a field": {"servers": {"s": {"scope": []}}},
    "a resource with a blank": {"resources": [{"match": "file:///a b", "scopes": []}]},
    "a request schema": {"protected": [{"id": "x", "tools": ["t"], "request": {"maxlength": 1}}]},
    "a schema that is a text": {"protected": [{"id": "x", "tools": ["t"], "schema": "no"}]},
    "a schema that is a number": {"protected": [{"id": "x", "tools": ["t"], "schema": 5}]},
    "a limit per number": {"limits": [{"id": "l", "tools": ["t"], "per": 5, "calls": 1, "window": "1s"}]},
    "a limit per mapping": {
        "limits": [{"id": "l", "tools": ["t"], "per": {"a": 1}, "calls": 1, "window": "1s"}]
    },
    "a pattern that is a number": {"protected": [{"id": "x", "tools": [5]}]},
    "a pattern with a wrong field": {"protected": [{"id": "x", "tools": [{"match": "t", "sever": "s"}]}]},
    "a resource that is a number": {"resources": [5]},
    "a resource with a server of numbers": {
        "protected": [{"id": "x", "resources": [{"match": "a:b", "server": 5}]}]
    },
    "a role that is a number": {"roles": {"r": 5}},
    "a role of a wrong name": {"roles": {"a b": {"scopes": 5}}},
    "a server of a wrong name": {"servers": {"a b": {}}},
    "scopes that are a text": {"roles": {"r": {"scopes": "a"}}},
    "scopes that are numbers": {"roles": {"r": {"scopes": [1, 2]}}},
    "roles that are a list": {"roles": []},
    "a currency that is a text": {
        "limits": [
            {
                "id": "l",
                "tools": ["t"],
                "per": "role",
                "sum": 1,
                "of": "/a",
                "currency": "EUR",
                "window": "1s",
            }
        ]
    },
    "a currency without a name": {
        "limits": [
            {
                "id": "l",
                "tools": ["t"],
                "per": "role",
                "sum": 1,
                "of": "/a",
                "currency": {"at": "/b"},
                "window": "1s",
            }
        ]
    },
    "a field of a currency": {
        "limits": [
            {
                "id": "l",
                "tools": ["t"],
                "per": "role",
                "sum": 1,
                "of": "/a",
                "currency": {"at": "/b", "si": "EUR"},
                "window": "1s",
            }
        ]
    },
    "a field of a source": {"sources": [{"tools": ["t"], "trust": "mixed", "fields": {"a": "mixed"}}]},
    "a trust of a field": {"sources": [{"tools": ["t"], "trust": "mixed", "fields": {"/a": "full"}}]},
    "a field of a containment": {"containment": {"principal": {"denails": 1, "window": "1h"}}},
    "a schema": {"intents": [{"id": "x", "tools": ["t"], "schema": {"properties": {"a": {"typ": 1}}}}]},
}
CASES: dict[str, str] = {
    "nothing": "cases: []",
    "a text": "cases: a",
    "a list": "- cases: a",
    "a number": "5",
    "several faults": "cases:\n- name: a\n  role: r\n  tool: t\n  expect: 5\n- {name: b, role: r, tool: t, expect: deny, resaon: x}\n- {role: r}",
    "several faults in their order": "cases:\n- name: ''\n  role: r\n  tool: 5\n  expect: 5\n- {name: 5}",
    "no name": "cases: [{role: r, tool: t, expect: allow}]",
    "no role": "cases: [{name: a, tool: t, expect: allow}]",
    "nothing asked": "cases: [{name: a, role: r, expect: allow}]",
    "two asked": "cases: [{name: a, role: r, tool: t, prompt: p, expect: allow}]",
    "a resource with arguments": "cases: [{name: a, role: r, resource: 'x:a', arguments: {b: 1}, expect: allow}]",
    "a name twice": "cases:\n- {name: a, role: r, tool: t, expect: allow}\n- {name: a, role: r, tool: t, expect: allow}",
    "a denial without reason": "cases:\n- {name: a, role: r, tool: t, expect: deny}",
    "a permit with reason": "cases:\n- {name: a, role: r, tool: t, expect: allow, reason: protected}",
    "an ask with reason": "cases:\n- {name: a, role: r, tool: t, expect: ask, reason: protected}",
    "an unknown reason": "cases:\n- {name: a, role: r, tool: t, expect: deny, reason: protcted}",
    "a reason far from any": "cases:\n- {name: a, role: r, tool: t, expect: deny, reason: xyzzy}",
    "an unknown field": "cases:\n- {name: a, role: r, tool: t, expct: allow}",
    "an unknown fact": "cases:\n- {name: a, role: r, tool: t, expect: allow, facts: {nwo: 1}}",
    "a wrong speaker": "cases:\n- {name: a, role: r, tool: t, expect: allow, facts: {said: [{by: me, text: a}]}}",
    "a wrong pointer": "cases:\n- {name: a, role: r, tool: t, expect: allow, facts: {said: [{by: user, text: a, fields: {b: trusted}}]}}",
    "a negative amount": "cases:\n- {name: a, role: r, tool: t, expect: allow, facts: {used: {few: -1}}}",
    "too deep": "cases:\n- {name: a, role: r, tool: t, expect: allow, depth: 1001}",
}
FAILING: dict[str, str] = {
    "an unknown limit": "cases:\n- {name: a, role: r, tool: t, expect: allow, facts: {used: {fwe: 1}}}",
    "a limit far from any": "cases:\n- {name: a, role: r, tool: t, expect: allow, facts: {used: {xyzzy: 1}}}",
    "one that is denied": "cases:\n- {name: a, role: r, tool: u, expect: allow}",
    "one that is permitted": "cases:\n- {name: a, role: r, tool: t, expect: deny, reason: protected, rule: x}",
    "one that is asked": "cases:\n- {name: a, role: r, tool: t, expect: allow}\n- {name: b, role: r, tool: v, expect: allow, rule: x}",
    "one denied by another": "cases:\n- {name: a, role: r, tool: w, expect: deny, reason: protected, rule: other}",
    "one denied for another reason": "cases:\n- {name: a, role: r, tool: w, expect: deny, reason: default-deny}",
    "one that asks and should not": "cases:\n- {name: a, role: r, tool: v, expect: allow}",
    "one that asks by another": "cases:\n- {name: a, role: r, tool: v, expect: ask, rule: x}\n- {name: b, role: r, tool: v, expect: ask, rule: person}",
    "one that should ask": "cases:\n- {name: a, role: r, tool: t, expect: ask, rule: person}",
}
WORLD: dict[str, Any] = {
    **GOOD,
    "tools": [{"match": name, "scopes": ["a"]} for name in ("t", "v", "w")],
    "limits": [{"id": "few", "tools": ["t"], "per": "role", "calls": 3, "window": "1h"}],
    "asks": [{"id": "person", "tools": ["v"]}],
    "protected": [{"id": "never", "tools": ["w"]}],
}
TOOLS: dict[tuple[str, str], Any] = {
    ("s", "send"): {
        "inputSchema": {
            "properties": {
                "to": {"type": "object", "properties": {"mail": {}, "name": {}}},
                "tags": {"items": {"properties": {"key": {}}}},
                "pair": {"prefixItems": [{"properties": {"one": {}}}, {"properties": {"two": {}}}]},
                "any": {},
                "more": {"properties": {"a": {}}, "additionalProperties": True},
                "typed": {"properties": {"a": {}}, "additionalProperties": {"type": "string"}},
                "shut": {"additionalProperties": False},
                "named": {"patternProperties": {"^x": {}}, "properties": {"a": {}}},
                "far": {"$ref": "#/$defs/far"},
                "either": {"anyOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]},
                "free": {"anyOf": [{"properties": {"a": {}}}, True]},
            },
            "$defs": {"far": {"properties": {"near": {}}}},
        }
    },
    ("s", "negative"): {"inputSchema": {"properties": {"a": {}}, "not": {"properties": {"b": {}}}}},
    ("s", "twice"): {
        "inputSchema": {
            "properties": {
                "a": {
                    "allOf": [1, {"$ref": "#/$defs/x"}, {"$ref": "#/$defs/x"}, {"properties": {"y": {}}}],
                    "$ref": 5,
                }
            },
            "$defs": {"x": {"properties": {"x": {}}}},
        }
    },
    ("s", "sent"): {"inputSchema": {"properties": {"to": {}, "when": {}}}},
    ("q", "send"): {"inputSchema": {"type": "object"}},
    ("q", "odd"): {"inputSchema": {"properties": [], "items": 1, "prefixItems": 1, "patternProperties": 1}},
    ("q", "none"): {},
}


def _about(match: str, schema: Any, kind: str = "intents", **more: Any) -> dict[str, Any]:
    return {kind: [{"id": "x", "tools": [{"match": match, "server": "s"}], "schema": schema, **more}]}


FIT: dict[str, dict[str, Any]] = {
    "an unknown property": _about("send", {"properties": {"too": {}}}),
    "a property far from any": _about("send", {"properties": {"xyzzy": {}}}),
    "an unknown property that is required": _about("send", {"required": ["to", "too"]}),
    "one below": _about("send", {"properties": {"to": {"properties": {"mial": {}, "name": {}}}}}),
    "one below that is required": _about("send", {"properties": {"to": {"required": ["mial"]}}}),
    "one in a list": _about("send", {"properties": {"tags": {"items": {"properties": {"kye": {}}}}}}),
    "one in what a list holds": _about("send", {"properties": {"tags": {"contains": {"required": ["kye"]}}}}),
    "one in a pair": _about("send", {"properties": {"pair": {"prefixItems": [{"required": ["tow"]}]}}}),
    "one in a list of pairs": _about(
        "send", {"properties": {"tags": {"prefixItems": [{"required": ["kye"]}]}}}
    ),
    "one beside a reference to itself": _about(
        "send",
        {"allOf": [{"$ref": "#/$defs/d"}, {"$ref": "#/$defs/d"}], "$defs": {"d": {"required": ["too"]}}},
    ),
    "one below another that is open": _about(
        "send", {"properties": {"more": {"required": ["x"]}, "to": {"required": ["mial"]}}}
    ),
    "one below a name alone": _about(
        "send", {"properties": {"to": True, "tags": {"items": True}}, "required": ["too"]}
    ),
    "one that the tool has not": _about("negative", {"required": ["a", "b"]}),
    "one in what is read twice": _about("twice", {"properties": {"a": {"required": ["x", "y", "z"]}}}),
    "one of a tool without a schema": {
        "intents": [{"id": "x", "tools": [{"match": "none", "server": "q"}], "schema": {"required": ["x"]}}]
    },
    "one in all of": _about("send", {"allOf": [{"properties": {"to": {}}}, {"required": ["too"]}]}),
    "one in if": _about("send", {"if": {"required": ["too"]}, "then": {"required": ["tow"]}, "else": False}),
    "one in not": _about("send", {"not": {"required": ["too"]}}),
    "one by reference": _about("send", {"$ref": "#/$defs/d", "$defs": {"d": {"required": ["too"]}}}),
    "one by two references": _about(
        "send",
        {"$ref": "#/$defs/d", "$defs": {"d": {"$ref": "#/$defs/e"}, "e": {"required": ["too"]}}},
    ),
    "one that depends": _about("send", {"dependentRequired": {"to": ["too"], "a/b": ["to"]}}),
    "one whose schema depends": _about("send", {"dependentSchemas": {"a~b": {"required": ["to", "too"]}}}),
    "one below a reference of the tool": _about("send", {"properties": {"far": {"required": ["naer"]}}}),
    "one in either": _about("send", {"properties": {"either": {"required": ["a", "b", "c"]}}}),
    "one below what is shut": _about("send", {"properties": {"shut": {"required": ["a"]}}}),
    "one of a glob": _about("sen*", {"required": ["to", "when", "tags", "nowhere"]}),
    "one of a protected rule": _about("send", {"required": ["too"]}, kind="protected"),
    "one of a resource": {
        "intents": [
            {"id": "x", "resources": ["a:*"], "schema": {"required": ["uri", "url"], "properties": {"u": {}}}}
        ]
    },
    "two rules": {
        "intents": [{"id": "z", "tools": ["send"], "schema": {"required": ["too"]}}],
        "protected": [{"id": "b", "tools": ["send"], "schema": {"required": ["tow"]}}],
    },
    "whatever is below any": _about("send", {"properties": {"any": {"required": ["x"]}}}),
    "whatever is below more": _about("send", {"properties": {"more": {"required": ["x"]}}}),
    "whatever is below typed": _about("send", {"properties": {"typed": {"required": ["x"]}}}),
    "whatever is below named": _about("send", {"properties": {"named": {"required": ["x"]}}}),
    "whatever is below free": _about("send", {"properties": {"free": {"required": ["x"]}}}),
    "of tools that say nothing": {
        "intents": [{"id": "x", "tools": [{"match": "*", "server": "q"}], "schema": {"required": ["x"]}}]
    },
    "of no tool": _about("gone", {"required": ["x"]}),
    "of no schema": {"protected": [{"id": "x", "tools": ["send"]}]},
}
