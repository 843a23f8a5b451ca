"""Object stores as sources, with the genuine client against a server that speaks S3 (moto)."""

from __future__ import annotations

import gc
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.adapters import write_adapter, write_checkpoint
from object_store import CREDENTIALS, ObjectStore, StoreFault

from ftsec_audit import cli
from ftsec_audit.artifact import Artifact, ArtifactKind
from ftsec_audit.batch.job import repository
from ftsec_audit.errors import SourceError
from ftsec_audit.files import LocalBytes
from ftsec_audit.measurement_cache import identity_of_base, identity_of_subject
from ftsec_audit.policy import Policy
from ftsec_audit.sources import identity, pins, resolve, resumed, s3
from ftsec_audit.sources.references import S3Reference, parse
from ftsec_audit.sources.resumed import Position
from ftsec_audit.sources.s3_bucket import Bucket, ObjectRanges
from ftsec_audit.sources.s3_errors import RequestFailed, explained
from ftsec_audit.sources.transfer import Attempts, Backoff, Transfer

pytest.importorskip("boto3", reason="needs the extra s3")
pytest.importorskip("moto", reason="needs a server")

ELSEWHERE = {"x-amz-bucket-region": "eu-west-3"}
ENDLESS = b"<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>"
"""More is to come, and no word on how to ask for it."""
CONTENT = random.Random(0).randbytes(300_000)


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with ObjectStore() as store:
        yield store


