"""What the service answers, and to whom."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.deliveries import of_hub, of_mlflow
from builders.services import HUB_SECRET, MLFLOW_SECRET, TOKEN, key
from fastapi.testclient import TestClient

from ftsec_audit.service import app
from ftsec_audit.service.asking import MAX_BODY
from ftsec_audit.service.queue import State
from ftsec_audit.service.state import Service

BEARER = {"Authorization": f"Bearer {TOKEN}"}
COMMIT = "3f" * 20


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(app.create(service)) as client:
        yield client


@pytest.fixture
def api(client: TestClient) -> TestClient:
    client.headers.update(BEARER)
    return client


def hub(client: TestClient, payload: object, secret: str = HUB_SECRET) -> object:
    return client.post("/webhooks/hub", json=payload, headers={"X-Webhook-Secret": secret})


@pytest.mark.parametrize("path", ["/api/reports", f"/api/reports/{key(1)}", "/api/queue", "/metrics"])
def test_without_the_token_nothing_is_shown(client: TestClient, path: str) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Cookie": "ftsec-audit-session=1.2"},
    ):
        answer = client.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "acme" not in answer.text
    assert client.get(path, headers=BEARER).status_code == 200


def test_every_answer_is_closed_to_scripts_frames_and_caches(client: TestClient) -> None:
    for path in ("/api/reports", "/healthz", "/no/such/page"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; style-src 'self'")
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


def names(api: TestClient, query: str) -> list[str]:
    answer = api.get(f"/api/reports?{query}").json()
    return [row["name"].lstrip("0") for row in answer["reports"]]


def test_reports_are_searched(api: TestClient) -> None:
    assert set(names(api, "")) == {"1", "2", "3", "4", "6"}
    assert names(api, "verdict=fail&text=BOT") == ["1"]
    assert names(api, "verdict=none") == ["5.failed-1"]
    assert names(api, "rule=fta3&verdict=") == ["1"]
    assert names(api, "since=2026-01-03&order=latest") == ["6", "4", "3"]
    assert names(api, "repository=acme/bot&order=latest") == ["2", "1"]
    page = api.get("/api/reports?limit=2&offset=4").json()
    assert (page["total"], len(page["reports"])) == (5, 1)


@pytest.mark.parametrize(
    "query",
    [
        "verdict=maybe",
        "rule=%25",
        "since=yesterday",
        "limit=501",
        "limit=-1",
        "offset=x",
        f"text={'x' * 301}",
        "limit=²",
    ],
)
def test_a_query_that_makes_no_sense_is_explained(api: TestClient, query: str) -> None:
    answer = api.get(f"/api/reports?{query}")
    assert answer.status_code == 422
    assert query.partition("=")[0] in answer.json()["error"]


def test_a_document_is_handed_out_whole(api: TestClient) -> None:
    document = api.get(f"/api/reports/{key(1)}").json()
    assert document["report"]["verdict"] == "fail"
    failure = api.get(f"/api/reports/{key(5)}.failed-1").json()
    assert failure["failure"]["kind"] == "crash"


@pytest.mark.parametrize(
    "name", [key(9), "x", "..%2F..%2Fetc%2Fpasswd", f"{key(1)}.json", f"{key(5)}.failed-0", f"{key(1)}%0A"]
)
def test_what_is_no_document_is_not_found(api: TestClient, name: str) -> None:
    assert api.get(f"/api/reports/{name}").status_code == 404


def test_a_delivery_of_the_hub_is_queued_once(client: TestClient, service: Service) -> None:
    answer = hub(client, of_hub("org/model", COMMIT))
    assert (answer.status_code, answer.json()) == (202, {"queued": [f"hf://org/model@{COMMIT}"]})
    assert hub(client, of_hub("org/model", COMMIT)).json() == {"queued": []}
    (item,) = service.queue.take(5)
    service.queue.done(item, verdict="pass", key=key(1))
    assert hub(client, of_hub("org/model", COMMIT)).json() == {"queued": []}
    assert hub(client, of_hub("org/model", COMMIT), "wrong").status_code == 401
    assert service.queue.counts()[State.WAITING] == 0


def test_a_delivery_of_mlflow_is_taken_once(client: TestClient, service: Service) -> None:
    headers, body = of_mlflow(MLFLOW_SECRET)
    assert client.post("/webhooks/mlflow", content=body, headers=headers).json() == {
        "queued": ["models:/my-model/3"]
    }
    replayed = client.post("/webhooks/mlflow", content=body, headers=headers)
    assert replayed.status_code == 409
    assert "received before" in replayed.json()["error"]
    unprintable = of_mlflow(MLFLOW_SECRET, name="a\u202eb", delivery="d-9")
    assert client.post("/webhooks/mlflow", headers=unprintable[0], content=unprintable[1]).status_code == 422
    assert service.queue.counts()[State.WAITING] == 1


def test_a_webhook_without_a_secret_does_not_exist(client: TestClient, service: Service) -> None:
    service.hub_secret = service.mlflow_secret = ""
    assert hub(client, of_hub("org/model", COMMIT), "").status_code == 404
    headers, body = of_mlflow("")
    assert client.post("/webhooks/mlflow", content=body, headers=headers).status_code == 404


def test_a_body_without_end_is_cut_off(client: TestClient) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 64 * MAX_BODY:
            sent += 1 << 16
            yield b"x" * (1 << 16)

    answer = client.post("/webhooks/hub", content=endless(), headers={"X-Webhook-Secret": HUB_SECRET})
    assert answer.status_code == 413


def test_scanning_is_closed_until_it_is_allowed(api: TestClient, service: Service) -> None:
    wanted = {"references": ["org/model", "hf://org/other@v1/folder"]}
    answer = api.post("/api/scans", json=wanted)
    assert answer.status_code == 403
    assert "--allow-scan" in answer.json()["error"]
    service.allow_scan = True
    assert api.post("/api/scans", json=wanted).json() == {
        "queued": ["hf://org/model", "hf://org/other@v1/folder"]
    }
    assert api.get("/api/queue").json()["counts"]["waiting"] == 2


@pytest.mark.parametrize(
    "reference", ["/etc/passwd", "./x", "~", "s3://b/k", "../x/y", "file:///etc", "models:/a/1", "", "a b"]
)
def test_nobody_scans_this_machine_from_outside(api: TestClient, service: Service, reference: str) -> None:
    service.allow_scan = True
    assert api.post("/api/scans", json={"references": [reference]}).status_code == 422


@pytest.mark.parametrize("body", [b"", b"{}", b'{"references": []}', b'{"references": "a/b"}', b"[" * 9999])
def test_a_malformed_wish_is_explained(api: TestClient, service: Service, body: bytes) -> None:
    service.allow_scan = True
    answer = api.post("/api/scans", content=body)
    assert answer.status_code == 422
    assert "references" in answer.json()["error"]


def test_metrics_count_without_naming_models(api: TestClient) -> None:
    hub(api, of_hub("org/model", COMMIT))
    hub(api, of_hub("org/model", COMMIT), "wrong")
    text = api.get("/metrics").text
    for line in (
        'ftsec_audit_reports{verdict="fail"} 2.0',
        'ftsec_audit_reports{verdict="pass"} 2.0',
        "ftsec_audit_without_report 1.0",
        'ftsec_audit_queue{state="waiting"} 1.0',
        'ftsec_audit_webhooks_total{origin="hub",status="202"} 1.0',
        'ftsec_audit_webhooks_total{origin="hub",status="401"} 1.0',
    ):
        assert line in text
    assert "org/model" not in text
    assert "acme" not in text


def test_health_says_what_is_wrong_by_part_only(client: TestClient, service: Service) -> None:
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"ready": True, "problems": []}
    service.index = type(service.index)("sqlite://")
    service.index._database.close()
    (service.store.url, kept) = ("/no/such/folder", service.store.url)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["problems"]) == (503, ["index", "store"])
    service.store.url = kept


def test_an_unknown_page_and_an_unknown_method_are_told_as_json(client: TestClient) -> None:
    assert client.get("/no/such/page").json() == {"error": "Not Found"}
    assert client.get("/webhooks/hub").status_code == 405


def test_nothing_describes_the_service_to_strangers(client: TestClient) -> None:
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert client.get(path).status_code == 404


def test_a_damaged_document_is_told_and_is_no_crash(api: TestClient, service: Service) -> None:
    (path,) = Path(service.store.url).glob(f"*/{key(1)}.json")
    path.write_bytes(b"{")
    answer = api.get(f"/api/reports/{key(1)}")
    assert answer.status_code == 503
    assert "not a stored result" in json.loads(answer.text)["error"]
