"""How a policy's bytes become one that decides. Digest, parse and tests are of the same bytes."""

from __future__ import annotations

from pydantic import ValidationError

from guard.core.canonical import sha256
from guard.policy.assembly import assemble
from guard.policy.findings import explain_invalid
from guard.policy.language import PolicyDocument
from guard.policy.reading import read
from guard.policy.rules import Policy


def load(data: bytes, *, name: str) -> Policy:
    """Read a policy, without its cases.

    Args:
        data: the bytes of the file, YAML or JSON; the digest is of exactly these.
        name: what to call them in messages.

    Raises:
        GuardError: the first thing that is wrong, with its line and what to do.
    """
    text = read(data, name=name)
    try:
        document = PolicyDocument.model_validate(text.value)
    except ValidationError as error:
        raise explain_invalid(error, text, PolicyDocument) from None
    return assemble(document, text, sha256(data))
