"""Only who knows the secret is believed, and what is believed becomes references."""

from __future__ import annotations

import json

import pytest
from builders.deliveries import of_hub, of_mlflow

from ftsec_audit.service.asking import Refused
from ftsec_audit.service.webhooks import MAX_AGE, from_hub, from_mlflow

SECRET = "correct horse battery"
COMMIT = "3f" * 20
NOW = 1_800_000_000.0


def hub(payload: object, secret: str = SECRET) -> list[str]:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return from_hub({"x-webhook-secret": secret}, body, SECRET)


def mlflow(headers: dict[str, str], body: bytes, secret: str = SECRET) -> tuple[str, list[str]]:
    return from_mlflow({name.lower(): value for name, value in headers.items()}, body, secret, now=NOW)


def status(ask: object, *arguments: object, **options: object) -> int:
    with pytest.raises(Refused) as raised:
        ask(*arguments, **options)  # type: ignore[operator]
    return raised.value.status


def test_a_commit_becomes_a_pinned_reference() -> None:
    assert hub(of_hub("org/model", COMMIT)) == [f"hf://org/model@{COMMIT}"]
    assert hub(of_hub("org/model", COMMIT, ref="refs/pr/7")) == [f"hf://org/model@{COMMIT}"]
    twice = {"updatedRefs": [{"ref": "refs/heads/main", "oldSha": None, "newSha": COMMIT}] * 2}
    assert hub(of_hub("org/model", COMMIT, **twice)) == [f"hf://org/model@{COMMIT}"]
    created = {"event": {"action": "create", "scope": "repo"}, "updatedRefs": []}
    assert hub(of_hub("org/model", COMMIT, **created)) == [f"hf://org/model@{COMMIT}"]


@pytest.mark.parametrize(
    "payload",
    [
        of_hub("org/model", None),  # a branch was deleted
        of_hub("org/data", COMMIT, repo={"type": "dataset", "name": "org/data"}),
        of_hub("org/model", COMMIT, event={"action": "create", "scope": "discussion.comment"}),
        of_hub("org/model", COMMIT, event={"action": "update", "scope": "repo.config"}, updatedRefs=[]),
    ],
)
def test_what_changes_no_files_of_a_model_is_accepted_and_ignored(payload: dict[str, object]) -> None:
    assert hub(payload) == []


@pytest.mark.parametrize("secret", ["", "correct horse batterz", SECRET + " ", "é"])
def test_the_hub_without_the_secret_is_refused(secret: str) -> None:
    assert status(hub, of_hub("org/model", COMMIT), secret) == 401


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        {},
        of_hub("../etc/passwd", COMMIT),
        of_hub("/etc", COMMIT),
        of_hub("org/model", "main; rm -rf"),
        of_hub("org/model", COMMIT.upper()),
        of_hub("org/model", COMMIT, updatedRefs=[{"newSha": 7}]),
        of_hub("org/model", COMMIT, updatedRefs=[{"newSha": COMMIT}] * 101),
    ],
)
def test_a_malformed_payload_is_explained(payload: object) -> None:
    assert status(hub, payload) == 422


def test_a_new_version_becomes_a_reference() -> None:
    assert mlflow(*of_mlflow(SECRET, at=NOW)) == ("d-1", ["models:/my-model/3"])
    assert mlflow(*of_mlflow(SECRET, at=NOW, delivery="d-2", action="deleted")) == ("d-2", [])


def test_while_a_secret_is_changed_one_of_several_signatures_is_enough() -> None:
    headers, body = of_mlflow(SECRET, at=NOW)
    headers["X-MLflow-Signature"] = f"v1,AAAA {headers['X-MLflow-Signature']}"
    assert mlflow(headers, body)[1] == ["models:/my-model/3"]


def test_every_change_to_a_signed_delivery_is_noticed() -> None:
    headers, body = of_mlflow(SECRET, at=NOW)
    good = headers["X-MLflow-Signature"]
    for changes, content in (
        ({}, body.replace(b"my-model", b"my-modem")),
        ({"X-MLflow-Delivery-Id": "d-2"}, body),
        ({"X-MLflow-Timestamp": str(int(NOW) + 1)}, body),
        ({"X-MLflow-Signature": good.replace("v1,", "v2,")}, body),
        ({"X-MLflow-Signature": good[3:]}, body),
        ({"X-MLflow-Signature": ""}, body),
        ({"X-MLflow-Signature": "v1," + "A" * 44}, body),
        ({"X-MLflow-Signature": "v1,é"}, body),
    ):
        assert status(mlflow, headers | changes, content) == 401, changes
    assert status(mlflow, *of_mlflow("another secret", at=NOW)) == 401


@pytest.mark.parametrize("age", [-MAX_AGE - 1, MAX_AGE + 1])
def test_old_deliveries_and_those_from_the_future_are_refused(age: float) -> None:
    assert status(mlflow, *of_mlflow(SECRET, at=NOW - age)) == 401
    assert mlflow(*of_mlflow(SECRET, at=NOW - age / 2))


@pytest.mark.parametrize(
    "changes",
    [{"name": "a/b"}, {"name": ""}, {"data": {}}, {"entity": 1}, {"data": {"name": "a", "version": None}}],
)
def test_a_signed_but_malformed_payload_is_explained(changes: dict[str, object]) -> None:
    assert status(mlflow, *of_mlflow(SECRET, at=NOW, **changes)) == 422  # type: ignore[arg-type]
