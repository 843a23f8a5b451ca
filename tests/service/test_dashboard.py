"""Pages: who sees them, what they hold, and that strings of artifacts stay strings."""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.resources import files

import pytest
from builders.services import TOKEN, key
from contrast import contrast, palette
from fastapi.testclient import TestClient

from ftsec_audit.service import app
from ftsec_audit.service.credentials import COOKIE, LIFETIME, Credentials
from ftsec_audit.service.queue import State
from ftsec_audit.service.state import Service

HOST = "http://testserver"
HTML = {"Accept": "text/html"}


class Page(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def links(self) -> list[str]:
        return [attributes["href"] or "" for tag, attributes in self.elements if tag == "a"]


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(app.create(service), follow_redirects=False, headers=HTML) as client:
        yield client


@pytest.fixture
def reader(client: TestClient) -> TestClient:
    """Signed in."""
    assert sign_in(client).status_code == 303
    return client


def sign_in(client: TestClient, token: str = TOKEN, next: str = "/", origin: str = HOST) -> object:
    return client.post("/login", data={"token": token, "next": next}, headers={"Origin": origin})


def opened(client: TestClient, path: str) -> Page:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return Page(answer.text)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/?verdict=fail",
        "/queue",
        f"/reports/{key(1)}",
        f"/reports/{key(1)}/document",
        "/repository?name=acme/bot",
    ],
)
def test_who_is_not_signed_in_is_sent_to_the_door(client: TestClient, path: str) -> None:
    for cookie in ("", "1.2", f"99999999999.{'0' * 64}", "x."):
        client.cookies.set(COOKIE, cookie)
        answer = client.get(path)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login?next=%2F")
        assert "acme" not in answer.text


def test_the_token_opens_a_session_and_nothing_else_does(client: TestClient) -> None:
    refused = sign_in(client, "wrong")
    assert refused.status_code == 401
    assert "not the token" in refused.text
    accepted = sign_in(client, next="/?verdict=fail")
    assert (accepted.status_code, accepted.headers["location"]) == (303, "/?verdict=fail")
    cookie = accepted.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    assert client.get("/").status_code == 200
    assert client.post("/logout").headers["location"] == "/login"
    assert client.get("/").status_code == 303


def test_a_session_ends_and_belongs_to_one_token() -> None:
    credentials = Credentials(TOKEN)
    session = credentials.session(now=1000)
    assert credentials.is_session(session, now=1000 + LIFETIME - 1)
    assert not credentials.is_session(session, now=1000 + LIFETIME + 1)
    assert not Credentials(TOKEN + "2").is_session(session, now=1001)
    ends, _, signature = session.partition(".")
    assert not credentials.is_session(f"{int(ends) + 1}.{signature}", now=1001)


@pytest.mark.parametrize(
    "next", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", ""]
)
def test_signing_in_leads_to_no_other_server(client: TestClient, next: str) -> None:
    assert sign_in(client, next=next).headers["location"] == "/"


def test_forms_of_other_servers_are_refused(reader: TestClient, service: Service) -> None:
    service.allow_scan = True
    for origin in ("https://evil.example", "null", ""):
        headers = {"Origin": origin} if origin else {}
        assert reader.post("/queue", data={"references": "org/model"}, headers=headers).status_code == 403
    assert sign_in(reader, origin="https://evil.example").status_code == 403
    assert service.queue.counts()[State.WAITING] == 0


def test_the_list_is_filtered_by_what_is_in_the_address(reader: TestClient) -> None:
    everything = opened(reader, "/")
    assert f"/reports/{key(1)}" in everything.links()
    assert "5 of 5" in everything.text
    failed = opened(reader, "/?verdict=fail&rule=FTA3&text=acme&since=&order=")
    assert [link for link in failed.links() if link.startswith("/reports/")] == [f"/reports/{key(1)}"]
    without = opened(reader, "/?verdict=none")
    assert "crash: <img src=x onerror=alert(8)>" in without.text
    assert "Nothing stored fits" in opened(reader, "/?text=nowhere").text


def test_a_long_list_is_turned_page_by_page_and_keeps_its_filter(reader: TestClient) -> None:
    first = opened(reader, "/?order=latest&limit=2")
    assert "1–2 of 5" in first.text
    (following,) = (a["href"] for tag, a in first.elements if a.get("rel") == "next")
    assert following == "/?order=latest&limit=2&offset=2"
    second = opened(reader, following or "")
    assert "3–4 of 5" in second.text
    (back,) = (a["href"] for tag, a in second.elements if a.get("rel") == "prev")
    assert back == "/?order=latest&limit=2"


