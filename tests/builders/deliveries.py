"""Deliveries of webhooks, as the Hub and MLflow send them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any


def of_hub(
    repository: str, commit: str | None, *, ref: str = "refs/heads/main", **changes: Any
) -> dict[str, Any]:
    """The payload (v3) after a commit."""
    payload: dict[str, Any] = {
        "event": {"action": "update", "scope": "repo.content"},
        "repo": {
            "type": "model",
            "name": repository,
            "id": "6366c000a2abcdf2fd69a080",
            "private": False,
            "url": {"web": f"https://hub/{repository}", "api": f"https://hub/api/models/{repository}"},
            "headSha": commit,
            "owner": {"id": "61d2000c3c2083e1c08af22d"},
        },
        "updatedRefs": [{"ref": ref, "oldSha": "0" * 40, "newSha": commit}],
        "webhook": {"id": "6390e855e30d9209411de93b", "version": 3},
    }
    return payload | changes


def of_mlflow(
    secret: str,
    *,
    name: str = "my-model",
    version: str = "3",
    delivery: str = "d-1",
    at: float | None = None,
    **changes: Any,
) -> tuple[dict[str, str], bytes]:
    """Headers and body after a version of a model was created."""
    payload: dict[str, Any] = {
        "entity": "model_version",
        "action": "created",
        "timestamp": "2026-01-31T12:00:00+00:00",
        "data": {"name": name, "version": version, "source": "s3://bucket/1", "run_id": "r", "tags": {}},
    }
    body = json.dumps(payload | changes).encode()
    timestamp = str(int(time.time() if at is None else at))
    signed = f"{delivery}.{timestamp}.".encode() + body
    signature = base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest()).decode()
    return {
        "X-MLflow-Signature": f"v1,{signature}",
        "X-MLflow-Delivery-Id": delivery,
        "X-MLflow-Timestamp": timestamp,
        "Content-Type": "application/json",
    }, body
