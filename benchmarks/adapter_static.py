"""Static measurement of a 7B-shaped LoRA adapter: header, every singular value, norm and kurtosis.

    python benchmarks/adapter_static.py [--rank 16] [--layers 32] [--spectrum trained|flat]

Writes a bf16 adapter of random factors over q, k, v, o, gate, up and down (4096 and 11008 wide) to a
temporary folder, then compares with hashing that file. `trained` factors have one dominant direction, as
ordinary adapters do, and need the second, preconditioned pass; `flat` ones do not. The naive way, forming
ΔW and calling svdvals, is timed on one matrix per shape and extrapolated.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import torch  # noqa: E402
from _yardstick import Yardstick, best_of, cpu_seconds, peak_memory  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

import ftsec_audit  # noqa: E402
from ftsec_audit.contracts import Subject  # noqa: E402
from ftsec_audit.sources import resolve  # noqa: E402
from ftsec_audit.weights.stream import deltas  # noqa: E402

WIDTH, INNER = 4096, 11008
MODULES = {
    "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.k_proj": (WIDTH, WIDTH),
    "self_attn.v_proj": (WIDTH, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH),
    "mlp.gate_proj": (INNER, WIDTH),
    "mlp.up_proj": (INNER, WIDTH),
    "mlp.down_proj": (WIDTH, INNER),
}


def write_adapter(folder: Path, rank: int, layers: int, spectrum: str) -> Path:
    """An adapter as peft would save it; returns its weight file."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for layer in range(layers):
        for module, (rows, columns) in MODULES.items():
            name = f"base_model.model.model.layers.{layer}.{module}"
            left = torch.randn(rows, rank, generator=generator) * 1e-3
            if spectrum == "trained":
                left = left * 0.05 + torch.randn(rows, 1, generator=generator) @ torch.randn(
                    1, rank, generator=generator
                ).mul_(1e-2)
            tensors[f"{name}.lora_A.weight"] = torch.randn(rank, columns, generator=generator) / WIDTH**0.5
            tensors[f"{name}.lora_B.weight"] = left
    save_file(
        {name: tensor.bfloat16() for name, tensor in tensors.items()}, folder / "adapter_model.safetensors"
    )
    targets = [module.rsplit(".", 1)[1] for module in MODULES]
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": targets}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder / "adapter_model.safetensors"


def measure(folder: Path, *, kurtosis: bool = True, vectors: bool = False) -> float:
    """Everything from the reference on, nothing cached."""
    total = 0.0
    for delta in deltas(Subject(artifact=resolve(str(folder)), base=None)):
        total += float(delta.singular_values()[0]) + delta.frobenius_norm() + delta.finite()
        total += delta.entry_kurtosis() if kurtosis else 0.0
        total += float(delta.top_singular_vectors()[0][0]) if vectors else 0.0
    return total


def scan(folder: Path, profile: str) -> None:
    """Every rule of a profile, the file hashed on the way, nothing cached."""
    ftsec_audit.scan(str(folder), profile=profile, no_base=True, cache=False)


def naive_seconds(rank: int, layers: int) -> float:
    """CPU seconds of forming ΔW and its singular values, from one matrix of each shape."""
    seconds = {}
    for shape in set(MODULES.values()):
        left, right = torch.randn(shape[0], rank), torch.randn(rank, shape[1])
        seconds[shape] = cpu_seconds(lambda left=left, right=right: torch.linalg.svdvals(left @ right))
    return layers * sum(seconds[shape] for shape in MODULES.values())


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--rank", type=int, default=16)
    options.add_argument("--layers", type=int, default=32)
    options.add_argument("--spectrum", choices=("trained", "flat"), default="trained")
    options.add_argument("--naive", action="store_true", help="also time the naive way (a minute)")
    given = options.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not (child := os.fork()):  # so that its memory is not counted here
            write_adapter(folder, given.rank, given.layers, given.spectrum)
            os._exit(0)
        os.waitpid(child, 0)
        file = folder / "adapter_model.safetensors"
        imported = peak_memory()
        first = cpu_seconds(lambda: measure(folder))
        above = peak_memory() - imported
        yardstick = Yardstick.of([file])
        modules = f"{given.layers} layers × {len(MODULES)} modules"
        print(f"{modules}, r = {given.rank}, bf16, {given.spectrum} spectrum")
        print(yardstick.header())
        print(yardstick.line("spectra, norm, kurtosis: first run", first))
        everything = best_of(5, lambda: cpu_seconds(lambda: measure(folder)))
        print(yardstick.line("spectra, norm, kurtosis: warm, best of 5", everything))
        plain = best_of(5, lambda: cpu_seconds(lambda: measure(folder, kurtosis=False)))
        print(yardstick.line("  without kurtosis", plain))
        more = best_of(5, lambda: cpu_seconds(lambda: measure(folder, vectors=True)))
        print(yardstick.line("  and leading singular vectors", more))
        for profile in ("quick", "standard"):
            whole = best_of(3, lambda profile=profile: cpu_seconds(lambda: scan(folder, profile)))
            print(yardstick.line(f"whole scan, profile {profile}, no cache", whole))
        print(f"peak memory above imports: {above / 1e6:.0f} MB")
        if given.naive:
            naive = naive_seconds(given.rank, given.layers)
            print(yardstick.line("naive: ΔW and svdvals (extrapolated)", naive))


if __name__ == "__main__":
    main()