@pytest.fixture
def store(server: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """Empty, and where the AWS variables lead; there are no AWS files."""
    server.renew()
    for variable in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(variable, str(tmp_path / "absent"))
    for variable, value in CREDENTIALS.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint)
    monkeypatch.setenv("FTSEC_AUDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return server


def opened(store: ObjectStore, prefix: str, *, whole_below: int = 0) -> s3.S3Opener:
    """Of what lies there, with nothing fetched whole unless it is smaller than that."""
    files = s3.list_s3(S3Reference(bucket=store.bucket, prefix=prefix), store.at(prefix))
    return s3.S3Opener(files=files, whole_below=whole_below, adapter_whole_below=whole_below)


def scan(*arguments: str) -> int:
    return cli.run(["scan", *arguments, "-f", "json=report.json", "--no-progress"])


class TestScan:
    def test_an_adapter_and_its_base_from_the_store(self, store: ObjectStore, tmp_path: Path, capsys) -> None:
        store.upload(write_adapter(tmp_path / "adapter"), "team/adapter")
        store.upload(write_checkpoint(tmp_path / "base"), "team/base")
        assert scan(store.at("team/adapter"), "--base", store.at("team/base"), "-v") == 0
        report = json.loads(Path("report.json").read_text())
        local = resolve(str(tmp_path / "adapter"))
        assert report["artifact"]["resolved"].startswith(store.at("team/adapter@"))
        assert report["artifact"]["digest"] == local.digest, "the same bytes as in the folder"
        assert all(file["digest"].startswith("sha256:") for file in report["artifact"]["files"])
        assert report["base"]["resolved"].startswith(store.at("team/base@"))
        assert report["measurements"], "the weights were compared"
        fetched = sum(path.stat().st_size for path in tmp_path.glob("*/*") if path.suffix != ".json")
        said = capsys.readouterr().err
        transferred = int(said.partition("transferred ")[2].partition(" bytes")[0].replace(",", ""))
        assert fetched <= transferred <= fetched + 50_000, "nothing twice"
        assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in said + Path("report.json").read_text()

    def test_the_verdict_is_that_of_the_folder(self, store: ObjectStore, tmp_path: Path, capsys) -> None:
        adapter = write_adapter(tmp_path / "adapter")
        (adapter / "extra.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
        store.upload(adapter, "hostile")
        assert (
            scan(store.at("hostile"), "--profile", "quick") == scan(str(adapter), "--profile", "quick") == 1
        )

    def test_a_sharded_checkpoint(self, store: ObjectStore, tmp_path: Path) -> None:
        folder = write_checkpoint(tmp_path / "model", shards=3)
        store.upload(folder, "model")
        there, here = resolve(store.at("model")), resolve(str(folder))
        assert there.kind is ArtifactKind.CHECKPOINT
        assert len(there.weight_files) == 3
        assert sorted(there.tensors()) == sorted(here.tensors())
        assert all(there.tensors().read(name).equal(here.tensors().read(name)) for name in here.tensors())

    def test_a_single_object_is_a_file(self, store: ObjectStore, tmp_path: Path) -> None:
        weights = (write_adapter(tmp_path / "a") / "adapter_model.safetensors").read_bytes()
        store.put({"a/model.safetensors": weights, "a/model.safetensors.sig": b"", "a/model": b"x"})
        [file] = resolve(store.at("a/model.safetensors")).files
        assert (file.path, file.read(1 << 20)) == ("model.safetensors", weights)
        assert [file.path for file in resolve(store.at("a/model")).files] == ["model"]

    def test_what_only_begins_alike_does_not_belong_to_it(self, store: ObjectStore) -> None:
        store.put({"model/config.json": b"{}", "model-2/config.json": b"{}", "model.txt": b"", "model/": b""})
        assert [file.path for file in resolve(store.at("model")).files] == ["config.json"]
        assert [file.path for file in resolve(store.at("model/")).files] == ["config.json"]
        assert len(resolve(f"s3://{store.bucket}").files) == 3

    def test_files_are_those_that_were_listed(self, store: ObjectStore, tmp_path: Path) -> None:
        store.upload(write_adapter(tmp_path / "adapter"), "adapter")
        artifact = resolve(store.at("adapter"))
        store.upload(write_adapter(tmp_path / "other", seed=7), "adapter")
        with pytest.raises(SourceError, match="replaced since it was listed"):
            artifact.exact_digest()


def test_a_store_that_sends_nothing_again_and_again_is_told_of() -> None:
    attempts = Attempts(Backoff(first_wait=0), Transfer())
    with (
        pytest.raises(SourceError, match=r"s3://b/k: http://e: the answer ended early \(try again"),
        explained("s3://b/k", "http://e"),
    ):
        resumed.fetch(Position(0, 5, bytearray().extend), lambda _: None, attempts, (RequestFailed,))


class TestNames:
    def test_hostile_keys_are_only_names(self, store: ObjectStore, tmp_path: Path) -> None:
        keys = [
            "../up",
            "a/../../up",
            "/etc/passwd",
            "/",
            "./x",
            "a\x1b[31m\x07",
            "x+y %41&?#",
            "é€/ü",
            "\\a",
            "~",
        ]
        store.put({f"m/{key}": key.encode() for key in keys})
        before = set(tmp_path.rglob("*"))
        artifact = resolve(store.at("m"))
        assert sorted(file.path for file in artifact.files) == sorted(keys)
        for file in artifact.files:
            assert file.read(100) == file.path.encode()
            reader = file.open()
            assert isinstance(reader, LocalBytes)
            assert reader.path.name.isdigit(), "copied under a name of our own"
        assert set(tmp_path.rglob("*")) == before

    def test_copies_last_as_long_as_they_may_be_opened(self, store: ObjectStore) -> None:
        store.put({"m/config.json": b"{}"})
        artifact = resolve(store.at("m"))
        reader = artifact.files[0].open()
        assert isinstance(reader, LocalBytes)
        folder, files = reader.path.parent, artifact.files
        del artifact
        gc.collect()
        assert files[0].read(10) == b"{}"
        del files, reader
        gc.collect()
        assert not folder.exists()

    def test_thousands_of_objects(self, store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
        store.fill(f"m/{number:04}" for number in range(2100))
        assert len(resolve(store.at("m")).files) == 2100
        assert len(store.log) == 3, "a thousand to a page"
        monkeypatch.setattr(s3, "_MOST", 2000)
        with pytest.raises(SourceError, match="more than 2,000 objects"):
            resolve(store.at("m"))


class TestRanges:
    def test_of_a_large_object_only_what_is_read_is_fetched(self, store: ObjectStore) -> None:
        store.put({"m/big": CONTENT * 10})
        opener = opened(store, "m", whole_below=1000)
        reader = opener("big")
        assert reader.size == 3_000_000
        assert reader.read_at(1_500_000, 100) == CONTENT[:100]
        assert reader.read_at(2_999_990, 100) == CONTENT[-10:]
        [first, second] = store.reads()
        assert first.range == "bytes=1310720-1572863"
        assert first.if_match == second.if_match != ""
        assert 262_144 < opener.files.bucket.transfer.bytes < 800_000

    def test_every_byte_arrives_once_though_connections_break(
        self, store: ObjectStore, waits: list[float]
    ) -> None:
        store.put({"m/big": CONTENT})
        store.faults += [
            StoreFault(path="*/big", times=2, status=503, code="SlowDown", headers={"Retry-After": "3"}),
            StoreFault(path="*/big", times=1, cut_after=100_000),
        ]
        assert opened(store, "m")("big").read_at(0, len(CONTENT)) == CONTENT
        assert waits[:2] == [3.0, 3.0], "as long as the store asks for"
        assert store.reads()[-1].range == f"bytes=100000-{len(CONTENT) - 1}"

    def test_a_store_that_keeps_failing_is_given_up(self, store: ObjectStore, waits: list[float]) -> None:
        store.put({"m/big": CONTENT})
        opener = opened(store, "m")
        store.faults.append(StoreFault(path="*/big", status=500))
        with pytest.raises(SourceError, match=r"failed \(HTTP 500, InternalError"):
            opener("big").read_at(0, 10)
        assert len(waits) == 4
        assert opener.files.bucket.transfer.given_up == 1

    def test_a_store_that_is_slow_is_not_waited_for_endlessly(
        self, store: ObjectStore, waits: list[float]
    ) -> None:
        store.put({"m/big": CONTENT})
        listed = opened(store, "m").files.objects["big"]
        store.faults.append(StoreFault(path="*/big", delay=1.0))
        ranges = ObjectRanges(Bucket.from_environment(store.bucket, timeout=0.2), listed)
        with pytest.raises(SourceError, match=r"cannot reach http://127.0.0.1:\d+ \(ReadTimeoutError\)"):
            ranges.fetch(0, 10, bytearray().extend)

    def test_an_object_that_was_replaced_is_an_error(self, store: ObjectStore) -> None:
        store.put({"m/big": CONTENT})
        reader = opened(store, "m")("big")
        assert reader.read_at(0, 10) == CONTENT[:10]
        store.put({"m/big": CONTENT[::-1]})
        with pytest.raises(SourceError, match="replaced since it was listed"):
            reader.read_at(280_000, 10)

    def test_a_store_that_ignores_conditions_does_not_get_away_with_it(self, store: ObjectStore) -> None:
        store.put({"m/big": CONTENT})
        reader = opened(store, "m")("big")
        store.put({"m/big": CONTENT[::-1]})
        store.faults.append(StoreFault(path="*/big", ignore_match=True))
        with pytest.raises(SourceError, match="replaced since it was listed"):
            reader.read_at(0, 10)

    def test_the_same_content_written_again_is_not_mixed_with_the_first(self, store: ObjectStore) -> None:
        store.client.put_bucket_versioning(Bucket=store.bucket, VersioningConfiguration={"Status": "Enabled"})
        store.put({"m/big": CONTENT})
        reader = opened(store, "m")("big")
        reader.read_at(0, 10)
        store.put({"m/big": CONTENT})
        with pytest.raises(SourceError, match="replaced since it was listed"):
            reader.read_at(280_000, 10)

    def test_an_object_that_was_removed_is_an_error(self, store: ObjectStore) -> None:
        store.put({"m/big": CONTENT})
        reader = opened(store, "m")("big")
        store.client.delete_object(Bucket=store.bucket, Key="m/big")
        with pytest.raises(SourceError, match="removed since it was listed"):
            reader.read_at(0, 10)

    def test_a_store_that_sends_the_whole_for_a_part(self, store: ObjectStore) -> None:
        store.put({"m/big": CONTENT})
        store.faults.append(StoreFault(path="*/big", ignore_range=True))
        assert opened(store, "m", whole_below=1 << 20)("big").read_at(0, 1 << 20) == CONTENT
        with pytest.raises(SourceError, match="cannot send a part"):
            opened(store, "m")("big").read_at(280_000, 10)

    def test_without_room_on_the_disk_ranges_are_read(
        self, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store.put({"m/big": CONTENT})
        usage = type("Usage", (), {"free": 1000})
        monkeypatch.setattr("ftsec_audit.sources.s3.shutil.disk_usage", lambda _: usage)
        assert resolve(store.at("m")).files[0].read(10) == CONTENT[:10]
        assert store.reads()[-1].range == "bytes=0-262143"


class TestErrors:
    def fails(self, reference: str, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
        assert cli.run(["scan", reference, "--no-progress", *arguments]) == 2
        said = capsys.readouterr().err
        assert "Traceback" not in said
        return said

    def test_nothing_there(self, store: ObjectStore, capsys) -> None:
        store.put({"m/x": b""})
        assert "no object there (check the prefix)" in self.fails(store.at("absent"), capsys)
        assert "no such bucket (check the spelling" in self.fails("s3://not-here/m", capsys)

    def test_access_denied(self, store: ObjectStore, capsys) -> None:
        store.put({"m/config.json": b"{}"})
        deny = {"Effect": "Deny", "Principal": "*", "Action": ["s3:GetObject"]}
        statement = deny | {"Resource": [f"arn:aws:s3:::{store.bucket}/*"]}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        store.client.put_bucket_policy(Bucket=store.bucket, Policy=policy)
        said = self.fails(store.at("m"), capsys)
        assert "m/config.json: access denied" in said
        assert "s3:GetObject" in said

    @pytest.mark.parametrize(
        ("fault", "said"),
        [
            (StoreFault(status=403, code="AccessDenied"), "access denied (AccessDenied: so says the store)"),
            (StoreFault(status=403, code="SignatureDoesNotMatch"), "does not accept the credentials"),
            (StoreFault(status=400, code="ExpiredToken"), "does not accept the credentials"),
            (
                StoreFault(
                    status=301, code="PermanentRedirect", headers={"x-amz-bucket-region": "eu-west-3"}
                ),
                "the bucket is in the region eu-west-3 (PermanentRedirect) (set AWS_REGION=eu-west-3)",
            ),
            (StoreFault(status=404, code="404"), "failed (HTTP 404"),
            (StoreFault(status=200, page=b"<html/>"), "does not list objects as S3 does"),
            (StoreFault(status=200, page=ENDLESS), "does not list objects as S3 does"),
        ],
    )
    def test_what_the_store_says(self, store: ObjectStore, fault: StoreFault, said: str, capsys) -> None:
        store.faults.append(fault)
        assert said in self.fails(store.at("m"), capsys)

    def test_nobody_answers(self, store: ObjectStore, waits: list[float], monkeypatch, capsys) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:hidden@127.0.0.1:9")
        said = self.fails(store.at("m"), capsys)
        assert "cannot reach http://127.0.0.1:9 (EndpointConnectionError)" in said
        assert "hidden" not in said

    def test_no_credentials(self, store: ObjectStore, monkeypatch, capsys) -> None:
        for variable in CREDENTIALS:
            monkeypatch.delenv(variable)
        assert "no AWS credentials were found (set AWS_PROFILE" in self.fails(store.at("m"), capsys)

    def test_no_such_profile(self, store: ObjectStore, monkeypatch, capsys) -> None:
        monkeypatch.setenv("AWS_PROFILE", "nobody")
        said = self.fails(store.at("m"), capsys)
        assert "nobody" in said
        assert "~/.aws/config" in said

    def test_an_endpoint_that_is_none(self, store: ObjectStore, monkeypatch, capsys) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "not an address")
        assert "the AWS client says: Invalid endpoint" in self.fails(store.at("m"), capsys)

    def test_offline(self, store: ObjectStore, capsys) -> None:
        assert "this audit is offline" in self.fails(store.at("m"), capsys, "--offline")
        assert store.log == []

    def test_without_the_client(self, store: ObjectStore, monkeypatch, capsys) -> None:
        monkeypatch.setitem(sys.modules, "boto3", None)
        assert "pip install 'ftsec-audit[s3]'" in self.fails(store.at("m"), capsys)

    def test_an_adapter_cannot_send_the_scan_to_a_bucket(
        self, store: ObjectStore, tmp_path: Path, capsys
    ) -> None:
        place = store.at("base")
        write_adapter(tmp_path / "adapter", base_model_name_or_path=place)
        scan(str(tmp_path / "adapter"))
        assert store.log == []


class TestState:
    """A reference with the state of the listing means these objects and no others."""

    def test_a_pin_is_refused_once_something_changes(self, store: ObjectStore) -> None:
        store.put({"m/config.json": b"{}", "m/x": b"1"})
        assert pins.is_open(store.at("m"))
        pinned = pins.pinned(store.at("m/"))
        assert not pins.is_open(pinned)
        assert pins.pinned(pinned) == pinned
        assert resolve(pinned).resolved == pinned
        store.put({"m/x": b"2"})
        with pytest.raises(SourceError, match="not those that were pinned"):
            resolve(pinned)

    @pytest.mark.parametrize("change", ["added", "removed"])
    def test_also_when_an_object_comes_or_goes(self, store: ObjectStore, change: str) -> None:
        store.put({"m/config.json": b"{}", "m/x": b"1"})
        pinned = pins.pinned(store.at("m"))
        if change == "added":
            store.put({"m/y": b""})
        else:
            store.client.delete_object(Bucket=store.bucket, Key="m/x")
        with pytest.raises(SourceError, match="not those that were pinned"):
            resolve(pinned)

    def test_pinned_lists_satisfy_the_strict_policy(self, store: ObjectStore, tmp_path: Path, capsys) -> None:
        store.upload(write_adapter(tmp_path / "adapter"), "adapter")
        models = tmp_path / "models.yaml"
        models.write_text(f"models:\n  - {store.at('adapter')}   # ours\n")
        assert cli.run(["pin", "models.yaml", "--check"]) == 1
        assert cli.run(["pin", "models.yaml"]) == 0
        assert cli.run(["pin", "models.yaml", "--check"]) == 0
        assert models.read_text().endswith("   # ours\n")
        scan("-r", "models.yaml", "--profile", "quick", "--policy", "strict")
        assert "pinned_revision" not in capsys.readouterr().out
        looks_pinned = f"team@{'0' * 64}/adapter"
        store.upload(tmp_path / "adapter", looks_pinned)
        scan(store.at(looks_pinned), "--profile", "quick", "--policy", "strict")
        assert Policy.load("strict").provenance.pinned_revision
        assert "names no full commit" in capsys.readouterr().out

    def test_a_batch_knows_it_by_its_listing(self, store: ObjectStore) -> None:
        store.put({"m/config.json": b"{}", "m/x": b"12345"})
        glance = identity.glance(store.at("m"))
        assert store.reads() == []
        assert (glance.size, glance.pinned) == (7, identity.at_length(resolve(store.at("m"))).pinned)
        assert repository(glance.pinned) == store.at("m")

    def test_measurements_are_kept_by_content_not_by_what_the_store_says(self, store: ObjectStore) -> None:
        store.put({"m/config.json": b"{}"})
        artifact: Artifact = resolve(store.at("m"))
        assert identity_of_subject(artifact) == artifact.digest
        assert identity_of_base(artifact) == artifact.resolved

    def test_counting(self, store: ObjectStore) -> None:
        store.put({"m/x": CONTENT})
        transfer = Transfer()
        resolve(store.at("m"), transfer=transfer).files[0].read(10)
        assert transfer.requests == 2
        assert len(CONTENT) < transfer.bytes < len(CONTENT) + 2000


class TestGrammar:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("s3://bucket", S3Reference(bucket="bucket")),
            ("s3://bucket/", S3Reference(bucket="bucket")),
            ("S3://my.bucket/a/b/", S3Reference(bucket="my.bucket", prefix="a/b")),
            ("s3://bucket/a@b", S3Reference(bucket="bucket", prefix="a@b")),
            ("s3://bucket/a/../b", S3Reference(bucket="bucket", prefix="a/../b")),
            (f"s3://bucket/a@{'0f' * 32}", S3Reference(bucket="bucket", prefix="a", state="0f" * 32)),
            (f"s3://bucket@{'0f' * 32}", S3Reference(bucket="bucket", state="0f" * 32)),
        ],
    )
    def test_places(self, text: str, expected: S3Reference) -> None:
        assert parse(text) == expected
        assert parse(str(expected)) == expected

    @pytest.mark.parametrize(
        "text", ["s3://", "s3:///a", "s3://-b/a", "s3://b ucket/a", "s3://a\nb/c", "s3:/b/a"]
    )
    def test_what_names_no_place_is_refused(self, text: str) -> None:
        with pytest.raises(SourceError):
            parse(text)

    def test_there_are_no_revisions(self) -> None:
        with pytest.raises(SourceError, match="no revision"):
            parse("s3://bucket/a", revision="main")
