"""A tools/call goes at the message level: the SDK's sessions and transports are not on its way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from guard.proxy import eras
from tests.proxy.scene import LEGACY, MODERN

WATCHED = """
import asyncio, json, sys
from pathlib import Path
from tests.proxy.scene import Scene

imported = sorted(name for name in sys.modules if name.partition(".")[0] in {"mcp", "mcp_types", "anyio"})
entered = set()


def profile(frame, event, argument):
    module = frame.f_globals.get("__name__", "")
    if event == "call":
        entered.add(module)


async def calls(version):
    scene = Scene(Path(sys.argv[1]), era=sys.argv[2])
    scene.pin()
    async with scene.guarded(version) as client:
        sys.setprofile(profile)
        try:
            for n in range(3):
                assert "isError" not in (await client.call(n=n))["result"]
            assert (await client.call(n=13))["result"]["isError"] is True
        finally:
            sys.setprofile(None)


asyncio.run(calls(sys.argv[3]))
print(json.dumps({"imported": imported, "entered": sorted(entered)}))
"""


@pytest.mark.parametrize(("version", "era"), [(MODERN, "modern"), (LEGACY, "legacy")])
def test_the_way_of_a_call_never_enters_the_sdks_server_or_client(
    tmp_path: Path, version: str, era: str
) -> None:
    """No function of mcp.server, mcp.client, their sessions or anyio's streams runs for a call."""
    command = [sys.executable, "-c", WATCHED, str(tmp_path / "scene"), era, version]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    found = json.loads(done.stdout)
    assert "guard.proxy.flow" in found["entered"]
    assert "guard.proxy.upstream" in found["entered"]
    sdk = {name for name in found["entered"] if name.partition(".")[0] in {"mcp", "anyio", "pydantic"}}
    assert sdk <= {"mcp.shared.inbound"}, "the ladder for a modern envelope is all of it"
    assert version == MODERN or sdk == set()


def test_wiring_a_guard_imports_none_of_the_sdk() -> None:
    """What `guard run` loads before it serves has no part of the SDK in it."""
    code = (
        "import sys, guard.config.run;"
        "print([name for name in sys.modules if name.partition('.')[0] in {'mcp', 'mcp_types', 'anyio'}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_under_guard_names_the_sdks_server_or_client() -> None:
    """Not even late: the one import of the SDK is the ladder's."""
    guard = Path(eras.__file__).parents[1]
    naming = {
        str(path.relative_to(guard)): line.strip()
        for path in guard.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip().startswith(("import mcp", "from mcp"))
    }
    assert naming == {"proxy/eras.py": "from mcp.shared import inbound  # noqa: PLC0415 - see above"}


def test_the_names_of_the_eras_are_the_sdks() -> None:
    """What Guard writes out to load quickly is what the specification's own package says."""
    import mcp_types
    from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS

    assert eras.PROTOCOL_VERSION == mcp_types.PROTOCOL_VERSION_META_KEY
    assert eras.CLIENT_INFO == mcp_types.CLIENT_INFO_META_KEY
    assert eras.CLIENT_CAPABILITIES == mcp_types.CLIENT_CAPABILITIES_META_KEY
    assert eras.SERVER_INFO == mcp_types.SERVER_INFO_META_KEY
    assert eras.UNSUPPORTED_VERSION == mcp_types.UNSUPPORTED_PROTOCOL_VERSION
    assert set(eras.MODERN) == set(MODERN_PROTOCOL_VERSIONS)
    assert set(eras.HANDSHAKE) <= set(HANDSHAKE_PROTOCOL_VERSIONS)
