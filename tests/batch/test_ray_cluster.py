"""A batch on a cluster that runs already, joined with its token; and drivers that are killed, there or with
a Ray of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import ray_cluster
from builders.adapters import write_adapter
from builders.hubs import hub_process, with_tests
from builders.killing import alive, children, documents, log, until
from builders.ray_cluster import Cluster

pytest.importorskip("ray")
pytestmark = pytest.mark.timeout(900)  # of which most, on a busy machine, is the start of the cluster
NAMES = ["org/a0", "org/a1", "org/a2"]
TOLD = [f"slow:{number}" for number in range(8)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ray_cluster.running(tmp_path_factory.mktemp("ray")) as running:
        yield running


@pytest.fixture
def environment(cluster: Cluster, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Of a driver, with a Hub of adapters and caches of its own; the cluster knows neither."""
    for number, name in enumerate(NAMES):
        write_adapter(tmp_path / "hub" / name, seed=number)
    hub, endpoint = hub_process(tmp_path / "hub")
    own = {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "FTSEC_AUDIT_CACHE": str(tmp_path / "c")}
    yield cluster.environment | own
    hub.kill()
    hub.wait()


def batch(store: Path, *options: str) -> list[str]:
    command = [sys.executable, "-m", "ftsec_audit", "batch", *NAMES, "--store", str(store)]
    return [*command, "--profile", "quick", "-j", "1", *options]


def reports(store: Path) -> dict[str, object]:
    """Key → report, of every document."""
    found = [json.loads(path.read_bytes()) for path in store.glob("*/*.json")]
    return {document["key"]: document["report"] for document in found}


def run(command: list[str], environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )


def test_a_batch_runs_on_it_with_the_results_of_this_machine(
    environment: dict[str, str], tmp_path: Path
) -> None:
    far, near = tmp_path / "far", tmp_path / "near"
    done = run(batch(far, "--executor", "ray"), environment, tmp_path)
    assert done.returncode == 0, done.stderr
    assert run(batch(near), environment, tmp_path).returncode == 0
    assert len(reports(far)) == len(NAMES)
    assert reports(far) == reports(near)


def test_without_its_token_nothing_runs_and_the_hint_says_why(
    environment: dict[str, str], tmp_path: Path
) -> None:
    stranger = {name: value for name, value in environment.items() if not name.startswith("RAY_AUTH")}
    refused = run(batch(tmp_path / "store", "--executor", "ray"), stranger, tmp_path)
    assert refused.returncode == 2
    assert "RAY_AUTH_MODE=token" in refused.stderr
    assert not reports(tmp_path / "store")


@pytest.mark.skipif(
    not ray_cluster.has_job_server(), reason="needs the job server: pip install 'ray[default]'"
)
def test_a_batch_is_submitted_to_its_job_server(
    cluster: Cluster, environment: dict[str, str], tmp_path: Path
) -> None:
    submit = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--address", cluster.jobs]
    settings = {name: environment[name] for name in ("HF_ENDPOINT", "HF_HOME", "FTSEC_AUDIT_CACHE")}
    submit += ["--runtime-env-json", json.dumps({"env_vars": settings}), "--"]
    outside = {name: value for name, value in environment.items() if name not in settings}
    store = tmp_path / "store"
    done = run([*submit, *batch(store, "--executor", "ray")], outside, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(reports(store)) == len(NAMES)


@pytest.fixture(params=["the cluster", "a Ray of its own"])
def driving(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a driver that uses the cluster, or starts a Ray itself and knows no address."""
    if request.param == "the cluster":
        cluster: Cluster = request.getfixturevalue("cluster")
        return cluster.environment
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return with_tests({"OWN_RAY": "1", "RAY_worker_niceness": "0"})


def test_a_killed_driver_loses_and_repeats_nothing_finished(driving: dict[str, str], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "builders.batch_driver", str(tmp_path), *TOLD]
    driver = subprocess.Popen(command, env=driving)
    until(lambda: len(documents(tmp_path)) >= 2)
    started = children(driver.pid)  # its own Ray, if it has one
    assert bool(started) == ("OWN_RAY" in driving)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    actors = [pid for pid, _ in log(tmp_path)]
    until(lambda: not any(map(alive, [*actors, *started])))  # these end too
    kept = documents(tmp_path)
    assert 2 <= len(kept) < len(TOLD)
    begun = Counter(reference for _, reference in log(tmp_path))
    assert run(command, driving, tmp_path).returncode == 0
    after = documents(tmp_path)
    assert len(after) == len(TOLD)
    assert {name: after[name] for name in kept} == kept
    times = Counter(reference for _, reference in log(tmp_path))
    finished = {TOLD[int(name[:64], 16) - 1] for name in kept}
    assert all(times[reference] == 1 for reference in finished)
    assert all(times[reference] <= begun[reference] + 1 for reference in TOLD)
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert events[-1]["finished_before"] == len(kept)
