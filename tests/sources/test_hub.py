"""The genuine Hub client against a real server on this machine."""

from __future__ import annotations

import errno
import json
import shutil
import struct
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import BinaryIO

import pytest
from hub_server import Content, Fault, HubServer

from ftsec_audit.errors import SourceError
from ftsec_audit.files import LocalBytes
from ftsec_audit.sources import resolve
from ftsec_audit.sources.connection import Connection
from ftsec_audit.sources.hub import resolve_hub
from ftsec_audit.sources.references import HubReference
from ftsec_audit.sources.remote_bytes import RemoteBytes
from ftsec_audit.sources.transfer import Backoff, Transfer

MIB = 1 << 20
WEIGHTS = bytes(range(256)) * 4096  # 1 MiB
SMALL = {
    "README.md": b"# Model\n",
    "adapter_config.json": b'{"peft_type": "LORA", "r": 8}',
    "adapter_model.safetensors": WEIGHTS,
}


def read_all(reference: str, **options: object) -> dict[str, bytes]:
    artifact = resolve(reference, **options)  # type: ignore[arg-type]
    return {file.path: file.read(file.size) for file in artifact.files}


# --- first run, cached run, revisions ------------------------------------------------------------


def test_first_run_fetches_each_byte_once_and_the_cached_run_none(hub: HubServer) -> None:
    hub.add("org/m", SMALL)
    first, second = Transfer(), Transfer()
    assert read_all("org/m", transfer=first) == SMALL
    sent = hub.log.bytes_sent()
    assert first.bytes == sent
    assert first.requests == len(hub.log)
    size = sum(map(len, SMALL.values()))
    assert size < sent < size + 2000

    hub.log.clear()
    assert read_all("org/m", transfer=second) == SMALL
    assert [request.path for request in hub.log] == ["/api/models/org/m/revision/main?blobs=true"]
    assert second.requests == 1
    assert second.bytes == hub.log.bytes_sent() < 2000


def test_metadata_comes_before_bytes_and_only_what_is_opened_is_fetched(hub: HubServer) -> None:
    hub.add("org/m", SMALL)
    artifact = resolve("org/m")
    assert {file.path: file.size for file in artifact.files} == {
        name: len(data) for name, data in SMALL.items()
    }
    assert hub.log.of("adapter_model") == []
    weights = artifact.file("adapter_model.safetensors")
    assert weights is not None
    assert weights.digest == f"sha256:{Content(WEIGHTS).sha256}"
    assert isinstance(weights.open(), LocalBytes)
    assert hub.log.bytes_sent("blobs/") == len(WEIGHTS)


def test_the_cache_is_the_one_that_every_other_tool_uses(hub: HubServer, tmp_path: Path) -> None:
    from huggingface_hub import hf_hub_download, scan_cache_dir

    hub.add("org/m", SMALL)
    read_all("org/m")
    hub.log.clear()
    cache = tmp_path / "hf" / "hub"
    hf_hub_download("org/m", "adapter_model.safetensors", endpoint=hub.endpoint, cache_dir=cache)
    assert hub.log.bytes_sent() == 0
    report = scan_cache_dir(cache)
    assert report.warnings == []
    assert [repo.repo_id for repo in report.repos] == ["org/m"]


def test_a_revision_is_pinned_to_its_commit(hub: HubServer) -> None:
    repository = hub.add("org/m", {"config.json": b"old"})
    old = repository.at("main")
    assert old is not None
    new = repository.commit({"config.json": b"new"}, tag="v2")
    repository.commit({"config.json": b"pull"}, branch="refs/pr/1")

    assert resolve("org/m").resolved == f"org/m@{new}"
    assert read_all(f"org/m@{old.sha}") == {"config.json": b"old"}
    assert read_all(f"org/m@{old.sha[:8]}") == {"config.json": b"old"}
    assert read_all("org/m@v2") == {"config.json": b"new"}
    assert read_all("org/m", revision="v2") == {"config.json": b"new"}
    assert read_all("hf://org/m@refs/pr/1") == {"config.json": b"pull"}


