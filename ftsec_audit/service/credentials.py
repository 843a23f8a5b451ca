"""Who may see the dashboard: bearers of the token, and browsers that have shown it once.

A session is a time and its HMAC under a key made from the token: nothing is kept on the server, a restart
ends no session, and another token ends all of them.
"""

from __future__ import annotations

import hashlib
import hmac
import time

from ftsec_audit.errors import UsageError
from ftsec_audit.service.asking import same

COOKIE = "ftsec-audit-session"
LIFETIME = 12 * 3600
SHORTEST = 16


class Credentials:
    """Raises UsageError for a token that could be guessed."""

    def __init__(self, token: str) -> None:
        if len(token) < SHORTEST or not token.isascii() or not token.isprintable():
            raise UsageError(
                f"a token has at least {SHORTEST} printable ASCII characters", hint="openssl rand -hex 24"
            )
        self._token = token
        self._key = hmac.new(token.encode(), b"ftsec-audit session 1", hashlib.sha256).digest()

    def is_token(self, given: str) -> bool:
        return same(given, self._token)

    def is_bearer(self, authorization: str) -> bool:
        scheme, _, token = authorization.partition(" ")
        return scheme.lower() == "bearer" and self.is_token(token.strip())

    def session(self, *, now: float | None = None) -> str:
        """The value of a new cookie."""
        ends = int((time.time() if now is None else now) + LIFETIME)
        return f"{ends}.{self._signature(ends)}"

    def is_session(self, cookie: str, *, now: float | None = None) -> bool:
        ends, _, signature = cookie.partition(".")
        if not (ends.isascii() and ends.isdigit() and len(ends) < 15):
            return False
        return same(signature, self._signature(int(ends))) and (time.time() if now is None else now) < int(
            ends
        )

    def _signature(self, ends: int) -> str:
        return hmac.new(self._key, str(ends).encode(), hashlib.sha256).hexdigest()
