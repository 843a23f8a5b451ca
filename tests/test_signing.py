"""Signatures: model-signing's own command line verifies ours, and we verify what it signed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from builders.adapters import write_adapter

from ftsec_audit import cli, signing

pytest.importorskip("model_signing", reason="needs the extra sign")
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec


class KeyPair(NamedTuple):
    private: Path
    public: Path


def key_pair(folder: Path, name: str) -> KeyPair:
    key = ec.generate_private_key(ec.SECP256R1())
    pair = KeyPair(folder / f"{name}.pem", folder / f"{name}.pub")
    pair.private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    pair.public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return pair


def model_signing(*arguments: object) -> int:
    """The genuine command line."""
    command = [sys.executable, "-m", "model_signing", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False).returncode


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[KeyPair, KeyPair]:
    folder = tmp_path_factory.mktemp("keys")
    return key_pair(folder, "ours"), key_pair(folder, "theirs")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTSEC_AUDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def scan(*arguments: object) -> int:
    return cli.run(["scan", "adapter", "--profile", "quick", *map(str, arguments)])


class TestEvidence:
    @pytest.fixture
    def evidence(self, tmp_path: Path, keys, capsys) -> Path:
        write_adapter(tmp_path / "adapter")
        assert scan("-f", "intoto=passed.jsonl", "--sign-key", keys[0].private) == 0
        return tmp_path / "passed.jsonl"

    def test_the_genuine_command_line_verifies_it(self, evidence: Path, keys) -> None:
        where = ["--signature", f"{evidence}.sig", "--public_key", keys[0].public]
        assert model_signing("verify", "key", evidence, *where) == 0
        evidence.write_text(evidence.read_text().replace("PASSED", "FAILED"))
        assert model_signing("verify", "key", evidence, *where) != 0

    def test_it_admits_exactly_the_files_that_were_scanned(
        self, evidence: Path, keys, capsys, tmp_path: Path
    ) -> None:
        def verify(*more: object) -> int:
            words = ["verify", evidence, "adapter", "--public-key", keys[0].public, *more]
            return cli.run([str(word) for word in words])

        assert verify() == 0
        assert verify("--property", "FTSEC_AUDIT_FTA103_NOT_DETECTED") == 0
        assert verify("--property", "FTSEC_AUDIT_PROFILE_DEEP") == 1
        assert "PROFILE_DEEP is not claimed" in capsys.readouterr().err
        config = tmp_path / "adapter" / "adapter_config.json"
        before = config.read_text()
        config.write_text(before + " ")
        assert verify() == 1
        assert "adapter_config.json: has other bytes" in capsys.readouterr().err
        config.write_text(before)
        (tmp_path / "adapter" / "late.py").write_text("x")
        assert verify() == 1
        assert "late.py: was not there" in capsys.readouterr().err
        (tmp_path / "adapter" / "late.py").unlink()
        config.unlink()
        assert verify() == 1
        assert "adapter_config.json: was scanned and is not there" in capsys.readouterr().err

    def test_another_key_no_signature_and_forged_evidence_admit_nothing(
        self, evidence: Path, keys, capsys
    ) -> None:
        def verify(key: KeyPair) -> int:
            return cli.run(["verify", str(evidence), "adapter", "--public-key", str(key.public)])

        assert verify(keys[1]) == 1
        signature = Path(f"{evidence}.sig")
        for hostile in ("", "{}", "[]", '{"dsseEnvelope": {}}', signature.read_text()[:-40], "\x00"):
            signature.write_text(hostile)
            assert verify(keys[0]) == 1
        signature.unlink()
        assert verify(keys[0]) == 1
        assert "is not signed" in capsys.readouterr().err

    def test_evidence_of_a_failure_admits_nothing(self, tmp_path: Path, keys, capsys) -> None:
        write_adapter(tmp_path / "adapter")
        (tmp_path / "adapter" / "x.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
        assert scan("-f", "intoto=failed.jsonl", "--sign-key", keys[0].private) == 1
        assert cli.run(["verify", "failed.jsonl", "adapter", "--public-key", str(keys[0].public)]) == 1
        assert "FTSEC_AUDIT_POLICY_PASSED is not claimed" in capsys.readouterr().err

    def test_what_is_signed_but_no_evidence_is_a_clear_error(self, tmp_path: Path, keys, capsys) -> None:
        write_adapter(tmp_path / "adapter")
        for text in ("x", "{}", '{"predicateType": 1}', ""):
            (tmp_path / "e.jsonl").write_text(text)
            signing.sign(tmp_path / "e.jsonl", keys[0].private)
            assert cli.run(["verify", "e.jsonl", "adapter", "--public-key", str(keys[0].public)]) == 2
            assert "no Simple Verification Result" in capsys.readouterr().err


class TestRequiredSignature:
    @pytest.fixture
    def adapter(self, tmp_path: Path) -> Path:
        return write_adapter(tmp_path / "adapter")

    def test_what_the_genuine_command_line_signed_is_scanned(self, adapter: Path, keys, capsys) -> None:
        where = ["--signature", adapter / "model.sig", "--private_key", keys[0].private]
        assert model_signing("sign", "key", adapter, *where) == 0
        assert scan("--require-signature", keys[0].public, "-f", "json=r.json") == 0
        assert json.loads(Path("r.json").read_text())["verdict"] == "pass"
        capsys.readouterr()
        assert scan("--require-signature", keys[1].public) == 1
        shown = capsys.readouterr()
        assert "the signature does not hold" in shown.err
        assert shown.out == "", "nothing was scanned"

    def test_unsigned_altered_and_extended_artifacts_are_refused(self, adapter: Path, keys, capsys) -> None:
        assert scan("--require-signature", keys[0].public) == 1
        assert "is not signed" in capsys.readouterr().err
        signing.sign(adapter, keys[0].private)
        assert scan("--require-signature", keys[0].public) == 0
        (adapter / "extra.py").write_text("x")
        assert scan("--require-signature", keys[0].public) == 1
        assert "extra.py" in capsys.readouterr().err
        (adapter / "extra.py").unlink()
        with (adapter / "adapter_model.safetensors").open("ab") as weights:
            weights.write(b"\0")
        assert scan("--require-signature", keys[0].public) == 1
        assert "adapter_model.safetensors" in capsys.readouterr().err
        assert scan("--require-signature", keys[0].public, "--exit-zero") == 0

    def test_a_signature_elsewhere_and_one_of_a_file(self, adapter: Path, keys, capsys) -> None:
        made = signing.sign(adapter, keys[0].private).rename("kept.sig")
        assert scan("--require-signature", keys[0].public, "--signature", made.name) == 0
        weights = adapter / "adapter_model.safetensors"
        signing.sign(weights, keys[0].private)
        command = ["scan", str(weights), "--profile", "quick", "--require-signature", str(keys[0].public)]
        assert cli.run([*command, "--exit-zero"]) == 0
        capsys.readouterr()

    @pytest.mark.parametrize(
        ("arguments", "complaint"),
        [
            (["--signature", "x.sig"], "says nothing without --require-signature"),
            (["--sign-key", "bad.pem"], "add -f intoto=PATH"),
            (["--sign-key", "bad.pem", "-f", "intoto=e.jsonl"], "no private key"),
            (["--require-signature", "bad.pem"], "no public key"),
            (["--require-signature", "absent.pem"], "does not exist"),
        ],
    )
    def test_mistakes(self, adapter: Path, arguments: list[str], complaint: str, capsys) -> None:
        Path("bad.pem").write_text("no key")
        assert scan(*arguments) == 2
        assert complaint in capsys.readouterr().err
