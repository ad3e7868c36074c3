"""Who is not who they should be, and what comes from where it should not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from guard.config.home import record
from guard.identity.api_keys import mint
from guard.lineage.entry import Kind
from guard.lineage.store import SaveKey
from tests.proxy.outsider import LIMITS, VERSIONS, Outsider, call, enveloped, outsider
from tests.proxy.raw_http import Answer
from tests.proxy.scene import LEGACY, MODERN

BODY = call(True)  # noqa: FBT003 - an era
SIZE = f"Content-Length: {len(BODY)}"
TOOLS = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": json.loads(enveloped(True))}})  # fmt: skip  # noqa: E501, FBT003


def made(at: Outsider, **of: Any) -> str:
    """A key that stands in the store."""
    text, kept = mint(os.urandom(30), tenant="default", principal="p", role="caller", created=0, **of)
    with at.estate.store() as store:
        record(store, Kind.API_KEY, {"key_id": kept.key_id}, SaveKey(kept))
    return text


def revoked(at: Outsider) -> str:
    text = at.estate.key("gone")
    at.estate.revoke(text)
    return text


def unknown() -> str:
    return mint(os.urandom(30), tenant="default", principal="p", role="caller", created=0)[0]


CREDENTIALS: dict[str, Any] = {
    "none": lambda at: None,
    "an empty field": lambda at: "",
    "a scheme alone": lambda at: "Bearer",
    "no key": lambda at: "Bearer ",
    "another scheme": lambda at: f"Basic {at.key}",
    "a longer scheme": lambda at: f"Bearers {at.key}",
    "the key alone": lambda at: at.key,
    "a tab between": lambda at: f"Bearer\t{at.key}",
    "malformed": lambda at: "Bearer guard_x",
    "in capitals": lambda at: f"Bearer {at.key.upper()}",
    "something behind": lambda at: f"Bearer {at.key} x",
    "two keys": lambda at: f"Bearer {at.key}, Bearer {at.key}",
    "in quotes": lambda at: f'Bearer "{at.key}"',
    "a wrong checksum": lambda at: f"Bearer {at.key[:-1]}{'a' if at.key[-1] != 'a' else 'b'}",
    "another secret": lambda at: f"Bearer {unknown()}",
    "the id of one, the secret of another": lambda at: f"Bearer {at.key[:23]}{unknown()[23:]}",
    "revoked": lambda at: f"Bearer {revoked(at)}",
    "expired": lambda at: f"Bearer {made(at, expires=1)}",
    "beyond ASCII": lambda at: f"Bearer {at.key[:-1]}\xe9",
    "very long": lambda at: "Bearer " + "guard_" * 500,
}  # fmt: skip


def refused(answer: Answer, *, given: bool) -> None:
    """401 with a challenge, an error only where a credential was given (RFC 6750 section 3.1), no tool."""
    challenge = answer.headers["www-authenticate"]
    assert answer.status == 401
    assert challenge == 'Bearer realm="guard"' + (', error="invalid_token"' if given else "")
    assert b"echo" not in answer.body
    assert answer.message()["error"]["code"] == 4401


@VERSIONS
@pytest.mark.parametrize("credential", CREDENTIALS)
async def test_nobody_without_a_good_key_learns_anything(
    tmp_path: Path, credential: str, version: str
) -> None:
    """No list, no call, no session, no entry; each is counted, and shown in /proof."""
    async with outsider(tmp_path, "http", version, limits=LIMITS) as at:
        value = CREDENTIALS[credential](at)
        before = len(at.estate.entries())
        hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": version}}
        for message in (BODY, TOOLS.encode(), hello, b"{", b""):
            answer = await at.nobody(version).post(message, headers={"Authorization": value})
            refused(answer, given=value is not None)
            assert "mcp-session-id" not in answer.headers
        assert len(at.estate.entries()) == before
        counted = (await at.nobody().send("GET", path="/proof")).json()["refusals"]
        assert sum(counted.values()) == 5
        await at.honest()


PLACES: dict[str, dict[str, Any]] = {
    "the URL": {"path": "/mcp?authorization=Bearer%20{key}&access_token={key}&key={key}"},
    "user info": {"headers": {"X-Original-URL": "http://{key}@127.0.0.1/mcp"}},
    "another field": {"headers": {"X-Api-Key": "{key}", "Proxy-Authorization": "Bearer {key}"}},
    "a cookie": {"headers": {"Cookie": "authorization=Bearer {key}; key={key}"}},
    "a forwarded user": {"headers": {"X-Forwarded-User": "someone", "X-Remote-User": "someone"}},
    "a session id": {"headers": {"Mcp-Session-Id": "{key}"}},
    "_meta": {"meta": {"authorization": "Bearer {key}", "dev.guard-mcp/key": "{key}"}},
    "the arguments": {"arguments": {"authorization": "Bearer {key}", "key": "{key}"}},
}


@pytest.mark.parametrize("place", PLACES)
async def test_a_key_counts_in_its_place_only(tmp_path: Path, place: str) -> None:
    """Not in the URL, where logs keep it, nor in a field or body that anybody may set."""
    async with outsider(tmp_path, limits=LIMITS) as at:
        given = json.loads(json.dumps(PLACES[place]).replace("{key}", at.key))
        arguments, meta = given.pop("arguments", {}), given.pop("meta", {})
        body = call(True, json.dumps(arguments), meta=enveloped(True, **meta))  # noqa: FBT003 - an era
        refused(await at.nobody().post(body, **given), given=False)
        await at.honest()


async def test_two_authorization_fields_are_none(tmp_path: Path) -> None:
    """Which of the two was meant is not guessed, not even where they agree."""
    async with outsider(tmp_path, limits=LIMITS) as at:
        for other in (at.key, unknown()):
            head = at.head(f"Authorization: Bearer {other}", SIZE)
            assert (await at.client.exchange(head + BODY)).status == 400
            await at.honest()


@VERSIONS
async def test_a_key_that_ends_while_it_is_used(tmp_path: Path, version: str) -> None:
    """A session lives no longer than the key that it is used with."""
    async with outsider(tmp_path, "http", version, limits=LIMITS) as at:
        key = at.estate.key("brief")
        client = at.estate.client(version, key)
        if version == LEGACY:
            await client.greet()
        assert "isError" not in (await client.call("echo"))["result"]
        at.estate.revoke(key)
        refused(await client.request("tools/call", {"name": "echo"}), given=True)
        at.reached += 1
        await at.honest()


@VERSIONS
async def test_a_key_of_another_tenant_sees_nothing_of_this_one(tmp_path: Path, version: str) -> None:
    """It is a key, and a caller of its own tenant, where nothing was pinned: no tool, no call, no session."""
    async with outsider(tmp_path, "http", version, limits=LIMITS) as at:
        stranger = at.estate.client(version, at.estate.key("someone", tenant="other"))
        if version == LEGACY:
            await stranger.greet()
        assert (await stranger.request("tools/list")).message()["result"]["tools"] == []
        about = (await stranger.call("echo"))["result"]
        assert about["isError"] is True
        if version == LEGACY:
            stranger.session = at.client.session
            assert (await stranger.request("tools/list")).status == 404
        await at.honest()
    (denied,) = at.estate.entries(Kind.DENIED)
    assert denied["fields"]["tenant"] == "other"


ROLES: dict[str, dict[str, Any]] = {
    "in header fields": {"headers": {"X-Role": "powerful", "Role": "powerful", "X-User": "admin"}},
    "by a proxy": {"headers": {"X-Forwarded-User": "admin", "X-Remote-User": "admin", "X-Scopes": "more"}},
    "in _meta": {"meta": {"role": "powerful", "dev.guard-mcp/role": "powerful", "user": "admin"}},
    "in the arguments": {"arguments": {"role": "powerful", "scopes": ["more"], "principal": "admin"}},
    "in client info": {"meta": {"io.modelcontextprotocol/clientInfo": {"name": "powerful", "version": "1"}}},
}


@VERSIONS
@pytest.mark.parametrize("place", ROLES)
async def test_a_role_that_is_asserted_is_nobodys(tmp_path: Path, place: str, version: str) -> None:
    """What the key's role may not see stays unknown, and the record names the role of the key."""
    given = ROLES[place]
    async with outsider(tmp_path, "http", version, limits=LIMITS) as at:
        meta = enveloped(at.modern, **given.get("meta", {}))
        body = call(at.modern, json.dumps(given.get("arguments", {})), name='"hidden"', meta=meta)
        answer = (await at.client.post(body, headers=given.get("headers", {}))).message()
        assert answer["result"]["_meta"]["dev.guard-mcp/decision"]["reason"] == "unknown-tool"
        await at.honest()
    (denied,) = at.estate.entries(Kind.DENIED)
    assert (denied["fields"]["role"], denied["fields"]["principal"]) == ("caller", ["api-key", "someone"])


