"""Who asks: a bearer of the token, a browser with a session, or nobody."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import Request

from ftsec_audit.service.asking import Refused
from ftsec_audit.service.credentials import COOKIE
from ftsec_audit.service.state import Service


class SignedIn:
    """A dependency of routes; raises Refused.

    What a browser sends by itself, its cookie, is enough to look. To change something the request must also
    come from a page of this server.
    """

    def __init__(self, service: Service) -> None:
        self._credentials = service.credentials

    def __call__(self, request: Request) -> None:
        if self._credentials.is_bearer(request.headers.get("authorization", "")):
            return
        if not self._credentials.is_session(request.cookies.get(COOKIE, "")):
            raise Refused(status=401, reason="sign in, or send the token: Authorization: Bearer …")
        if request.method not in ("GET", "HEAD") and not from_own_page(request):
            raise Refused(status=403, reason="this request came from a page of another server")


def from_own_page(request: Request) -> bool:
    origin = urlsplit(request.headers.get("origin", ""))
    return bool(origin.netloc) and origin.netloc == request.headers.get("host", "")
