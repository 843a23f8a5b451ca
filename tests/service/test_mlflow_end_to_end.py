"""A genuine MLflow server tells a genuine service of a new version: signed, scanned, and the verdict kept."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from builders import registry
from builders.adapters import write_adapter
from builders.served import Served, until
from builders.services import MLFLOW_SECRET

pytest.importorskip("mlflow", reason="needs the extra mlflow")
pytest.importorskip("flask", reason="needs what an MLflow server is made of")
pytest.importorskip("alembic", reason="needs what an MLflow server is made of")

pytestmark = pytest.mark.timeout(900)  # of which most, on a busy machine, is the start of two servers
HERE = {"MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https", "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true"}
"""MLflow's own switches; without them it delivers to https and public addresses alone."""


def test_a_registered_version_becomes_a_report(tmp_path: Path) -> None:
    clean, hostile = write_adapter(tmp_path / "clean"), write_adapter(tmp_path / "hostile")
    (hostile / "extra.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with registry.serving(tmp_path, **HERE) as address:
        service = Served(tmp_path, {"MLFLOW_TRACKING_URI": address})
        registry.tell(address, f"{service.address}/webhooks/mlflow", MLFLOW_SECRET, name="ours")
        registry.tell(address, f"{service.address}/webhooks/mlflow", "a-wrong-secret", name="forged")
        for folder in (clean, hostile):
            registry.register(address, "support", folder)
        found = until(lambda: (r := service.get("/api/reports"))["total"] == 2 and r)
        queue = until(lambda: (q := service.get("/api/queue"))["counts"]["done"] == 2 and q)
        assert {row["resolved"]: row["verdict"] for row in found["reports"]} == {
            "models:/support/1": "pass",
            "models:/support/2": "fail",
        }
        assert {item["origin"] for item in queue["items"]} == {"mlflow"}
        for status in (202, 401):
            line = f'ftsec_audit_webhooks_total{{origin="mlflow",status="{status}"}} 2.0'
            until(lambda line=line: line in service.text("/metrics"))
        service.end(signal.SIGTERM)
    assert len(list((tmp_path / "store").glob("*/*.json"))) == 2
