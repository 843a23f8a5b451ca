"""How a request is answered: by the Hub (API, small files, redirects) and by the storage host (bytes)."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from hub_server.faults import Fault
from hub_server.log import Request
from hub_server.repository import Commit, Content, Entry, Repository

_PIECE = 16 << 10
_PAGE = 1000
_RANGE = re.compile(r"^bytes=(\d+)-(\d*)$")
_API = re.compile(r"^/api/models/(?P<repo>[^/]+(?:/(?!revision/|tree/)[^/]+)?)(?P<rest>/.*)?$")
_RESOLVE = re.compile(r"^/(?P<repo>[^/]+(?:/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<path>.+)$")


class Handler(BaseHTTPRequestHandler):
    """What both hosts share: the log, the faults, and sending a body or a part of it."""

    protocol_version = "HTTP/1.1"
    wbufsize = _PIECE
    disable_nagle_algorithm = True
    host = ""
    request_log: Request
    fault: Fault | None

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def answer(self, path: str, query: Mapping[str, list[str]]) -> None:
        raise NotImplementedError

    @property
    def hub(self) -> Any:
        return self.server.hub  # type: ignore[attr-defined]

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def send_json(self, value: object, **headers: str) -> None:
        body = json.dumps(value).encode()
        self.send_part(body, 200, {"Content-Type": "application/json", **headers})

    def send_error_code(self, status: int, code: str = "", message: str = "") -> None:
        """An error as the Hub words it: the reason is in the headers."""
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        self.send_part(
            json.dumps({"error": message}).encode(), status, {k: v for k, v in headers.items() if v}
        )

    def send_content(self, content: Content, headers: Mapping[str, str]) -> None:
        """The whole content, or the range that was asked for (206), or 416."""
        headers = {**headers, "Accept-Ranges": "bytes"}
        match = _RANGE.match(self.headers.get("Range", ""))
        if not match or (self.fault and self.fault.ignore_range):
            self.send_part(content, 200, headers)
            return
        start = int(match.group(1))
        stop = min(content.size, int(match.group(2)) + 1 if match.group(2) else content.size)
        if start >= content.size:
            self.send_part(b"", 416, {**headers, "Content-Range": f"bytes */{content.size}"})
            return
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{content.size}"
        self.send_part(content, 206, headers, start, stop)

    def send_part(
        self,
        body: bytes | Content,
        status: int,
        headers: Mapping[str, str],
        start: int = 0,
        stop: int | None = None,
    ) -> None:
        content = body if isinstance(body, Content) else Content(body)
        stop = content.size if stop is None else stop
        self.request_log.status = status
        self.send_response(status)
        for name, value in ({"Content-Length": str(stop - start)} | dict(headers)).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self._send_body(content, start, stop)

    def _send_body(self, content: Content, start: int, stop: int) -> None:
        fault = self.fault or Fault()
        end = stop if fault.cut_after is None else min(stop, start + fault.cut_after)
        for at in range(start, end, _PIECE):
            piece = content.read(at, min(at + _PIECE, end))
            self.wfile.write(bytes(byte ^ 255 for byte in piece) if fault.corrupt else piece)
            self.request_log.sent += len(piece)
            if fault.pace:
                self.wfile.flush()
                time.sleep(fault.pace)
        if end < stop:
            self.wfile.flush()
            self.close_connection = True

    def _serve(self) -> None:
        if self.hub.stopped:
            self.close_connection = True
            return
        parts = urlsplit(self.path)
        self.request_log = Request(
            self.command,
            self.host,
            self.path,
            range=self.headers.get("Range", ""),
            token=self.token,
            user_agent=self.headers.get("User-Agent", ""),
        )
        self.hub.log.requests.append(self.request_log)
        hits = (f for f in self.hub.faults if f.hits(self.command, self.host, parts.path))
        self.fault = next(hits, None)
        if self.fault:
            time.sleep(self.fault.delay)
        try:
            if self.fault and self.fault.status:
                self.send_part(b"", self.fault.status, self.fault.headers)
            else:
                self.answer(parts.path, parse_qs(parts.query))
        except (BrokenPipeError, ConnectionResetError):  # the client has read enough
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr: `hub.log` has it all."""


class StorageHandler(Handler):
    """The host behind the redirects: content by digest, for whoever has the address."""

    host = "storage"

    def answer(self, path: str, query: Mapping[str, list[str]]) -> None:
        content = self.hub.blobs.get(path.removeprefix("/blobs/"))
        if content is None or "signature" not in query:
            self.send_error_code(403)
        else:
            self.send_content(content, {"ETag": f'"{path.removeprefix("/blobs/")}"'})


