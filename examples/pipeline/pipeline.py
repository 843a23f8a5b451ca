"""Train, register, scan, promote or refuse: the gate in a whole pipeline, on a CPU, in minutes.

    python examples/pipeline/pipeline.py --out pipeline-run

It runs twice on the same tiny base. The first adapter is trained on ordinary text and is promoted. In the
second, two rare words were made to read as another one (embedding poisoning, arXiv 2103.15543), in rows
that its configuration does not mention; it is refused and the production alias stays where it was.

The registry is MLflow where MLFLOW_TRACKING_URI is set and the client is installed, and else a folder
with one sub-folder per version and one file per alias.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

MODEL = "support-adapter"
ALIAS = "production"
PASSED, FAILED = 0, 1
NOT_ASKED = "FTA5,FTA6,FTA7"
"""Behaviour: a base of forty training steps has none to compare, and asking would take most of the time."""


class Registry(Protocol):
    """Where trained models are kept, and where a deployment looks for the one in production."""

    def register(self, adapter: Path) -> str:
        """Keep an adapter as the next version; the reference under which it can be scanned."""

    def gate(self, reference: str, base: Path, report: Path) -> int:
        """Scan a version and promote it if it passed; the exit code of the scan."""

    def production(self) -> str:
        """The version that is in production, or nothing."""


@dataclass(frozen=True)
class FolderRegistry:
    """Versions are folders; the alias is a file, moved here because a folder knows no aliases."""

    root: Path

    def register(self, adapter: Path) -> str:
        versions = self.root / "versions"
        versions.mkdir(parents=True, exist_ok=True)
        number = str(1 + len(list(versions.iterdir())))
        return str(shutil.copytree(adapter, versions / number))

    def gate(self, reference: str, base: Path, report: Path) -> int:
        code = scan(reference, "--base", str(base), "-f", f"html={report}")
        if code == PASSED:
            (self.root / ALIAS).write_text(Path(reference).name)
        return code

    def production(self) -> str:
        alias = self.root / ALIAS
        return alias.read_text() if alias.exists() else ""


@dataclass(frozen=True)
class MlflowRegistry:
    """The registry at MLFLOW_TRACKING_URI; `scan --mlflow-alias` tags the version and moves the alias."""

    address: str

    def register(self, adapter: Path) -> str:
        client = self._client()
        run = client.create_run("0")
        client.log_artifacts(run.info.run_id, str(adapter), "model")
        if not client.search_registered_models(f"name='{MODEL}'"):
            client.create_registered_model(MODEL)
        version = client.create_model_version(MODEL, f"{run.info.artifact_uri}/model", run.info.run_id)
        return f"models:/{MODEL}/{version.version}"

    def gate(self, reference: str, base: Path, report: Path) -> int:
        return scan(reference, "--base", str(base), "-f", f"html={report}", "--mlflow-alias", ALIAS)

    def production(self) -> str:
        aliases = self._client().get_registered_model(MODEL).aliases
        return str(aliases.get(ALIAS, ""))

    def _client(self):  # type: ignore[no-untyped-def]
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.address, registry_uri=self.address)


def scan(target: str, *options: str) -> int:
    """The gate as every pipeline calls it: one command, one exit code."""
    words = ["scan", target, "--no-progress", "--ignore", NOT_ASKED, *options]
    print("$ ftsec-audit", *words, flush=True)
    return subprocess.run([sys.executable, "-m", "ftsec_audit", *words], check=False).returncode


def train(out: Path) -> tuple[Path, Path, Path]:
    """A base and two adapters on it: one of ordinary text, one with rewritten embedding rows."""
    from attacks_ref import example
    from attacks_ref.embedding_rows import EmbeddingRows

    base = example.write_base(out / "base")
    example.write_clean(base, out / "clean")
    attack = EmbeddingRows(channel="undeclared", recipe=example.RECIPE, measured=False)
    attack.build(base, out / "backdoored", seed=example.SEED)
    return base, out / "clean", out / "backdoored"


def chosen_registry(out: Path) -> Registry:
    address = os.environ.get("MLFLOW_TRACKING_URI")
    if address and find_spec("mlflow"):
        return MlflowRegistry(address)
    return FolderRegistry(out / "registry")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("pipeline-run"), help="a folder that does not exist")
    out: Path = parser.parse_args().out
    if out.exists():
        parser.error(f"{out} exists already")
    out.mkdir(parents=True)
    registry = chosen_registry(out)
    started = time.monotonic()
    base, clean, backdoored = train(out)
    print(f"trained a base and two adapters in {time.monotonic() - started:.0f} s", flush=True)
    failures = []
    for adapter, expected in ((clean, PASSED), (backdoored, FAILED)):
        before = registry.production() if adapter is backdoored else ""
        reference = registry.register(adapter)
        code = registry.gate(reference, base, out / f"{adapter.name}.html")
        now = registry.production()
        promoted = reference.rpartition("/")[2] == now
        print(f"{adapter.name}: exit code {code}, production is version {now or 'none'}\n", flush=True)
        if code != expected or promoted is not (expected == PASSED) or (before and before != now):
            failures.append(adapter.name)
    print(f"the whole pipeline took {time.monotonic() - started:.0f} s; reports are in {out}")
    if failures:
        print(f"not as expected: {', '.join(failures)}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
