"""Who is out of use types nothing into a server either."""

from __future__ import annotations

from pathlib import Path

from guard.config.home import record
from guard.identity.api_keys import ISSUER
from guard.lineage.effects import principal_target
from guard.lineage.entry import Kind
from guard.lineage.store import Contain, Release
from tests.proxy.features import ERAS, Estates, servers
from tests.proxy.scene import reason


@ERAS
async def test_a_contained_caller_sends_a_server_nothing_by_way_of_completion(
    tmp_path: Path, version: str
) -> None:
    """A completion carries whatever is typed; it is refused as its calls are, and works again afterwards."""
    estate = Estates(tmp_path / "estate", *servers(version, "stdio"))
    target = principal_target(ISSUER, "ada")
    secret = {
        "ref": {"type": "ref/prompt", "name": "hello"},
        "argument": {"name": "who", "value": "the secret"},
    }
    key = estate.key("ada")
    async with estate.guarded(), estate.party(version, key) as party:
        with estate.store() as store:
            record(store, Kind.CONTAINED, {"target": target}, Contain("principal", target))
        assert reason(await party.do({"answer": {"content": []}})) == "principal-contained"
        found = await party.ask("completion/complete", secret)
        assert found["error"]["data"] == {"reason": "principal-contained"}
        assert estate.about("the secret") == []
        with estate.store() as store:
            record(store, Kind.RELEASED, {"target": target}, Release("principal", target))
        assert "result" in await party.ask("completion/complete", secret)
