"""Routes for those who tell of uploads, and for those who watch over the service."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse

from ftsec_audit.errors import UsageError
from ftsec_audit.service.asking import Refused, body_of
from ftsec_audit.service.queue import Replayed
from ftsec_audit.service.state import Service
from ftsec_audit.service.webhooks import from_hub, from_mlflow


def router(service: Service) -> APIRouter:
    routes = APIRouter()

    @routes.post("/webhooks/hub", status_code=202)
    async def hub(request: Request) -> JSONResponse:
        """A delivery of the Hub: scan what was committed."""
        return await _received(service, request, "hub", service.hub_secret)

    @routes.post("/webhooks/mlflow", status_code=202)
    async def mlflow(request: Request) -> JSONResponse:
        """A delivery of MLflow: scan the new version of a model."""
        return await _received(service, request, "mlflow", service.mlflow_secret)

    @routes.get("/healthz")
    def healthz() -> JSONResponse:
        """Whether the process answers."""
        return JSONResponse({"status": "ok"})

    @routes.get("/readyz")
    def readyz() -> JSONResponse:
        """Whether everything it needs answers; names parts only, as anybody may ask."""
        problems = sorted(service.problems())
        return JSONResponse({"ready": not problems, "problems": problems}, 503 if problems else 200)

    return routes


async def _received(service: Service, request: Request, origin: str, secret: str) -> JSONResponse:
    try:
        if not secret:
            raise Refused(status=404, reason=f"the service was started without a secret for {origin}")
        body = await body_of(request)
        queued = await run_in_threadpool(_queued, service, origin, dict(request.headers), body, secret)
    except Refused as refused:
        service.metrics.webhooks.labels(origin, refused.status).inc()
        raise
    service.metrics.webhooks.labels(origin, 202).inc()
    return JSONResponse({"queued": queued}, status_code=202)


def _queued(service: Service, origin: str, headers: dict[str, str], body: bytes, secret: str) -> list[str]:
    """What waits now because of a delivery. Raises Refused."""
    try:
        if origin == "hub":
            return service.queue.put(from_hub(headers, body, secret), origin)
        delivery, references = from_mlflow(headers, body, secret)
        return service.queue.put(references, origin, delivery=f"{origin}:{delivery}")
    except Replayed:
        raise Refused(status=409, reason="this delivery was received before") from None
    except UsageError as error:
        raise Refused(status=422, reason=error.what) from error
