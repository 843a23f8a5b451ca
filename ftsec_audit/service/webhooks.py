"""What the webhooks of the Hub and of MLflow say, once it is certain who says it.

The Hub sends its secret with every delivery (`X-Webhook-Secret`) and neither time nor number: a repeated
delivery is harmless because a commit is scanned once. MLflow signs number, time and body
(`X-MLflow-Signature: v1,BASE64` of an HMAC-SHA256): old and repeated deliveries are refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ftsec_audit.service.asking import Refused, same
from ftsec_audit.sources.references import is_repository

MAX_AGE = 300.0
"""Seconds that the clocks of MLflow and of this machine, and the way between them, may differ."""


class _Model(BaseModel):
    """Fields that nobody reads are allowed: senders add some."""

    model_config = ConfigDict(extra="ignore", strict=True)


T = TypeVar("T", bound=_Model)


class _Event(_Model):
    action: str
    scope: str


class _Repository(_Model):
    type: str
    name: str = Field(max_length=200)
    headSha: str | None = None


class _Ref(_Model):
    ref: str = ""
    newSha: str | None = None


class _HubPayload(_Model):
    event: _Event
    repo: _Repository
    updatedRefs: list[_Ref] = Field(default=[], max_length=100)


class _Version(_Model):
    name: str = Field(min_length=1, max_length=250)
    version: str | int


class _MlflowPayload(_Model):
    entity: str
    action: str
    data: dict[str, object] = {}


def from_hub(headers: Mapping[str, str], body: bytes, secret: str) -> list[str]:
    """References to scan; none for events that change no files of a model. Raises Refused."""
    if not same(headers.get("x-webhook-secret", ""), secret):
        raise Refused(status=401, reason="the secret in X-Webhook-Secret is missing or wrong")
    payload = _parsed(_HubPayload, body)
    event, repository = payload.event, payload.repo
    if repository.type != "model" or not event.scope.startswith("repo"):
        return []
    if not is_repository(repository.name):
        raise Refused(status=422, reason="repo.name is no name of a repository")
    commits = [ref.newSha for ref in payload.updatedRefs if ref.newSha]
    if event.action == "create" and event.scope == "repo" and repository.headSha:
        commits.append(repository.headSha)
    if not all(_is_commit(commit) for commit in commits):
        raise Refused(status=422, reason="newSha is no commit")
    return [f"hf://{repository.name}@{commit}" for commit in dict.fromkeys(commits)]


def from_mlflow(
    headers: Mapping[str, str], body: bytes, secret: str, *, now: float | None = None
) -> tuple[str, list[str]]:
    """The number of the delivery, and references to scan. Raises Refused."""
    delivery, timestamp = headers.get("x-mlflow-delivery-id", ""), headers.get("x-mlflow-timestamp", "")
    signed = f"{delivery}.{timestamp}.".encode() + body
    expected = hmac.new(secret.encode(), signed, hashlib.sha256).digest()
    if not (delivery and _is_signature(headers.get("x-mlflow-signature", ""), expected)):
        raise Refused(status=401, reason="the signature in X-MLflow-Signature is missing or wrong")
    if len(delivery) > 150 or not timestamp.isascii() or not timestamp.isdigit():
        raise Refused(status=400, reason="X-MLflow-Delivery-Id or X-MLflow-Timestamp is malformed")
    if abs((time.time() if now is None else now) - int(timestamp)) > MAX_AGE:
        raise Refused(status=401, reason=f"the delivery is more than {MAX_AGE:g} seconds old, or ahead")
    payload = _parsed(_MlflowPayload, body)
    if (payload.entity, payload.action) != ("model_version", "created"):
        return delivery, []
    try:
        version = _Version.model_validate(payload.data)
    except ValidationError as error:
        raise Refused(status=422, reason=f"data: {_mistakes(error)}") from error
    reference = f"models:/{version.name}/{version.version}"
    if reference.count("/") != 2:
        raise Refused(status=422, reason="data: name and version hold no slash")
    return delivery, [reference]


def _is_signature(header: str, expected: bytes) -> bool:
    """Several signatures may stand in the header, separated by spaces, while a secret is being changed."""
    fits = False
    for candidate in header.split(" ")[:8]:
        version, _, encoded = candidate.partition(",")
        try:
            given = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            continue
        fits |= hmac.compare_digest(given, expected) and version == "v1"
    return fits


def _parsed(model: type[T], body: bytes) -> T:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise Refused(status=422, reason=_mistakes(error)) from error


def _mistakes(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, mistake['loc'])) or 'body'}: {mistake['msg']}" for mistake in error.errors()[:3]
    )


def _is_commit(text: str) -> bool:
    return len(text) in (40, 64) and all(char in "0123456789abcdef" for char in text)
