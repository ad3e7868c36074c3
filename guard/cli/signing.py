"""`guard policy keygen`, `sign` and `verify`: policies that nobody changes unseen."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from guard.cli.shared import EPILOG, NO, emit, json_option, told
from guard.config.home import signing_key
from guard.config.policies import load_policy, read_file, read_keys, read_policy, signature_beside
from guard.core.canonical import write
from guard.core.errors import GuardError
from guard.core.keys import KeySet
from guard.policy.signing import Unsigned, sign

FILE: Final = click.Path(path_type=Path)


@click.command(epilog=EPILOG)
@click.argument("file", type=FILE)
@json_option
def keygen(file: Path, as_json: bool) -> None:
    """Make a key that signs policies, in FILE, if there is none; print its public part as a JWK set.

    Keep FILE away from where Guard runs. What is printed goes into the file that `policy_keys` names.
    """
    with told():
        keys = KeySet([signing_key(file).public])
    emit(keys.jwks(), [write(keys.jwks()).decode()], as_json=as_json)


@click.command("sign", epilog=EPILOG)
@click.argument("file", type=FILE)
@click.option("--key", "key", required=True, type=FILE, help="A file that `guard policy keygen` made.")
@json_option
def sign_policy(file: Path, key: Path, as_json: bool) -> None:
    """Sign a policy: FILE.jws then stands beside it. Its cases are run first."""
    with told():
        if not key.is_file():  # a name that was mistyped makes no key
            raise GuardError("no such key", where=str(key), remedy="make one: guard policy keygen FILE")
        data, beside = read_file(file), signature_beside(file)
        read_policy(file, data)
        signer = signing_key(key)
        new = beside.with_name(beside.name + ".new")
        try:
            new.write_bytes(sign(data, signer) + b"\n")
            new.replace(beside)  # whole, or not at all
        except OSError as error:
            raise GuardError(f"cannot be written: {error.strerror}", where=str(beside)) from None
    about = {"file": str(beside), "kid": signer.public.kid}
    emit(about, [f"{beside}: signed by {signer.public.kid}"], as_json=as_json)


@click.command("verify", epilog=EPILOG)
@click.argument("file", type=FILE)
@click.option("--keys", required=True, type=FILE, help="A JWK set: whose signatures count.")
@json_option
def verify_policy(file: Path, keys: Path, as_json: bool) -> None:
    """Hold a policy against the signature beside it."""
    with told():
        try:
            loaded = load_policy(file, read_keys(keys), require_signed=True)
        except Unsigned as refused:
            emit({"signed": False, "what": refused.what}, str(refused).split("\n"), as_json=as_json)
            raise SystemExit(NO) from None
    ref = loaded.ref
    about = {"signed": True, "id": ref.id, "version": ref.version, "sha256": ref.sha256}
    emit(about, [f"{ref.id} version {ref.version}: signed, sha256 {ref.sha256}"], as_json=as_json)
