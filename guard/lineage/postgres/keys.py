"""Public parts of the keys that replicas sign artifacts with, for whoever checks one and asks any of them.

A replica says which key it uses, again and again; what nobody says any more is forgotten a little after the
last artifact of it has ended. So a key is changed in one replica after the other, and one that leaked is
gone soon. A row counts only with its MAC under a secret that is in every home and not in the database:
who can write there cannot add a key of its own.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Any, Final

import orjson

from guard.core.canonical import canonical
from guard.lineage.postgres.reading import Reader

SAID_SECONDS: Final = 180
"""How long a key is known that nobody says any more: more than an artifact lives."""
AGAIN_SECONDS: Final = 30.0
REMEMBERED_SECONDS: Final = 1.0
_CONTEXT: Final = b"guard shared artifact keys, version 1"

_SAY: Final = (
    "WITH gone AS (DELETE FROM artifact_keys WHERE until < extract(epoch FROM clock_timestamp()) - %s)"
    " INSERT INTO artifact_keys (kid, jwk, mac, until)"
    " VALUES (%s, %s, %s, extract(epoch FROM clock_timestamp())::bigint + %s)"
    " ON CONFLICT (kid) DO UPDATE SET jwk = excluded.jwk, mac = excluded.mac, until = excluded.until"
    " RETURNING 1"
)
_KNOWN: Final = "SELECT jwk, mac FROM artifact_keys WHERE until > extract(epoch FROM clock_timestamp())"


class SharedKeys:
    """The artifact keys of all replicas.

    Args:
        reader: through which connection.
        secret: what every home has and the database has not.
    """

    def __init__(self, reader: Reader, secret: bytes) -> None:
        self._reader = reader
        self._key = hmac.digest(secret, _CONTEXT, "sha256")
        self._said = self._read = float("-inf")
        self._known: list[dict[str, Any]] = []

    def say(self, jwk: Mapping[str, Any]) -> None:
        """This replica signs with this key. To be called often; it writes now and then. Raises Away."""
        if time.monotonic() - self._said < AGAIN_SECONDS:
            return
        text = canonical({**jwk})
        self._reader.rows(_SAY, SAID_SECONDS, jwk["kid"], text.decode(), self._mac(text), SAID_SECONDS)
        self._said = time.monotonic()

    def known(self) -> list[dict[str, Any]]:
        """The public keys that replicas sign with, as JWKs. Raises Away."""
        if time.monotonic() - self._read >= REMEMBERED_SECONDS:
            rows = [(text.encode(), bytes(mac)) for text, mac in self._reader.rows(_KNOWN)]
            self._known = [
                orjson.loads(text) for text, mac in rows if hmac.compare_digest(self._mac(text), mac)
            ]
            self._read = time.monotonic()
        return self._known

    def _mac(self, text: bytes) -> bytes:
        return hmac.new(self._key, text, hashlib.sha256).digest()