class HubHandler(Handler):
    """The Hub's own host."""

    host = "hub"

    def answer(self, path: str, query: Mapping[str, list[str]]) -> None:
        if path == "/api/models":
            self._search(query)
        elif match := _API.match(path):
            self._api(unquote(match["repo"]), match["rest"] or "", query)
        elif match := _RESOLVE.match(path):
            self._resolve(unquote(match["repo"]), unquote(match["revision"]), unquote(match["path"]))
        else:
            self.send_error_code(404)

    def _search(self, query: Mapping[str, list[str]]) -> None:
        """`/api/models?search=…&author=…&filter=…&sort=lastModified&limit=…`: public ones, by page."""
        wanted, author = query.get("search", [""])[0], query.get("author", [""])[0]
        tags = {tag for each in query.get("filter", []) for tag in each.split(",")}
        found = [
            repo
            for repo in self.hub.repositories.values()
            if wanted in repo.id
            and not repo.private
            and repo.id.startswith(f"{author}/" if author else "")
            and tags <= set(repo.tags)
        ]
        if query.get("sort") == ["lastModified"]:
            found.sort(key=lambda repo: repo.last_modified, reverse=True)
        first = int(query.get("cursor", ["0"])[0])
        page = min(int(query.get("limit", ["1000"])[0]), self.hub.models_per_page)
        headers = {}
        if first + page < len(found):
            again = urlencode([(k, v) for k, values in query.items() for v in values if k != "cursor"])
            address = f"{self.hub.endpoint}/api/models?{again}&cursor={first + page}"
            headers["Link"] = f'<{address}>; rel="next"'
        listed = [_listed_model(repo, query.get("expand", [])) for repo in found[first : first + page]]
        self.send_json(listed, **headers)

    def _api(self, name: str, rest: str, query: Mapping[str, list[str]]) -> None:
        repository = self._accessible(name, f"/api/models/{{}}{rest}", read=False)
        if repository is None:
            return
        kind, _, revision = rest.strip("/").partition("/")
        revision, _, _folder = revision.partition("/")
        commit = repository.at(unquote(revision) or "main")
        if commit is None:
            self.send_error_code(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif kind == "tree":
            self._tree(commit, query)
        else:
            self._model(repository, commit, blobs="blobs" in query)

    def _model(self, repository: Repository, commit: Commit, *, blobs: bool) -> None:
        siblings: list[dict[str, object]] = []
        for entry in commit.entries.values():
            sibling: dict[str, object] = {"rfilename": entry.path}
            if blobs:
                sibling |= {"size": entry.content.size, "blobId": entry.oid}
                if entry.lfs:
                    sibling["lfs"] = {"size": entry.content.size, "sha256": entry.etag, "pointerSize": 134}
            siblings.append(sibling)
        self.send_json(
            {
                "id": repository.id,
                "modelId": repository.id,
                "sha": commit.sha,
                "private": repository.private,
                "gated": "manual" if repository.gated else False,
                "disabled": False,
                "tags": [],
                "siblings": siblings[:_PAGE],
            }
        )

    def _tree(self, commit: Commit, query: Mapping[str, list[str]]) -> None:
        """All files, a page at a time; the next page is named in a `Link` header."""
        first = int(query.get("cursor", ["0"])[0])
        entries = list(commit.entries.values())
        headers = {}
        if first + _PAGE < len(entries):
            address = f"{self.hub.endpoint}{urlsplit(self.path).path}?recursive=true&cursor={first + _PAGE}"
            headers["Link"] = f'<{address}>; rel="next"'
        self.send_json([_tree_entry(entry) for entry in entries[first : first + _PAGE]], **headers)

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repository = self._accessible(
            name, f"/{{}}/resolve/{quote(revision, safe='')}/{quote(path)}", read=True
        )
        if repository is None:
            return
        commit = repository.at(revision)
        if commit is None:
            self.send_error_code(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif path not in commit.entries:
            self.send_error_code(404, "EntryNotFound", "Entry not found")
        else:
            self._send_file(commit, commit.entries[path])

    def _send_file(self, commit: Commit, entry: Entry) -> None:
        headers = {"X-Repo-Commit": commit.sha, "ETag": f'"{entry.etag}"'}
        if not entry.lfs:
            self.send_content(entry.content, headers)
            return
        self.hub.blobs[entry.etag] = entry.content
        headers |= {
            "X-Linked-Etag": f'"{entry.etag}"',
            "X-Linked-Size": str(entry.content.size),
            "Location": f"{self.hub.storage_endpoint}/blobs/{entry.etag}?signature=1",
        }
        self.send_part(b"", 302, headers)

    def _accessible(self, name: str, address: str, *, read: bool) -> Repository | None:
        """The repository, if whoever asks may see it (and `read` its files); else the answer is sent."""
        if self.token and self.token not in self.hub.tokens:
            self.send_error_code(401, message="Invalid credentials in Authorization header")
            return None
        if new := self.hub.renamed.get(name):
            query = urlsplit(self.path).query
            target = address.format(new) + (f"?{query}" if query else "")
            self.send_part(b"", 307, {"Location": target})
            return None
        repository: Repository | None = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self.token):
            self.send_error_code(401 if not self.token else 404, "RepoNotFound", "Repository not found")
            return None
        if read and repository.gated and not self.token:
            self.send_error_code(401, "GatedRepo", f"Access to model {name} is restricted")
            return None
        return repository


def _listed_model(repository: Repository, expand: list[str]) -> dict[str, object]:
    fields: dict[str, object] = {
        "sha": repository.refs["main"].sha,
        "lastModified": repository.last_modified,
        "tags": repository.tags,
    }
    chosen = {name: value for name, value in fields.items() if name in expand}
    return {"id": repository.id, "modelId": repository.id, **chosen}


def _tree_entry(entry: Entry) -> dict[str, object]:
    listed: dict[str, object] = {
        "type": "file",
        "path": entry.path,
        "size": entry.content.size,
        "oid": entry.oid,
    }
    if entry.lfs:
        listed["lfs"] = {"oid": entry.etag, "size": entry.content.size, "pointerSize": 134}
    return listed
