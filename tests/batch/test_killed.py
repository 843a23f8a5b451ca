"""Real drivers and workers, killed for real, and disks that are really full."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.batch_driver import batch
from builders.batch_work import job
from builders.hubs import with_tests
from builders.killing import alive, documents, log, until

from ftsec_audit.batch.record import Record

REFERENCES = [f"slow:{number}" for number in range(8)]


def driver(folder: Path, references: list[str] = REFERENCES, **options: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "builders.batch_driver", str(folder), *references]
    return subprocess.Popen(command, env=with_tests(), **options)  # type: ignore[call-overload]


@pytest.mark.parametrize("finished", [0, 1, 4])
def test_a_killed_driver_loses_and_repeats_nothing_finished(tmp_path: Path, finished: int) -> None:
    process = driver(tmp_path)
    until(lambda: len(log(tmp_path)) > 0 and len(documents(tmp_path)) >= finished)
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: not any(alive(pid) for pid, _ in log(tmp_path)))  # orphans would scan behind our back
    kept = documents(tmp_path)
    assert finished <= len(kept) < len(REFERENCES)
    started_before = {name for _, name in log(tmp_path)}
    again = driver(tmp_path)
    assert again.wait(120) == 0
    after = documents(tmp_path)
    assert len(after) == len(REFERENCES)
    assert {name: after[name] for name in kept} == kept
    times = Counter(name for _, name in log(tmp_path))
    finished_names = {REFERENCES[int(name[:64], 16) - 1] for name in kept}
    assert all(times[name] == 1 for name in finished_names)
    assert all(times[name] <= 2 for name in started_before)
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert events[-1]["finished_before"] == len(kept)


def test_a_killed_worker_is_replaced_and_its_artifact_done_by_the_next_run(tmp_path: Path) -> None:
    process = driver(tmp_path)
    until(lambda: len(log(tmp_path)) >= 2)
    victim, reference = log(tmp_path)[1]
    os.kill(victim, signal.SIGKILL)
    assert process.wait(120) == 0
    names = set(documents(tmp_path))
    assert len(names) == len(REFERENCES)
    number = REFERENCES.index(reference) + 1
    failed = f"{job(reference, number).key}.failed-1.json"
    if failed not in names:  # it was killed between storing and telling, and nothing was lost at all
        assert f"{job(reference, number).key}.json" in names
    assert driver(tmp_path).wait(120) == 0
    reports = [name for name in documents(tmp_path) if "failed" not in name]
    assert len(reports) == len(REFERENCES)


def test_an_interrupted_driver_ends_its_workers_and_keeps_the_rest(tmp_path: Path) -> None:
    references = [f"slow:{number}" for number in range(200)]  # more than a busy machine gets done meanwhile
    # A shell that starts something in the background lets it ignore Ctrl-C, and so all that it starts.
    process = driver(
        tmp_path,
        references,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until(lambda: len(documents(tmp_path)) >= 1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the driver and its workers
    assert process.wait(60) == 0
    assert 1 <= len(documents(tmp_path)) < len(references)
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert events[-1]["interrupted"] is True
    assert not any(alive(pid) for pid, _ in log(tmp_path))


def test_a_full_disk_ends_the_run_with_nothing_half_written(tmp_path: Path) -> None:
    """No file of the processes may grow beyond 1 kB, less than any document: writing breaks off midway."""

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    process = driver(tmp_path, ["a", "b"], preexec_fn=small_files, stderr=subprocess.PIPE)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert b"File too large" in errors
    assert not documents(tmp_path)
    assert not list((tmp_path / "store").glob("*/.*"))
    assert batch(tmp_path, ["a", "b"]).run().done == 2


def test_a_disk_that_fills_up_in_the_middle_costs_only_what_did_not_fit(small_disk: Path) -> None:
    references = [f"ok:{number}" for number in range(60)]
    process = driver(small_disk, references, stderr=subprocess.PIPE)
    _, errors = process.communicate(timeout=120)
    assert process.returncode != 0
    assert b"No space left" in errors
    kept = documents(small_disk)
    assert 1 < len(kept) < len(references)
    for content, _ in kept.values():
        assert Record.parse(content).report is not None
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk / "store")], check=True)
    assert driver(small_disk, references).wait(120) == 0
    after = documents(small_disk)
    assert len(after) == len(references)
    assert {name: after[name] for name in kept} == kept
    done = Counter(reference for _, reference in log(small_disk))
    assert all(done[references[int(name[:64], 16) - 1]] == 1 for name in kept)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder whose `store` has room for a few documents."""
    (tmp_path / "store").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=800k", "tmpfs", str(tmp_path / "store")]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path / "store")], check=True)
