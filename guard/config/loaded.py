"""A configuration and its policy, read together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from guard.config.policies import Looks, reads
from guard.config.settings import Settings, load_settings
from guard.core.errors import GuardError
from guard.policy.rules import Policy

LAX: Final = "normal"
"""The durability that is none."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What was read at the start, or at the last reload.

    Attributes:
        settings: the configuration.
        policy: the policy that it names.
        looks: what its files looked like before they were read.
    """

    settings: Settings
    policy: Policy
    looks: Looks | None = None


def load(path: Path, *, bench: bool = False) -> Loaded:
    """Read a configuration and its policy.

    Args:
        path: the configuration.
        bench: whether it is for a benchmark: only then may the log be one that a power cut shortens.

    Raises:
        GuardError: one of the two is not what it should be.
    """
    looks = reads([path.absolute()])
    settings = load_settings(path)
    looks = {**reads(settings.policies.files()), **looks}
    if settings.durability == LAX and not bench:
        raise GuardError(
            f"`{LAX}` loses what was recorded last when the power goes, and is for benchmarks only",
            where=f"{path}: durability",
            remedy="write `queued` or `strict`; a benchmark is started with --bench",
        )
    return Loaded(settings, settings.policies.load(), looks)
