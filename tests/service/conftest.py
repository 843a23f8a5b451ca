"""A service over a store with known reports."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from builders.services import HUB_SECRET, MLFLOW_SECRET, TOKEN, fill

from ftsec_audit.batch.index import Index
from ftsec_audit.batch.store import Store
from ftsec_audit.service.credentials import Credentials
from ftsec_audit.service.queue import Queue
from ftsec_audit.service.state import Service


@pytest.fixture(scope="session")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the store and its index, to be copied."""
    folder = tmp_path_factory.mktemp("stocked")
    store = Store(str(folder / "store"))
    fill(store)
    index = Index(f"sqlite:///{folder / 'index.sqlite'}")
    index.sync(store)
    index.close()
    return folder


@pytest.fixture
def service(tmp_path: Path, stocked: Path) -> Service:
    shutil.copytree(stocked, tmp_path, dirs_exist_ok=True)
    return Service(
        store=Store(str(tmp_path / "store")),
        index=Index(f"sqlite:///{tmp_path / 'index.sqlite'}"),
        queue=Queue(f"sqlite:///{tmp_path / 'queue.sqlite'}"),
        credentials=Credentials(TOKEN),
        hub_secret=HUB_SECRET,
        mlflow_secret=MLFLOW_SECRET,
    )