def test_a_branch_that_moves_after_it_was_resolved_changes_nothing(hub: HubServer) -> None:
    repository = hub.add("org/m", {"config.json": b"old"})
    artifact = resolve("org/m")
    repository.commit({"config.json": b"new!"})
    assert artifact.files[0].read(10) == b"old"
    assert read_all("org/m") == {"config.json": b"new!"}


def test_a_pinned_and_cached_commit_needs_no_request_at_all(hub: HubServer) -> None:
    sha = hub.add("org/m", SMALL).at("main").sha  # type: ignore[union-attr]
    read_all(f"org/m@{sha}")
    hub.log.clear()
    assert read_all(f"org/m@{sha}") == SMALL
    assert len(hub.log) == 0


def test_a_folder_or_a_file_of_a_repository(hub: HubServer) -> None:
    sha = hub.add("org/m", {"config.json": b"{}", "a/b/config.json": b"[]", "a/bc": b"x"}).at("main").sha  # type: ignore[union-attr]
    folder = resolve("hf://org/m@main/a/b")
    assert folder.resolved == f"org/m@{sha}/a/b"
    assert {file.path: file.read(9) for file in folder.files} == {"config.json": b"[]"}
    assert read_all("org/m/a/bc") == {"bc": b"x"}
    assert read_all("hf://org/m@main/config.json") == {"config.json": b"{}"}
    with pytest.raises(SourceError, match="no such folder or file"):
        resolve("hf://org/m@main/c")


def test_a_repository_with_more_files_than_its_page_shows(hub: HubServer) -> None:
    files = {f"part-{number:05}.json": b"{}" for number in range(2300)}
    hub.add("org/m", files)
    assert len(resolve("org/m").files) == 2300
    assert len(hub.log.of("/tree/")) == 3


def test_an_empty_file_and_an_empty_repository(hub: HubServer) -> None:
    hub.add("org/m", {"empty.txt": b""})
    hub.add("org/nothing", {})
    assert read_all("org/m") == {"empty.txt": b""}
    assert resolve("org/nothing").files == ()


def test_nobody_but_the_hub_is_told_anything(hub: HubServer) -> None:
    hub.add("org/m", {"config.json": b"{}"})
    read_all("org/m")
    assert {request.path.split("?")[0].split("/")[1] for request in hub.log} == {"api", "org"}
    assert all(request.path.startswith(("/api/models/org/m/", "/org/m/")) for request in hub.log)
    assert all(request.user_agent.startswith("ftsec-audit/") for request in hub.log)


# --- interrupted downloads -----------------------------------------------------------------------


def test_a_broken_connection_is_resumed_within_a_run(hub: HubServer, waits: list[float]) -> None:
    hub.add("org/m", SMALL)
    hub.faults.append(Fault(host="storage", cut_after=200_000, times=3))
    assert read_all("org/m") == SMALL
    assert hub.log.bytes_sent("/blobs/") == len(WEIGHTS)
    assert [r.range for r in hub.log.of("/blobs/")] == [
        f"bytes={n}-1048575" for n in (0, 200000, 400000, 600000)
    ]
    assert waits == [1.0, 1.0, 1.0]  # each attempt made headway, so patience starts anew


def test_an_interrupted_download_is_resumed_by_the_next_run(
    hub: HubServer, tmp_path: Path, waits: list[float]
) -> None:
    hub.add("org/m", SMALL)
    hub.faults += [Fault(host="storage", cut_after=600_000, times=1), Fault(host="storage", status=503)]
    with pytest.raises(SourceError, match="HTTP 503"):
        read_all("org/m")
    hub.faults.clear()
    assert read_all("org/m") == SMALL
    assert hub.log.of("/blobs/")[-1].range == "bytes=600000-1048575"
    assert hub.log.bytes_sent("/blobs/") == len(WEIGHTS)
    assert list(tmp_path.rglob("*.incomplete")) == []


