"""A service over a store with known reports."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.services import HUB_SECRET, MLFLOW_SECRET, TOKEN, fill

from ftsec_audit.batch.index import Index
from ftsec_audit.batch.store import Store
from ftsec_audit.service.credentials import Credentials
from ftsec_audit.service.queue import Queue
from ftsec_audit.service.state import Service


@pytest.fixture
def service(tmp_path: Path) -> Service:
    store = Store(str(tmp_path / "store"))
    fill(store)
    index = Index(f"sqlite:///{tmp_path / 'index.sqlite'}")
    index.sync(store)
    return Service(
        store=store,
        index=index,
        queue=Queue(f"sqlite:///{tmp_path / 'queue.sqlite'}"),
        credentials=Credentials(TOKEN),
        hub_secret=HUB_SECRET,
        mlflow_secret=MLFLOW_SECRET,
    )
