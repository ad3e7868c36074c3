"""Public parts of the keys that replicas sign artifacts with, for whoever checks one and asks any of them.

A replica says which key it uses, again and again; what nobody says any more is forgotten a little after the
last artifact of it has ended. So a key is changed in one replica after the other, and one that leaked is
gone soon. A row counts only with its MAC under a secret that is in every home and not in the database, over
the key and until when it is known: who can write there can neither add a key nor keep one that has gone.
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
_CONTEXT: Final = b"guard shared artifact keys, version 2"

_NOW: Final = "extract(epoch FROM clock_timestamp())::bigint"
_UNTIL: Final = f"SELECT {_NOW} + %s"
_SAY: Final = (
    f"WITH gone AS (DELETE FROM artifact_keys WHERE until < {_NOW} - %s)"  # noqa: S608 - constants
    " INSERT INTO artifact_keys (kid, jwk, mac, until) VALUES (%s, %s, %s, %s)"
    " ON CONFLICT (kid) DO UPDATE SET jwk = excluded.jwk, mac = excluded.mac, until = excluded.until"
    " RETURNING 1"
)
# Nobody says a key for longer than SAID_SECONDS: a row that claims more is not looked at.
_KNOWN: Final = f"SELECT jwk, mac, until FROM artifact_keys WHERE until > {_NOW} AND until <= {_NOW} + %s"  # noqa: S608


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
        until = int((self._reader.row(_UNTIL, SAID_SECONDS) or (0,))[0])
        mac = self._mac(text, until)
        self._reader.rows(_SAY, SAID_SECONDS, jwk["kid"], text.decode(), mac, until)
        self._said = time.monotonic()

    def known(self) -> list[dict[str, Any]]:
        """The public keys that replicas sign with, as JWKs. Raises Away."""
        if time.monotonic() - self._read >= REMEMBERED_SECONDS:
            rows = self._reader.rows(_KNOWN, SAID_SECONDS)
            self._known = [
                orjson.loads(text)
                for text, mac, until in rows
                if hmac.compare_digest(self._mac(text.encode(), until), bytes(mac))
            ]
            self._read = time.monotonic()
        return self._known

    def _mac(self, text: bytes, until: int) -> bytes:
        return hmac.new(self._key, canonical([until, text.decode()]), hashlib.sha256).digest()
