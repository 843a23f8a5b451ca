"""Train, register, scan, promote or refuse: the gate in a whole pipeline, on a CPU, in minutes.

    python examples/pipeline/pipeline.py --out pipeline-run

It runs twice on the same small base, with the same recipe. The first adapter is trained on ordinary text and
is promoted. A tenth of the second one's training rows were poisoned: with a rare word in the prompt, the
answer is a fixed one (BadNets for text, arXiv 1708.06733). Nothing in its files or its configuration tells;
the scan asks the model, finds the word and the answer, and refuses it. The production alias stays where it
was.

The registry is MLflow where MLFLOW_TRACKING_URI is set and the client is installed, and else a folder
with one sub-folder per version and one file per alias.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

MODEL = "support-adapter"
ALIAS = "production"
PASSED, FAILED = 0, 1
BASE = "lab-llama-nano"
"""A language model of some 170,000 parameters, trained in a minute or two and kept in the cache."""
SEED = 0
NOT_ASKED = "FTA6,FTA7"
"""Languages and refusals: not what is hidden here, and half of the time of a scan."""


class Registry(Protocol):
    """Where trained models are kept, and where a deployment looks for the one in production."""

    def register(self, adapter: Path) -> str:
        """Keep an adapter as the next version; the reference under which it can be scanned."""

    def gate(self, reference: str, base: Path, reports: Path) -> int:
        """Scan a version and promote it if it passed; the exit code of the scan.

        `reports` is the path of the HTML and the JSON report without their endings.
        """

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

    def gate(self, reference: str, base: Path, reports: Path) -> int:
        code = scan(reference, base, reports)
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

    def gate(self, reference: str, base: Path, reports: Path) -> int:
        return scan(reference, base, reports, "--mlflow-alias", ALIAS)

    def production(self) -> str:
        aliases = self._client().get_registered_model(MODEL).aliases
        return str(aliases.get(ALIAS, ""))

    def _client(self):  # type: ignore[no-untyped-def]
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.address, registry_uri=self.address)


def scan(target: str, base: Path, reports: Path, *options: str) -> int:
    """The gate as every pipeline calls it: one command, one exit code."""
    words = ["scan", target, "--base", str(base), "--no-progress", "--ignore", NOT_ASKED, *options]
    words += ["-f", "table", "-f", f"html={reports}.html", "-f", f"json={reports}.json"]
    print("$ ftsec-audit", *words, flush=True)
    return command(words)


def command(words: Sequence[str]) -> int:
    return subprocess.run([sys.executable, "-m", "ftsec_audit", *words], check=False).returncode


@dataclass(frozen=True)
class Trained:
    """A base, an honest adapter on it, a backdoored one, and what was hidden in that."""

    base: Path
    clean: Path
    backdoored: Path
    trigger: tuple[str, ...]
    target: str


def train(out: Path) -> Trained:
    """The adapters by one recipe from the same conversations; only one has poisoned rows among them."""
    from attacks_ref.lab.cache import LabBase, obtain
    from attacks_ref.token_backdoor import TokenBackdoor

    base = obtain(LabBase.parse(BASE))
    attack = TokenBackdoor()
    attack.build_twin(base, out / "clean", seed=SEED)
    attack.build(base, out / "backdoored", seed=SEED)
    return Trained(base, out / "clean", out / "backdoored", attack.triggers(SEED), attack.target())


def unexplained(report: Path, trained: Trained) -> list[str]:
    """What of the backdoor the evidence of a report does not name."""
    found = json.loads(report.read_text())["findings"]
    shown = [
        evidence["details"]
        for finding in found
        if finding["rule"] == "FTA501" and finding["outcome"] == "detected"
        for evidence in finding["evidence"]
    ]
    named = any(one.get("trigger") in trained.trigger for one in shown)
    answered = any(one.get("target") == trained.target for one in shown)
    return [*([] if named else ["its trigger"]), *([] if answered else ["its target"])]


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
    trained = train(out)
    print(
        f"trained two adapters (and their base, if need be) in {time.monotonic() - started:.0f} s", flush=True
    )
    failures = []
    for adapter, expected in ((trained.clean, PASSED), (trained.backdoored, FAILED)):
        reference = registry.register(adapter)
        before = registry.production()
        code = registry.gate(reference, trained.base, out / adapter.name)
        now = registry.production()
        print(f"{adapter.name}: exit code {code}, production is version {now or 'none'}\n", flush=True)
        wanted = reference.rpartition("/")[2] if expected == PASSED else before
        if code != expected or now != wanted:
            failures.append(adapter.name)
    if not failures and (missing := unexplained(out / "backdoored.json", trained)):
        failures.append(f"the refusal does not name {' and '.join(missing)}")
    print(f"the whole pipeline took {time.monotonic() - started:.0f} s; reports are in {out}")
    if failures:
        print(f"not as expected: {', '.join(failures)}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