async def test_wrong_keys_are_answered_more_and_more_curtly(tmp_path: Path) -> None:
    """After the share of a minute it is 429 with Retry-After; a valid key from there still passes."""
    async with outsider(tmp_path, limits={**LIMITS, "refusals_per_minute": 2}) as at:
        forged = {
            "X-Forwarded-For": "203.0.113.9",
            "X-Real-IP": "203.0.113.9",
            "Forwarded": "for=203.0.113.9",
        }
        answers = [await at.nobody().post(BODY, headers=forged if n % 2 else {}) for n in range(5)]
        assert [answer.status for answer in answers] == [401, 401, 429, 429, 429]
        assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in answers[2:])
        await at.honest()
        counted = (await at.client.send("GET", path="/proof")).json()["refusals"]
        assert counted == {"no-credential": 5, "rate-limited": 3}


COME_FROM: dict[str, tuple[dict[str, str | None], int]] = {
    "another host": ({"Host": "evil.example"}, 421),
    "a host that begins like ours": ({"Host": "127.0.0.1.evil.example"}, 421),
    "a host that ends like ours": ({"Host": "evil.example.localhost"}, 421),
    "another port": ({"Host": "localhost:1"}, 421),
    "no host": ({"Host": None}, 421),
    "an empty host": ({"Host": ""}, 421),
    "two hosts in one": ({"Host": "127.0.0.1, evil.example"}, 421),
    "user info in the host": ({"Host": "127.0.0.1@evil.example"}, 421),
    "a dot behind": ({"Host": "localhost."}, 421),
    "the address in decimal": ({"Host": "2130706433"}, 421),
    "any address": ({"Host": "0.0.0.0"}, 421),  # noqa: S104 - what a client says
    "a configured host": ({"Host": "guard.example.com"}, 200),
    "a configured host in capitals": ({"Host": "GUARD.example.com"}, 200),
    "one below a configured host": ({"Host": "x.guard.example.com"}, 421),
    "localhost": ({"Host": "localhost"}, 200),
    "another origin": ({"Origin": "http://evil.example"}, 403),
    "the null origin": ({"Origin": "null"}, 403),
    "an empty origin": ({"Origin": ""}, 403),
    "an origin that begins like ours": ({"Origin": "http://localhost.evil.example"}, 403),
    "an address that begins like ours": ({"Origin": "http://127.0.0.1.evil.example"}, 403),
    "an origin that ends like ours": ({"Origin": "http://evil-localhost"}, 403),
    "user info in the origin": ({"Origin": "http://localhost@evil.example"}, 403),
    "a fragment": ({"Origin": "http://evil.example#localhost"}, 403),
    "a path": ({"Origin": "http://localhost/evil"}, 403),
    "two origins": ({"Origin": "http://localhost http://evil.example"}, 403),
    "a file": ({"Origin": "file://"}, 403),
    "an extension": ({"Origin": "chrome-extension://localhost"}, 403),
    "an address beyond ASCII": ({"Origin": "http://127.0.0.\xb2"}, 403),
    "this machine": ({"Origin": "http://localhost:3000"}, 200),
    "a configured origin": ({"Origin": "https://console.example.com"}, 200),
    "a configured origin without s": ({"Origin": "http://console.example.com"}, 403),
    "a configured origin at another port": ({"Origin": "https://console.example.com:8443"}, 403),
    "one below a configured origin": ({"Origin": "https://x.console.example.com"}, 403),
    "one that begins like a configured": ({"Origin": "https://console.example.com.evil.example"}, 403),
    "a forwarded good host": ({"Host": "evil.example", "X-Forwarded-Host": "127.0.0.1"}, 421),
    "a forwarded bad host": ({"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}, 200),
    "Forwarded": ({"Host": "evil.example", "Forwarded": "host=127.0.0.1"}, 421),
}


@pytest.mark.parametrize("case", COME_FROM)
async def test_a_page_elsewhere_cannot_reach_it(tmp_path: Path, case: str) -> None:
    """DNS rebinding and foreign pages are turned away before anybody is asked who they are, at every path."""
    fields, status = COME_FROM[case]
    own: dict[str, Any] = {"hosts": ["guard.example.com"], "origins": ["https://console.example.com"]}
    async with outsider(tmp_path, "http", MODERN, limits=LIMITS, **own) as at:
        answer = await at.client.post(BODY, headers=fields)
        assert answer.status == status
        at.reached += status == 200
        nobody = await at.nobody().post(BODY, headers=fields)
        assert nobody.status == (401 if status == 200 else status)
        for path in ("/health", "/proof", "/.well-known/jwks.json"):
            assert (await at.nobody().send("GET", path=path, headers=fields)).status == status
        assert "access-control-allow-origin" not in answer.headers
        await at.honest()
