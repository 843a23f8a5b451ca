"""The JSON API over the store, for whoever has the token."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ftsec_audit.batch.record import Record
from ftsec_audit.batch.store import is_name
from ftsec_audit.service.access import SignedIn
from ftsec_audit.service.asking import Refused, body_of, hub_reference, wanted
from ftsec_audit.service.metrics import CONTENT_TYPE
from ftsec_audit.service.state import Service

_MAX_BODY = 64 << 10


class Wanted(BaseModel):
    """What `POST /api/scans` takes."""

    references: list[str] = Field(min_length=1, max_length=1000)


def router(service: Service) -> APIRouter:
    routes = APIRouter(dependencies=[Depends(SignedIn(service))])

    @routes.get("/api/reports")
    def reports(request: Request) -> JSONResponse:
        """Stored documents in short: verdict, rule, since, text, repository, order, limit, offset."""
        search = wanted(request.query_params)
        total = service.index.count(search)
        rows = [asdict(row) | {"repository": row.repository} for row in service.index.rows(search)]
        return JSONResponse({"total": total, "reports": rows})

    @routes.get("/api/reports/{name}")
    def report(name: str) -> Response:
        """One stored document, whole."""
        return Response(record_of(service, name).render(), media_type="application/json")

    @routes.get("/api/queue")
    def queue() -> JSONResponse:
        """How much waits, and what became of the latest references."""
        counts = {str(state): n for state, n in service.queue.counts().items()}
        return JSONResponse({"counts": counts, "items": [asdict(each) for each in service.queue.recent()]})

    @routes.post("/api/scans", status_code=202)
    async def scans(request: Request) -> JSONResponse:
        """Put references to the Hub into the queue; only with `--allow-scan`."""
        body = await body_of(request, most=_MAX_BODY)
        try:
            asked = Wanted.model_validate_json(body)
        except ValidationError as error:
            raise Refused(status=422, reason=f'the body is {{"references": […]}}: {_first(error)}') from error
        entered = await run_in_threadpool(ask, service, asked.references)
        return JSONResponse({"queued": entered}, status_code=202)

    @routes.get("/metrics")
    def metrics() -> Response:
        """For Prometheus."""
        return Response(service.metrics.render(), media_type=CONTENT_TYPE)

    return routes


def record_of(service: Service, name: str) -> Record:
    """Raises Refused when there is no such document."""
    record = service.store.get(name) if is_name(name) else None
    if record is None:
        raise Refused(status=404, reason="no such document in the store")
    return record


def ask(service: Service, references: list[str]) -> list[str]:
    """Put references into the queue; returns those that wait now. Raises Refused."""
    if not service.allow_scan:
        raise Refused(status=403, reason="read-only: the service was started without --allow-scan")
    return service.queue.put([hub_reference(each) for each in references], "api", again=True)


def _first(error: ValidationError) -> Any:
    return error.errors()[0]["msg"]
