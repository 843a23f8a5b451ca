"""Registered models as targets, against a genuine MLflow server: scan, tags, and an alias only on PASS."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders import registry
from builders.adapters import write_adapter

from ftsec_audit import cli
from ftsec_audit.errors import SourceError
from ftsec_audit.sources import pins, resolve
from ftsec_audit.sources.identity import at_length
from ftsec_audit.sources.mlflow_registry import ModelVersion, Registry
from ftsec_audit.sources.references import MlflowReference, parse

pytest.importorskip("mlflow", reason="needs the extra mlflow")
pytest.importorskip("flask", reason="needs what an MLflow server is made of")
pytest.importorskip("alembic", reason="needs what an MLflow server is made of")

pytestmark = pytest.mark.timeout(600)  # of which most, on a busy machine, is the server's start


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server with model `support`: version 1 is clean, version 2 runs code when it is unpickled."""
    root = tmp_path_factory.mktemp("mlflow")
    clean, hostile = write_adapter(root / "clean"), write_adapter(root / "hostile")
    (hostile / "extra.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with registry.serving(root) as address:
        for folder in (clean, hostile):
            registry.register(address, "support", folder)
        registry.point(address, "support", "candidate", "1")
        yield address


@pytest.fixture
def here(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    monkeypatch.setenv("FTSEC_AUDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return address


def scan(target: str, *arguments: str) -> int:
    return cli.run(["scan", target, "--profile", "quick", "-f", "json=report.json", *arguments])


def test_a_version_that_passes_gets_tags_and_the_alias(here: str, capsys) -> None:
    assert scan("models:/support@candidate", "--mlflow-alias", "production") == 0
    report = json.loads(Path("report.json").read_text())
    assert report["artifact"]["resolved"] == "models:/support/1"
    assert report["artifact"]["digest"].startswith("sha256:")
    assert "--mlflow-alias" not in report["command"], "reproducing a report moves nothing"
    found = registry.version(here, "support", "1")
    assert sorted(found.aliases) == ["candidate", "production"]
    assert found.tags["ftsec_audit.verdict"] == "pass"
    assert found.tags["ftsec_audit.artifact_digest"] == report["artifact"]["digest"]
    assert found.tags["ftsec_audit.policy"] == "default"
    assert found.tags["ftsec_audit.judged_at"].endswith("Z")


def test_a_version_that_fails_gets_tags_and_no_alias(here: str, capsys) -> None:
    registry.point(here, "support", "production", "1")
    assert scan("models:/support/2", "--mlflow-alias", "production") == 1
    found = registry.version(here, "support", "2")
    assert found.aliases == []
    assert found.tags["ftsec_audit.verdict"] == "fail"
    assert "FTA401" in found.tags["ftsec_audit.detected"]
    assert "fail[0]" in found.tags["ftsec_audit.reasons"]
    assert "production" in registry.version(here, "support", "1").aliases
    assert "production was not moved, the verdict is FAIL" in capsys.readouterr().err


def test_an_alias_on_a_version_that_fails_is_pointed_out(here: str, capsys) -> None:
    registry.point(here, "support", "staging", "2")
    assert scan("models:/support/2", "--mlflow-alias", "staging", "--exit-zero") == 0
    assert "staging means this version already" in capsys.readouterr().err


def test_without_being_asked_to_nothing_is_written(here: str, capsys) -> None:
    before = registry.version(here, "support", "2").tags
    scan("models:/support/2")
    assert registry.version(here, "support", "2").tags == before


def test_a_folder_of_a_version_and_the_lifetime_of_the_download(here: str) -> None:
    artifact = resolve("models:/support/1")
    folder = artifact.local_dir
    assert folder is not None
    assert artifact.file("adapter_config.json") is not None
    files = artifact.files
    del artifact
    gc.collect()
    assert all(file.read(1 << 20) or True for file in files), "an open file keeps the folder"
    del files
    gc.collect()
    assert not folder.exists()


def test_an_alias_is_pinned_to_its_version(here: str) -> None:
    assert pins.is_open("models:/support@candidate")
    assert not pins.is_open("models:/support/1")
    assert pins.pinned("models:/support@candidate") == "models:/support/1"


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("models:/support/77", "Model Version"),
        ("models:/support@nobody", "nobody"),
        ("models:/absent/1", "absent"),
        ("models:/support/1/absent", "models:/support/1"),
    ],
)
def test_what_the_registry_does_not_know_is_an_error(here: str, target: str, complaint: str, capsys) -> None:
    assert scan(target) == 2
    shown = capsys.readouterr().err
    assert complaint in shown
    assert "Traceback" not in shown


def test_a_version_kept_at_a_path_of_this_machine_is_not_read(here: str, monkeypatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.setattr(MlflowClient, "get_model_version_download_uri", lambda *_: "file:///etc")
    with pytest.raises(SourceError, match="a path of some machine"):
        resolve("models:/support/1")


def test_a_registry_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    registry = Registry(uri="http://user:secret@127.0.0.1:9")
    with pytest.raises(SourceError) as caught:
        registry.tag(ModelVersion(name="x", version="1"), {"a": "b"})
    assert "127.0.0.1:9" in str(caught.value)
    assert "secret" not in str(caught.value)


class TestWithoutAServer:
    def test_the_address_has_to_be_known(self, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
        assert cli.run(["scan", "models:/support/1"]) == 2
        assert "MLFLOW_TRACKING_URI" in capsys.readouterr().err

    def test_offline_asks_no_registry(self, capsys) -> None:
        assert cli.run(["scan", "models:/support/1", "--offline"]) == 2
        assert "offline" in capsys.readouterr().err

    def test_other_targets_have_no_tags(self, tmp_path: Path, capsys) -> None:
        assert cli.run(["scan", str(tmp_path), "--mlflow-tags"]) == 2
        assert "no version in a registry" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("models:/a b/3", MlflowReference(name="a b", version="3")),
            ("models:/a@prod", MlflowReference(name="a", alias="prod")),
            ("models:/a/3/peft/", MlflowReference(name="a", version="3", folder="peft")),
            ("models:/a@prod/x/y", MlflowReference(name="a", alias="prod", folder="x/y")),
        ],
    )
    def test_grammar(self, text: str, expected: MlflowReference) -> None:
        assert parse(text) == expected

    @pytest.mark.parametrize("text", ["models:/a", "models:/a/Production", "models:/a/1/../..", "models:/"])
    def test_what_names_no_version_is_refused(self, text: str) -> None:
        with pytest.raises(SourceError):
            parse(text)


def test_a_batch_scans_a_version_once_under_a_reference_that_means_it(here: str) -> None:
    glances = [at_length(resolve(name)) for name in ("models:/support/1", "models:/support@candidate")]
    assert [glance.pinned for glance in glances] == ["models:/support/1"] * 2
    assert glances[0].identity == glances[1].identity
    assert at_length(resolve("models:/support/2")).identity != glances[0].identity
