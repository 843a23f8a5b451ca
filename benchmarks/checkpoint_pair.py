"""A checkpoint against its base: equality, norms, moments and row norms of every difference, one pass.

    python benchmarks/checkpoint_pair.py [--gigabytes 1] [--identical 0.3] [--directions]

Writes two bf16 checkpoints of Llama shapes to a temporary folder, a share of the tensors identical, then
compares with hashing both. `--directions` adds the randomised screen for leading singular directions. The
naive way, loading both and subtracting whole tensors in float32, runs on the same files.
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
from safetensors import safe_open  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from ftsec_audit.contracts import Subject  # noqa: E402
from ftsec_audit.sources import resolve  # noqa: E402
from ftsec_audit.weights.delta import DeltaKind  # noqa: E402
from ftsec_audit.weights.stream import deltas  # noqa: E402

WIDTH, INNER, VOCABULARY = 2048, 5632, 32000
LAYER = {
    "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.k_proj": (256, WIDTH),
    "self_attn.v_proj": (256, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH),
    "mlp.gate_proj": (INNER, WIDTH),
    "mlp.up_proj": (INNER, WIDTH),
    "mlp.down_proj": (WIDTH, INNER),
}


def shapes(gigabytes: float) -> dict[str, tuple[int, int]]:
    """Embedding and as many layers as make up that size in bf16."""
    found = {"model.embed_tokens.weight": (VOCABULARY, WIDTH)}
    layer = 0
    while 2 * sum(rows * columns for rows, columns in found.values()) < gigabytes * 1e9:
        found |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in LAYER.items()}
        layer += 1
    return found


def write_pair(folder: Path, gigabytes: float, identical: float) -> None:
    """`base` and `tuned`, in one file each."""
    generator = torch.Generator().manual_seed(0)
    base = {}
    for name, shape in shapes(gigabytes).items():
        base[name] = torch.randn(shape, generator=generator).mul_(0.02).bfloat16()
    tuned = {
        name: weight
        if position < identical * len(base)
        else (weight.float() + 1e-3 * torch.randn(weight.shape, generator=generator)).bfloat16()
        for position, (name, weight) in enumerate(base.items())
    }
    for name, tensors in (("base", base), ("tuned", tuned)):
        (folder / name).mkdir()
        save_file(tensors, folder / name / "model.safetensors")
        (folder / name / "config.json").write_text(json.dumps({"model_type": "llama"}))


def measure(folder: Path, *, directions: bool) -> float:
    """Everything from the references on."""
    subject = Subject(artifact=resolve(str(folder / "tuned")), base=resolve(str(folder / "base")))
    total = 0.0
    for delta in deltas(subject):
        if delta.kind is DeltaKind.DENSE:
            total += delta.frobenius_norm() + delta.entry_kurtosis() + float(delta.row_norms()[0])
            total += (delta.base_norm() or 0.0) + len(delta.changed_rows().indices)
            total += float(delta.singular_values()[0]) if directions else 0.0
    return total


def naive(folder: Path) -> float:
    """Both tensors whole, in float32."""
    files = [folder / name / "model.safetensors" for name in ("tuned", "base")]
    with safe_open(files[0], "pt") as tuned, safe_open(files[1], "pt") as base:
        total = 0.0
        for name in tuned.keys():  # noqa: SIM118 - not a mapping
            difference = tuned.get_tensor(name).float() - base.get_tensor(name).float()
            total += float(difference.norm()) + float(difference.norm(dim=1)[0])
            total += float(difference.pow(4).mean() / difference.pow(2).mean() ** 2)
    return total


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--gigabytes", type=float, default=1.0, help="of either checkpoint")
    options.add_argument("--identical", type=float, default=0.3, help="share of unchanged tensors")
    options.add_argument("--directions", action="store_true")
    given = options.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if not (child := os.fork()):  # so that its memory is not counted here
            write_pair(folder, given.gigabytes, given.identical)
            os._exit(0)
        os.waitpid(child, 0)
        imported = peak_memory()
        seconds = cpu_seconds(lambda: measure(folder, directions=False))
        above = peak_memory() - imported
        seconds = min(seconds, best_of(2, lambda: cpu_seconds(lambda: measure(folder, directions=False))))
        yardstick = Yardstick.of([folder / which / "model.safetensors" for which in ("tuned", "base")])
        print(f"two bf16 checkpoints, {given.identical:.0%} of the tensors identical")
        print(yardstick.header())
        print(yardstick.line("equality, norm, kurtosis, row norms", seconds))
        print(f"peak memory above imports: {above / 1e6:.0f} MB")
        if given.directions:
            screened = cpu_seconds(lambda: measure(folder, directions=True))
            print(yardstick.line("and 16 leading directions (screen)", screened))
        print(yardstick.line("naive: whole tensors in float32", cpu_seconds(lambda: naive(folder))))
        print(f"  its peak memory above imports: {(peak_memory() - imported) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
