"""What starting costs: `--help`, `rules`, and a quick scan of a small adapter, in CPU seconds.

    python benchmarks/start_up.py [--runs 5]

Each command is a process of its own. The scan is given with nothing cached and again with its measurements
cached; the imports that reading weights really needs (torch) are timed beside it and subtracted.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file


def write_adapter(folder: Path) -> Path:
    """A LoRA of rank 8 on two modules of four layers, 131 kB, in a folder of its own."""
    folder.mkdir()
    tensors = {}
    for layer in range(4):
        for module in ("q_proj", "v_proj"):
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{name}.lora_A.weight"] = torch.randn(8, 256)
            tensors[f"{name}.lora_B.weight"] = torch.randn(256, 8) * 1e-3
    save_file(tensors, folder / "adapter_model.safetensors")
    config = '{"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}'
    (folder / "adapter_config.json").write_text(config)
    return folder


def cpu_seconds(commands: dict[str, list[str]], environment: dict[str, str], runs: int) -> dict[str, float]:
    """The least CPU time of each command, children included; in turns, so that all see the same machine."""
    best = dict.fromkeys(commands, float("inf"))
    for _ in range(runs):
        for label, command in commands.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, env=environment, capture_output=True, check=False)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            best[label] = min(best[label], used)
    return best


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--runs", type=int, default=5)
    runs = options.parse_args().runs
    tool = [sys.executable, "-m", "ftsec_audit"]
    with tempfile.TemporaryDirectory() as name:
        adapter = write_adapter(Path(name) / "adapter")
        # Bytecode is kept wherever a program is installed; the first run of each command writes it.
        inherited = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment = {**inherited, "OMP_NUM_THREADS": "1", "FTSEC_AUDIT_CACHE": f"{name}/cache"}
        scan = [*tool, "scan", str(adapter), "--profile", "quick", "-q"]
        commands = {
            "python itself": [sys.executable, "-c", "pass"],
            "--help": [*tool, "--help"],
            "rules": [*tool, "rules"],
            "import torch": [sys.executable, "-c", "import torch"],
            "quick scan, measurements cached": scan,
            "quick scan, nothing cached": [*scan, "--no-cache"],
        }
        best = cpu_seconds(commands, environment, runs + 1)
        best["  beyond importing torch"] = best["quick scan, nothing cached"] - best["import torch"]
        for label, seconds in best.items():
            print(f"{label:<36}{seconds:6.2f} s")


if __name__ == "__main__":
    main()
