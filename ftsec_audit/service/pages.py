"""The dashboard: pages over the store, without a script, behind a session.

Every string is made visible and escaped by the template engine. A report is shown in a frame whose document
may do nothing at all: its own policy and the frame's sandbox both say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

from fastapi import APIRouter, Depends
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from ftsec_audit.batch.index import Filter
from ftsec_audit.batch.job import Row, repository
from ftsec_audit.report import render
from ftsec_audit.report.escape import visible
from ftsec_audit.report.phrases import PASS_MEANS
from ftsec_audit.service.access import SignedIn, from_own_page
from ftsec_audit.service.api import ask, record_of
from ftsec_audit.service.asking import NO_REPORT, Refused, body_of, wanted
from ftsec_audit.service.credentials import COOKIE, LIFETIME
from ftsec_audit.service.state import Service
from ftsec_audit.types import Verdict
from ftsec_audit.version import VERSION

if TYPE_CHECKING:
    from jinja2 import Environment

_PAGE = 50
_MAX_TEXT = 2_000
_MAX_FORM = 64 << 10
_MOST_VERSIONS = 200
_DOWNLOADS = {"json": "application/json", "sarif": "application/json", "markdown": "text/markdown"}
_KEPT = {"Cache-Control": "max-age=3600"}
_DOCUMENT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'self'; sandbox"
)


def router(service: Service) -> APIRouter:
    """The pages that take a session; `entrance` has those that do not."""
    routes = APIRouter(dependencies=[Depends(SignedIn(service))])

    @routes.get("/")
    def results(request: Request) -> Response:
        search = wanted(request.query_params, page=_PAGE)
        values = {name: value for name, value in request.query_params.items() if value and name != "offset"}
        return page(
            "results",
            rows=list(service.index.rows(search)),
            total=service.index.count(search),
            search=search,
            values=values,
            tiles=_tiles(service),
            link=_Links(values),
        )

    @routes.get("/repository")
    def versions(name: str) -> Response:
        rows = list(service.index.rows(wanted_versions(name)))
        if not rows:
            raise Refused(status=404, reason="nothing is stored of this repository")
        return page("repository", name=name, rows=rows, changes=_changes(rows), most=_MOST_VERSIONS)

    @routes.get("/reports/{name}")
    def report(name: str) -> Response:
        row = record_of(service, name).row()
        history = list(service.index.rows(wanted_versions(row.repository, limit=6)))
        return page("report", row=row, history=history, downloads=_DOWNLOADS)

    @routes.get("/reports/{name}/document")
    def document(name: str) -> Response:
        record = record_of(service, name)
        if record.report is None:
            raise Refused(status=404, reason="there is no report of this artifact")
        headers = {"Content-Security-Policy": _DOCUMENT_POLICY}
        return HTMLResponse(render(record.report, "html"), headers=headers)

    @routes.get("/reports/{name}/as/{format}")
    def download(name: str, format: str) -> Response:
        record = record_of(service, name)
        if record.report is None or format not in _DOWNLOADS:
            raise Refused(status=404, reason="there is no such download")
        ending = {"markdown": "md", "sarif": "sarif"}.get(format, "json")
        headers = {"Content-Disposition": f'attachment; filename="{name[:16]}.{ending}"'}
        return Response(render(record.report, format), media_type=_DOWNLOADS[format], headers=headers)

    @routes.get("/queue")
    def queue() -> Response:
        return _queue(service)

    @routes.post("/queue")
    async def scan(request: Request) -> Response:
        form = _form(await body_of(request, most=_MAX_FORM))
        references = form.get("references", "").split()
        try:
            await run_in_threadpool(ask, service, references)
        except Refused as refused:
            return await run_in_threadpool(_queue, service, refused, references)
        return RedirectResponse("/queue", status_code=303)

    return routes


def entrance(service: Service) -> APIRouter:
    """Signing in and out, and what the page for it needs."""
    routes = APIRouter()

    @routes.get("/login")
    def login(next: str = "/") -> Response:
        return page("login", next=_within(next), failed=False)

    @routes.post("/login")
    async def signed_in(request: Request) -> Response:
        form = _form(await body_of(request, most=_MAX_FORM))
        if not from_own_page(request):
            raise Refused(status=403, reason="this form came from a page of another server")
        if not service.credentials.is_token(form.get("token", "").strip()):
            return page("login", next=_within(form.get("next", "/")), failed=True, status=401)
        response = RedirectResponse(_within(form.get("next", "/")), status_code=303)
        secure = request.url.scheme == "https"
        session = service.credentials.session()
        response.set_cookie(
            COOKIE, session, max_age=LIFETIME, httponly=True, samesite="strict", secure=secure
        )
        return response

    @routes.post("/logout")
    def logout() -> Response:
        response = RedirectResponse("/login", status_code=303)
        response.delete_cookie(COOKIE)
        return response

    @routes.get("/dashboard.css")
    def styles() -> Response:
        return Response(_file("dashboard.css"), media_type="text/css", headers=_KEPT)

    @routes.get("/favicon.svg")
    def icon() -> Response:
        return Response(_file("favicon.svg"), media_type="image/svg+xml", headers=_KEPT)

    return routes


def page(template: str, *, status: int = 200, **values: Any) -> Response:
    """A page of `templates`."""
    text = _environment().get_template(f"{template}.html").render(**values)
    return HTMLResponse(text, status_code=status)


def wanted_versions(name: str, limit: int = _MOST_VERSIONS) -> Filter:
    """Everything that is stored of one repository, the latest first."""
    return Filter(repository=name, failed=None, latest_first=True, limit=limit)


class _Links:
    """Addresses of the list of results with some values of its filter changed."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    def __call__(self, **changes: object) -> str:
        query = {k: v for k, v in {**self._values, **changes}.items() if v not in ("", None, 0)}
        return f"/?{urlencode(query)}" if query else "/"


