"""`guard verify FILE`: check something of Guard's offline, with public keys only."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import click

from guard.artifact.verify import ArtifactRefused, authentic
from guard.cli.auditing import Progress, checkpoint_option, progress_option, read_kept, tell
from guard.cli.shared import EPILOG, NO, emit, home_option, json_option, told, when
from guard.config.home import open_home
from guard.core.canonical import NotIJson, NotJson, b64, read
from guard.core.errors import GuardError
from guard.core.keys import KeySet
from guard.lineage import merkle, proof
from guard.lineage.audit import audit
from guard.lineage.checkpoint import VerifierKey, open_checkpoint, parse_vkey
from guard.lineage.entry import parse

SQLITE: Final = b"SQLite format 3\x00"
PROOF: Final = b"c2sp.org/tlog-proof@v1\n"
MAX_BYTES: Final = 1024 * 1024


@click.command(epilog=EPILOG)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--vkey", "vkeys", multiple=True, help="A trusted checkpoint key; repeatable. Default: the home's."
)
@click.option("--jwks", type=click.Path(path_type=Path), help="Trusted artifact keys. Default: the home's.")
@checkpoint_option
@progress_option
@home_option
@json_option
def verify(
    *,
    file: Path,
    vkeys: tuple[str, ...],
    jwks: Path | None,
    kept: tuple[Path, ...],
    progress: bool | None,
    home: Path,
    as_json: bool,
) -> None:
    """Check a lineage database, a proof, a checkpoint or an artifact, by what FILE holds.

    An artifact is checked for its signature only: whether it still permits anything is for the
    server that it names.
    """
    with told():
        start = _start(file)
        if start.startswith(SQLITE):
            trusted = _vkeys(vkeys, home)
            with Progress(progress) as told_how_far:
                report = audit(file, trusted, kept=read_kept(kept, trusted), progress=told_how_far)
            tell(report, as_json=as_json)
            return
        if kept:
            raise GuardError("--checkpoint is for a lineage database", where=str(file))
        try:
            value, lines = _small(file, start, vkeys, jwks, home)
        except (ArtifactRefused, proof.NotIncluded) as error:
            emit({"sound": False, "what": error.what}, [f"WRONG: {error.what}"], as_json=as_json)
            sys.exit(NO)
        emit({"sound": True, **value}, lines, as_json=as_json)


def _start(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_BYTES)
    except OSError as error:
        raise GuardError(
            f"cannot be read: {error.strerror}", where=str(file), remedy="give a file that you may read"
        ) from None


def _small(
    file: Path, data: bytes, vkeys: tuple[str, ...], jwks: Path | None, home: Path
) -> tuple[dict[str, Any], list[str]]:
    if data.startswith(PROOF):
        found = proof.verify(data, _vkeys(vkeys, home))
        leaf = parse(found.leaf)
        value = {
            "index": found.index,
            "size": found.checkpoint.size,
            "origin": found.checkpoint.origin,
            "kind": leaf.kind.value,
            "at": leaf.at,
            "leaf_hash": b64(merkle.leaf_hash(found.leaf)),
        }
        lines = [f"entry {found.index} of {found.checkpoint.size} in {found.checkpoint.origin}:"]
        return value, [*lines, f"  {leaf.kind} at {when(leaf.at)}", "the proof verifies"]
    if data.strip().count(b".") == 2 and data.startswith(b"eyJ"):  # noqa: PLR2004 - a compact JWS
        claims, kid = authentic(data.strip(), _jwks(jwks, home))
        lines = [f"{name}: {claims[name]}" for name in ("iss", "aud", "iat", "exp", "scope", "tctx")]
        return {"claims": claims, "kid": kid}, [*lines, "the signature verifies"]
    if b"\n\n\xe2\x80\x94 " not in data:
        raise GuardError(
            "this is nothing that Guard signs",
            where=str(file),
            remedy="give a lineage database, a .tlog-proof, a checkpoint or an artifact",
        )
    signed = open_checkpoint(data, _vkeys(vkeys, home))
    value = {"origin": signed.origin, "size": signed.size, "root_sha256": b64(signed.root)}
    return value, [f"{signed.origin}: {signed.size} entries", "the checkpoint verifies"]


def _vkeys(texts: tuple[str, ...], home: Path) -> list[VerifierKey]:
    return [parse_vkey(text) for text in texts or (open_home(home, make=False).vkey,)]


def _jwks(path: Path | None, home: Path) -> KeySet:
    if path is None:
        return open_home(home, make=False).keys
    try:
        return KeySet.from_jwks(read(path.read_bytes()))
    except (OSError, NotJson, NotIJson) as error:
        raise GuardError(f"cannot be read: {error}", where=str(path)) from None
