"""The application: routes, the headers of every answer, and how errors are told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import urlencode

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from ftsec_audit.errors import FtsecError
from ftsec_audit.service import api, hooks, pages
from ftsec_audit.service.asking import Refused
from ftsec_audit.service.state import Service
from ftsec_audit.version import VERSION

_FOR_PROGRAMS = ("/api/", "/webhooks/", "/metrics", "/healthz", "/readyz")
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "frame-src 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # not no-referrer: browsers would then hide where a form comes from
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def create(service: Service) -> FastAPI:
    app = FastAPI(title="ftsec-audit", version=VERSION, docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(hooks.router(service))
    app.include_router(api.router(service))
    app.include_router(pages.entrance(service))
    app.include_router(pages.router(service))

    @app.middleware("http")
    async def guarded(request: Request, next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await next(request)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        service.metrics.requests.labels(response.status_code).inc()
        return response

    @app.exception_handler(Refused)
    def refused(request: Request, error: Refused) -> Response:
        return _answer(request, error.status, error.reason)

    @app.exception_handler(FtsecError)
    def unavailable(request: Request, error: FtsecError) -> Response:
        return _answer(request, 503, str(error))

    @app.exception_handler(HTTPException)
    def unknown(request: Request, error: HTTPException) -> Response:
        return _answer(request, error.status_code, error.detail)

    return app


def _answer(request: Request, status: int, reason: str) -> Response:
    """For programs as JSON, for people as a page; who is not signed in is asked to."""
    path = request.url.path
    if path.startswith(_FOR_PROGRAMS) or "text/html" not in request.headers.get("accept", ""):
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
        return JSONResponse({"error": reason}, status_code=status, headers=headers)
    if status == 401:
        asked = f"{path}?{request.url.query}" if request.url.query else path
        return RedirectResponse(f"/login?{urlencode({'next': asked})}", status_code=303)
    return pages.page("error", status=status, reason=reason, code=status)
