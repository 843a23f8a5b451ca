"""AdapterSentry, the nearest other scanner, on the same samples: run as a program, its answers kept."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

from ftsec_audit import atomic_file
from ftsec_audit.contracts import Progress
from ftsec_audit.validate.population import Located

ACTIONS = {"allow": 0.0, "review": 1.0, "quarantine": 2.0, "block": 3.0}
"""What it decides, as an order of severity; any other answer is an abstention."""
_SECONDS = 120


def adaptersentry(
    executable: Path, samples: Sequence[Located], store: Path, *, progress: Progress | None = None
) -> dict[str, str]:
    """Sample key → what it decides, or why it does not.

    It reads LoRA in safetensors only: checkpoints and other methods are abstentions, not passes.
    """
    progress = progress or Progress()
    store.mkdir(parents=True, exist_ok=True)
    progress.start("adaptersentry", len(samples), "artifacts")
    decided = {}
    for sample in samples:
        path = store / f"{sample.key}.json"
        if not path.exists():
            atomic_file.write(path, json.dumps(_action(executable, sample.folder)))
        decided[sample.key] = str(json.loads(path.read_text(encoding="utf-8")))
        progress.advance()
    return decided


def _action(executable: Path, folder: Path) -> str:
    weights = folder / "adapter_model.safetensors"
    if not weights.exists():
        return "no adapter"
    command = [str(executable), "scan", str(weights), "--format", "json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
        return str(json.loads(done.stdout)["verdict"]["action"]).lower()
    except (subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as error:
        return f"no answer ({type(error).__name__})"