def test_a_filter_that_makes_no_sense_is_a_page_that_says_so(reader: TestClient) -> None:
    answer = reader.get("/?since=yesterday")
    assert answer.status_code == 422
    assert "since is a day" in Page(answer.text).text


def test_the_history_shows_what_came_and_went(reader: TestClient) -> None:
    page = opened(reader, "/repository?name=acme/bot")
    for words in ("acme/bot", "2222222222", "1111111111", "−FTA301", "2026-01-02 00:00"):
        assert words in page.text
    assert reader.get("/repository?name=no/such").status_code == 404


def test_a_report_stands_in_a_frame_that_may_do_nothing(reader: TestClient) -> None:
    page = opened(reader, f"/reports/{key(1)}")
    (frame,) = (attributes for tag, attributes in page.elements if tag == "iframe")
    assert (frame["src"], frame["sandbox"]) == (f"/reports/{key(1)}/document", None)
    document = reader.get(f"/reports/{key(1)}/document")
    policy = document.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert policy.endswith("frame-ancestors 'self'; sandbox")
    assert "few-embedding-rows-changed" in document.text
    failure = opened(reader, f"/reports/{key(5)}.failed-1")
    assert "There is no report" in failure.text
    assert "iframe" not in {tag for tag, _ in failure.elements}
    assert reader.get(f"/reports/{key(5)}.failed-1/document").status_code == 404


@pytest.mark.parametrize("format", ["json", "sarif", "markdown"])
def test_a_report_is_handed_out_as_a_file(reader: TestClient, format: str) -> None:
    answer = reader.get(f"/reports/{key(1)}/as/{format}")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert "FTA301" in answer.text
    assert reader.get(f"/reports/{key(1)}/as/html").status_code == 404


def test_the_queue_takes_references_only_when_that_is_allowed(reader: TestClient, service: Service) -> None:
    assert "textarea" not in {tag for tag, _ in opened(reader, "/queue").elements}
    form = {"references": "org/model\norg/other@v1"}
    assert reader.post("/queue", data=form, headers={"Origin": HOST}).status_code == 403
    service.allow_scan = True
    assert reader.post("/queue", data=form, headers={"Origin": HOST}).headers["location"] == "/queue"
    page = opened(reader, "/queue")
    assert "hf://org/model" in page.text
    refused = reader.post("/queue", data={"references": "/etc/passwd"}, headers={"Origin": HOST})
    assert refused.status_code == 422
    assert "/etc/passwd" in refused.text  # kept in the form, to be corrected
    assert service.queue.counts()[State.WAITING] == 2


def test_strings_of_artifacts_are_text_on_every_page(reader: TestClient, service: Service) -> None:
    service.queue.put(["hf://<script>alert(7)</script>"], "hub")
    (item,) = service.queue.take(1)
    service.queue.failed(item, "<img src=x onerror=alert(6)>")
    hostile = f"/reports/{key(4)}"
    (history,) = {link for link in opened(reader, "/?text=evil").links() if link.startswith("/repository")}
    for path in (
        "/",
        "/?verdict=none",
        hostile,
        history,
        "/queue",
        "/?text=%3Cscript%3Ealert(5)%3C/script%3E",
    ):
        page = opened(reader, path)
        assert not {tag for tag, _ in page.elements} & {"script", "img", "object", "embed", "base", "style"}
        attributes = {name for _, found in page.elements for name in found}
        assert not {name for name in attributes if name.startswith("on") or name == "style"}
        assert not [link for link in page.links() if not link.startswith(("/", "#main"))]
        assert "\u202e" not in page.text
        assert "\x1b" not in page.text
    assert "[bold green]PASS[/]" in opened(reader, history).text


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_enough_contrast(theme: str) -> None:
    """WCAG 2.2 AA, 4.5:1, for every colour that text is set in."""
    styles = (files("ftsec_audit.service") / "templates" / "dashboard.css").read_text(encoding="utf-8")
    colours = palette(styles, theme)
    inks = ("ink", "quiet", "link", "critical", "high", "medium", "low", "info", "new", "gone")
    for ink in inks:
        for ground in ("page", "paper", "soft"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for ground in ("pass", "fail", "inconclusive", "none"):
        assert contrast("#ffffff", colours[ground]) >= 4.5, ground
    assert "url(" not in styles
    assert "@import" not in styles
