"""What a tool server sees of Guard's environment: an allow-list, and never Guard's own key."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest

from guard.config.launch import KEY_VARIABLE, PASSED_ON, environment
from guard.core.errors import GuardError
from guard.proxy.upstream import ServerError
from tests.proxy.pairs import until
from tests.proxy.scene import PYTHON, Scene
from tests.proxy.test_seven_conditions import a_key

SECRETS = {"AWS_SECRET_ACCESS_KEY": "s3cret", "GUARD_HOME": "/x", "LD_PRELOAD_NOT": "x", "PYTHONPATH": "/x"}


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


def test_the_environment_is_an_allow_list(secrets: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The few that every program needs, and what was named; no more."""
    monkeypatch.setenv(KEY_VARIABLE, "guard_secret")
    assert environment([]) == {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    named = environment(["AWS_SECRET_ACCESS_KEY", "MODE=a=b", "EMPTY=", "NOT_SET_ANYWHERE"])
    assert {name: value for name, value in named.items() if name not in PASSED_ON} == {
        "AWS_SECRET_ACCESS_KEY": "s3cret",
        "MODE": "a=b",
        "EMPTY": "",
    }
    assert not any(name.startswith("GUARD") for name in PASSED_ON)


@pytest.mark.parametrize("named", [KEY_VARIABLE, f"{KEY_VARIABLE}=x"])
def test_guards_own_key_is_never_passed_on(named: str) -> None:
    """Not even when it is asked for."""
    with pytest.raises(GuardError, match="never passed on"):
        environment([named])


async def test_the_process_really_sees_no_more(
    tmp_path: Path, secrets: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read by the tool server itself, started by a Guard that an API key identifies."""
    seen = tmp_path / "seen.json"
    code = f"import json, os; json.dump(dict(os.environ), open({str(seen)!r}, 'w'))"
    scene = Scene(tmp_path / "scene", command=(*PYTHON, "-c", code))
    key, _ = a_key(scene)
    monkeypatch.setenv(KEY_VARIABLE, key)
    with contextlib.suppress(ServerError):  # it ends at once, now or while Guard is taken down
        async with scene.guarded(role=None, timeout=1.0, env=("MODE=test",)):
            await until(seen.exists)
    found = json.loads(seen.read_text())
    assert found.keys() - {"LC_CTYPE"} <= {*PASSED_ON, "MODE"}
    assert found["MODE"] == "test"
    assert key not in str(found)
    assert "s3cret" not in str(found)