def _tiles(service: Service) -> list[tuple[str, str, int]]:
    """Value of the filter, caption, number."""
    verdicts = service.index.verdicts()
    order = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS)
    return [
        ("", "all reports", sum(verdicts.values())),
        *((str(verdict), str(verdict), verdicts[verdict]) for verdict in order),
        (NO_REPORT, "without a report", service.index.count(Filter(failed=True))),
    ]


def _changes(rows: list[Row]) -> dict[str, tuple[list[str], list[str]]]:
    """Name of a document → rules that were not detected in the report before it, and that no longer are."""
    reports = [(row.name, {one.rule for one in row.detected}) for row in reversed(rows) if not row.failure]
    return {name: (sorted(now - then), sorted(then - now)) for (_, then), (name, now) in pairwise(reports)}


def _queue(service: Service, refused: Refused | None = None, references: list[str] | None = None) -> Response:
    return page(
        "queue",
        status=refused.status if refused else 200,
        counts=service.queue.counts(),
        items=service.queue.recent(),
        allow_scan=service.allow_scan,
        problem=service.scanner.problem if service.scanner else "",
        refused=refused.reason if refused else "",
        references="\n".join(references or []),
    )


def _form(body: bytes) -> dict[str, str]:
    try:
        return {name: values[0] for name, values in parse_qs(body.decode(), max_num_fields=20).items()}
    except ValueError as error:
        raise Refused(status=422, reason="not a form") from error


def _within(path: str) -> str:
    """A path of this server, and nothing that leads to another one."""
    ours = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if ours and "\\" not in path else "/"


@cache
def _file(name: str) -> str:
    return (files("ftsec_audit.service") / "templates" / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("ftsec_audit.service"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(version=VERSION, pass_means=PASS_MEANS)
    environment.filters.update(
        short=lambda text, limit=80: visible(str(text), limit),
        moment=_moment,
        clock=_clock,
        commit=_commit,
        name=repository,
    )
    return environment


def _shown(value: object) -> object:
    from markupsafe import Markup

    return value if isinstance(value, Markup) else visible(str(value), _MAX_TEXT)


def _moment(text: str) -> str:
    """`2026-01-31 12:00` of a time as documents have it."""
    return text[:16].replace("T", " ")


def _clock(seconds: float) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S") if seconds else ""


def _commit(row: Row) -> str:
    """The start of the commit that was scanned, where there is one."""
    _, _, revision = row.resolved.rpartition("@") if "@" in row.resolved else ("", "", "")
    return revision[:10]