def test_control_c_keeps_what_was_downloaded(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from ftsec_audit.contracts import Progress

    class Interrupting(Progress):
        done = 0

        def advance(self, amount: int = 1) -> None:
            self.done += amount
            if self.done > 500_000:
                raise KeyboardInterrupt

    hub.add("org/m", SMALL)
    with pytest.raises(KeyboardInterrupt):
        read_all("org/m", progress=Interrupting())
    assert read_all("org/m") == SMALL
    start = int(hub.log.of("/blobs/")[-1].range.removeprefix("bytes=").split("-")[0])
    assert 400_000 < start < len(WEIGHTS)


def test_a_partial_file_of_other_content_is_found_out(hub: HubServer, tmp_path: Path) -> None:
    hub.add("org/m", SMALL)
    resolve("org/m")
    blobs = tmp_path / "hf" / "hub" / "models--org--m" / "blobs"
    blobs.mkdir(exist_ok=True)
    (blobs / f"{Content(WEIGHTS).sha256}.incomplete").write_bytes(b"?" * 1000)
    with pytest.raises(SourceError, match="does not have the digest"):
        read_all("org/m")
    assert read_all("org/m") == SMALL


def test_corrupted_bytes_never_reach_the_cache(hub: HubServer, tmp_path: Path) -> None:
    hub.add("org/m", SMALL)
    hub.faults.append(Fault(host="storage", corrupt=True))
    with pytest.raises(SourceError, match="does not have the digest the Hub announces"):
        read_all("org/m")
    assert not [
        path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size == len(WEIGHTS)
    ]


def test_a_server_that_ignores_ranges_is_read_from_its_start(hub: HubServer, waits: list[float]) -> None:
    hub.add("org/m", SMALL)
    hub.faults += [
        Fault(host="storage", cut_after=600_000, times=1),
        Fault(host="storage", ignore_range=True),
    ]
    assert read_all("org/m") == SMALL


def test_a_server_that_sends_nothing_is_given_up(hub: HubServer, waits: list[float]) -> None:
    hub.add("org/m", SMALL)
    hub.faults.append(Fault(host="storage", cut_after=0))
    with pytest.raises(SourceError):
        read_all("org/m")
    assert waits == [1.0, 2.0, 4.0, 8.0]


# --- byte ranges of a large file -----------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sparse safetensors file of 96 tensors of 1 MiB; tensor 40 holds WEIGHTS, the others zeros."""
    header = {
        f"layer.{n}": {"dtype": "U8", "shape": [MIB], "data_offsets": [n * MIB, (n + 1) * MIB]}
        for n in range(96)
    }
    text = json.dumps(header).encode()
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.seek(40 * MIB, 1)
        file.write(WEIGHTS)
        file.truncate(8 + len(text) + 96 * MIB)
    return path


def test_one_tensor_of_a_large_file_costs_a_few_percent_of_it(hub: HubServer, checkpoint: Path) -> None:
    hub.add("org/big", {"config.json": b"{}", "model.safetensors": checkpoint})
    transfer = Transfer()
    file = resolve("org/big", transfer=transfer).file("model.safetensors")
    assert file is not None
    reader = file.open()
    assert isinstance(reader, RemoteBytes)
    (length,) = struct.unpack("<Q", reader.read_at(0, 8))
    begin, end = json.loads(reader.read_at(8, length))["layer.40"]["data_offsets"]
    assert reader.read_at(8 + length + begin, end - begin) == WEIGHTS
    assert hub.log.bytes_sent("/blobs/") < 0.03 * file.size
    assert transfer.bytes == hub.log.bytes_sent()
    assert len(hub.log.of("model.safetensors")) == 1  # the detour over the Hub, however often it is opened


def test_reading_a_large_file_through_takes_few_requests(hub: HubServer, checkpoint: Path) -> None:
    hub.add("org/big", {"model.safetensors": checkpoint})
    reader = resolve("org/big").files[0].open()
    for offset in range(0, 48 * MIB, MIB):
        assert len(reader.read_at(offset, MIB)) == MIB
    assert len(hub.log.of("/blobs/")) < 16
    assert hub.log.bytes_sent("/blobs/") < 57 * MIB


def test_a_range_survives_a_broken_connection_and_an_expired_address(
    hub: HubServer, checkpoint: Path, waits: list[float]
) -> None:
    hub.add("org/big", {"model.safetensors": checkpoint})
    reader = resolve("org/big").files[0].open()
    whole = checkpoint.read_bytes()
    hub.faults.append(Fault(host="storage", cut_after=100_000, times=1))
    assert reader.read_at(5, 300_000) == whole[5:300_005]
    hub.faults.append(Fault(host="storage", status=403, times=1))
    assert reader.read_at(40 * MIB, 70_000) == whole[40 * MIB : 40 * MIB + 70_000]


def test_a_large_file_is_not_read_through_by_a_server_without_ranges(
    hub: HubServer, checkpoint: Path
) -> None:
    hub.add("org/big", {"model.safetensors": checkpoint})
    hub.faults.append(Fault(host="storage", ignore_range=True))
    reader = resolve("org/big").files[0].open()
    with pytest.raises(SourceError, match="cannot send a part"):
        reader.read_at(80 * MIB, 10)


def test_a_file_that_shrank_on_the_server_is_an_error(hub: HubServer, checkpoint: Path) -> None:
    hub.add("org/big", {"model.safetensors": checkpoint})
    reader = resolve("org/big").files[0].open()
    reader.read_at(0, 10)
    hub.blobs.update(dict.fromkeys(hub.blobs, Content(b"s" * 2 * MIB)))
    with pytest.raises(SourceError, match="shorter on the server"):
        reader.read_at(80 * MIB, 10)
    with pytest.raises(SourceError, match="another part of the file"):
        reader.read_at(MIB, 10)


def test_a_large_file_that_is_cached_is_read_from_disk(
    hub: HubServer, checkpoint: Path, tmp_path: Path
) -> None:
    from huggingface_hub import hf_hub_download

    hub.add("org/big", {"model.safetensors": checkpoint})
    hf_hub_download("org/big", "model.safetensors", endpoint=hub.endpoint, cache_dir=tmp_path / "hf" / "hub")
    assert isinstance(resolve("org/big").files[0].open(), LocalBytes)


# --- who may read what ---------------------------------------------------------------------------


@pytest.mark.parametrize("from_environment", [True, False])
def test_the_token_reaches_the_hub_and_never_the_storage_host(
    hub: HubServer, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, from_environment: bool
) -> None:
    hub.add("org/m", SMALL | {"model.safetensors": checkpoint}, private=True, gated=True)  # type: ignore[arg-type]
    if from_environment:
        monkeypatch.setenv("HF_TOKEN", "hf_valid")
    artifact = resolve("org/m", token=None if from_environment else "hf_valid")
    for file in artifact.files:
        reader = file.open()
        reader.read_at(0, 100)
        reader.read_at(file.size // 2, 100)  # for a large file, straight from the storage host
    assert {request.token for request in hub.log if request.host == "hub"} == {"hf_valid"}
    assert {request.token for request in hub.log if request.host == "storage"} == {""}


def test_private_gated_and_missing_repositories(hub: HubServer) -> None:
    hub.add("org/private", SMALL, private=True)
    hub.add("org/gated", SMALL, gated=True)
    with pytest.raises(SourceError, match="no such repository on the Hub, or it is private") as error:
        resolve("org/private")
    assert "HF_TOKEN" in error.value.hint
    assert error.value.where == "org/private"
    with pytest.raises(SourceError, match="no such repository"):
        resolve("org/missing", token="hf_valid")
    with pytest.raises(SourceError, match="gated") as error:
        read_all("org/gated")
    assert f"{hub.endpoint}/org/gated" in error.value.hint
    assert read_all("org/gated", token="hf_valid") == SMALL
    with pytest.raises(SourceError, match=r"refuses access \(HTTP 401\)"):
        resolve("org/private", token="hf_wrong")


def test_a_renamed_repository_is_followed_and_said(hub: HubServer, notes) -> None:  # type: ignore[no-untyped-def]
    hub.add("old/name", SMALL)
    hub.rename("old/name", "new/name")
    artifact = resolve("old/name", progress=notes)
    assert artifact.reference == "old/name"
    assert artifact.resolved.startswith("new/name@")
    assert notes.notes == ["old/name is now called new/name"]
    assert {file.path: file.read(file.size) for file in artifact.files} == SMALL
    assert read_all("old/name", offline=True) == SMALL


# --- the Hub in trouble --------------------------------------------------------------------------


def test_bad_revision_and_missing_file(hub: HubServer) -> None:
    repository = hub.add("org/m", {"notes.txt": b"x"})
    with pytest.raises(SourceError, match="no branch, tag or commit 'v9'"):
        resolve("org/m@v9")
    artifact = resolve("org/m")
    repository.at("main").entries.clear()  # type: ignore[union-attr]
    with pytest.raises(SourceError, match="no such file at this commit"):
        artifact.files[0].open()


def test_a_rate_limit_is_waited_for_as_long_as_the_server_asks(hub: HubServer, waits: list[float]) -> None:
    hub.add("org/m", SMALL)
    hub.faults += [
        Fault(path="/api/*", status=429, headers={"Retry-After": "7"}, times=1),
        Fault(host="storage", status=429, headers={"RateLimit": '"resolvers";r=0;t=9'}, times=1),
    ]
    assert read_all("org/m") == SMALL
    assert waits == [7.0, 9.0]


def test_a_date_until_which_to_wait_is_understood(hub: HubServer, waits: list[float]) -> None:
    hub.add("org/m", SMALL)
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    hub.faults.append(Fault(path="/api/*", status=429, headers={"Retry-After": moment}, times=1))
    assert read_all("org/m") == SMALL
    assert 30 < waits[0] <= 40


def test_a_rate_limit_that_lasts_is_an_error(hub: HubServer, waits: list[float]) -> None:
    hub.add("org/m", SMALL)
    hub.faults.append(Fault(status=429))
    with pytest.raises(SourceError, match="HTTP 429") as error:
        resolve("org/m")
    assert waits == [1.0, 2.0, 4.0, 8.0]
    assert "run again" in error.value.hint
    hub.faults[:] = [Fault(status=429, headers={"Retry-After": "3600"})]
    with pytest.raises(SourceError, match="HTTP 429") as error:
        resolve("org/m")
    assert "wait 3600 s" in error.value.hint
    assert len(waits) == 4  # an hour is not waited for


def test_a_server_error_is_retried_then_reported(hub: HubServer, waits: list[float]) -> None:
    hub.add("org/m", SMALL)
    hub.faults.append(Fault(status=502, times=2))
    assert read_all("org/m") == SMALL
    hub.faults[:] = [Fault(status=500)]
    with pytest.raises(SourceError, match="HTTP 500"):
        resolve("org/m")


def test_no_network(hub: HubServer, waits: list[float]) -> None:
    hub.add("org/m", SMALL)
    artifact = resolve("org/m")
    hub.stop()
    with pytest.raises(SourceError, match="cannot reach") as error:
        resolve("org/m")
    assert "--offline" in error.value.hint
    with pytest.raises(SourceError, match="cannot reach"):
        artifact.files[2].open()


def test_a_server_that_is_no_hub(hub: HubServer) -> None:
    hub.faults.append(Fault(status=200))
    with pytest.raises(SourceError, match="did not answer as a Hub does") as error:
        resolve("org/m")
    assert "HF_ENDPOINT" in error.value.hint


def test_an_endpoint_that_is_no_address(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "ftp://example.org")
    with pytest.raises(SourceError, match="not an http"):
        resolve("org/m")


def test_slow_is_not_broken_but_silent_is(hub: HubServer, tmp_path: Path) -> None:
    hub.add("org/m", {"notes.txt": b"x" * 100_000})
    connection = Connection(
        endpoint=hub.endpoint,
        cache_dir=tmp_path / "cache",
        timeout=0.3,
        backoff=Backoff(attempts=2, first_wait=0.01),
    )
    hub.faults.append(Fault(host="storage", pace=0.1))
    start = time.monotonic()
    file = resolve_hub(connection, HubReference(repository="org/m"), "org/m").files[0]
    assert file.read(3) == b"xxx"
    assert time.monotonic() - start > 0.3  # longer in all than any one wait may be

    hub.add("org/n", {"notes.txt": b"y" * 100_000})
    hub.faults[:] = [Fault(host="storage", delay=2)]
    file = resolve_hub(connection, HubReference(repository="org/n"), "org/n").files[0]
    with pytest.raises(SourceError, match=r"cannot reach .*Timeout"):
        file.open()


# --- offline and the disk ------------------------------------------------------------------------


def test_offline_serves_what_is_cached_and_names_what_is_not(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/m", SMALL)
    artifact = resolve("org/m")
    artifact.files[0].open()
    hub.log.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    offline = resolve("org/m")
    assert (offline.resolved, offline.files[0].read(9)) == (artifact.resolved, b"# Model\n")
    assert [file.path for file in offline.files] == [file.path for file in artifact.files]
    with pytest.raises(SourceError, match="not in the cache, and this audit is offline"):
        offline.files[2].open()
    with pytest.raises(SourceError, match="nothing of it is in the cache"):
        resolve("org/never-seen")
    with pytest.raises(SourceError, match="nothing of it is in the cache"):
        resolve("org/m@v9")
    assert len(hub.log) == 0


def test_offline_with_a_cache_that_another_tool_filled(hub: HubServer, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    sha = hub.add("org/m", SMALL | {"sub/a.json": b"[]"}).at("main").sha  # type: ignore[union-attr]
    snapshot_download("org/m", endpoint=hub.endpoint, cache_dir=tmp_path / "hf" / "hub")
    hub.log.clear()
    artifact = resolve("org/m", offline=True)
    assert artifact.resolved == f"org/m@{sha}"
    assert {file.path: file.read(file.size) for file in artifact.files} == SMALL | {"sub/a.json": b"[]"}
    assert any("only the files in the cache" in problem for problem in artifact.problems)
    assert read_all("hf://org/m@main/sub", offline=True) == {"a.json": b"[]"}
    assert len(hub.log) == 0


def test_an_explicit_cache_directory(hub: HubServer, tmp_path: Path) -> None:
    hub.add("org/m", SMALL)
    read_all("org/m", cache_dir=tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "models--org--m").is_dir()
    assert not (tmp_path / "hf").exists()


def test_a_full_disk_is_said_before_and_while_it_fills(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/m", SMALL)
    with monkeypatch.context() as patch:
        usage = shutil.disk_usage("/")._replace(free=1000)
        patch.setattr("ftsec_audit.sources.download.shutil.disk_usage", lambda path: usage)
        with pytest.raises(SourceError, match=r"full: 1,048,576 bytes needed, 1,000 free") as error:
            read_all("org/m")
        assert "HF_HOME" in error.value.hint

    def full(connection: Connection, out: BinaryIO, piece: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("ftsec_audit.sources.download._append", full)
        with pytest.raises(SourceError, match="the disk that holds the Hub cache is full"):
            read_all("org/m")
    assert read_all("org/m") == SMALL


def test_a_damaged_copy_in_the_cache_is_not_taken_for_the_file(hub: HubServer, tmp_path: Path) -> None:
    hub.add("org/m", SMALL)
    read_all("org/m")
    blob = tmp_path / "hf" / "hub" / "models--org--m" / "blobs" / Content(WEIGHTS).sha256
    blob.write_bytes(b"short")
    with pytest.raises(SourceError, match="another size than the Hub lists") as error:
        read_all("org/m")
    assert error.value.hint == "delete it"


@pytest.mark.parametrize(
    "name",
    [
        "../../../evil.json",
        "/etc/evil.json",
        "a/../../../../evil.json",
        "C:\\evil.json",
        "a//evil.json",
        "a/C:evil.json",
        "..\\evil.json",
    ],
)
def test_a_name_that_leads_out_of_the_cache_is_listed_and_never_written(
    hub: HubServer, tmp_path: Path, name: str
) -> None:
    hub.add("org/m", {name: b"evil", "config.json": b"{}"})
    file = next(file for file in resolve("org/m").files if file.path == name)
    with pytest.raises(SourceError, match="could lead out of the cache"):
        file.open()
    assert list(tmp_path.rglob("*evil*")) == []


def test_progress_is_told_the_bytes(hub: HubServer, notes) -> None:  # type: ignore[no-untyped-def]
    hub.add("org/m", SMALL)
    read_all("org/m", progress=notes)
    assert notes.advanced == sum(map(len, SMALL.values()))
