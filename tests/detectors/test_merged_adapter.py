"""FTA106: the rank of an adapter that was merged into a checkpoint, and changes that have none."""

from __future__ import annotations

import math

import pytest
import torch
from builders.adapters import modules, write_adapter, write_checkpoint
from builders.audits import audit, finding

from detectors.merged_adapter import MergedAdapter
from ftsec_audit.types import Confidence, Outcome, Severity

WIDTH = 64
LINEAR = {family: [name for name, _, _ in modules(family, 2, WIDTH)] for family in ("llama", "gpt2")}
both_families = pytest.mark.parametrize("family", ["llama", "gpt2"])


def checkpoint(path, edit=None, **options):
    return write_checkpoint(path, edit=edit, **{"width": WIDTH, "layers": 2} | options)


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def merging(names, ranks, *, size=0.1, decay=1.0):
    """An update of Frobenius norm `size`·‖W‖ and that rank; factors fall by `decay` from one to the next."""

    def edit(tensors):
        for seed, (name, rank) in enumerate(zip(names, ranks, strict=True)):
            weight = tensors[f"{name}.weight"]
            scales = decay ** torch.arange(rank)
            product = (random(len(weight), rank, seed=seed) * scales) @ random(
                rank, weight.shape[1], seed=99 - seed
            )
            tensors[f"{name}.weight"] = weight + size * float(weight.norm()) * product / product.norm()

    return edit


def training(size):
    """A change of full rank with a dominant direction, in every tensor."""

    def edit(tensors):
        for seed, (name, weight) in enumerate(tensors.items()):
            change = random(*weight.shape, seed=seed)
            if weight.dim() == 2:
                one, other = random(len(weight), 1, seed=seed), random(1, weight.shape[1], seed=seed + 1)
                change = change + one @ other
            tensors[name] = weight + size * float(weight.norm()) * change / change.norm()

    return edit


def rounded(edit, dtype):
    def change(tensors):
        for name, tensor in tensors.items():
            tensors[name] = tensor.to(dtype).float()
        edit(tensors)

    return change


def answer(path, base, detector=None):
    return finding(audit(detector or MergedAdapter(), path, base), "FTA106")


@both_families
@pytest.mark.parametrize("rank", [1, 4, 16])
@pytest.mark.parametrize("size", [1e-4, 0.1, 3.0])
def test_the_rank_of_a_merged_adapter_is_a_fact_in_float32(tmp_path, family, rank, size):
    names = LINEAR[family]
    base = checkpoint(tmp_path / "base", family=family)
    path = checkpoint(tmp_path / "merged", merging(names, [rank] * len(names), size=size), family=family)
    found = answer(path, base)
    assert (found.outcome, found.severity, found.confidence) == (
        Outcome.DETECTED,
        Severity.LOW,
        Confidence.HIGH,
    )
    assert f"{len(names)} of {len(names)} changed matrices have rank {rank} " in found.summary


@pytest.mark.parametrize(
    ("dtype", "size", "expected"),
    [
        ("BF16", 0.1, Outcome.DETECTED),
        ("BF16", 0.01, Outcome.DETECTED),
        ("BF16", 3e-4, Outcome.NOT_DETECTED),
        ("F16", 3e-3, Outcome.DETECTED),
        ("F16", 3e-5, Outcome.NOT_DETECTED),
    ],
)
def test_coarse_formats_have_a_limit_and_say_it(tmp_path, dtype, size, expected):
    names, torch_dtype = LINEAR["llama"], {"BF16": torch.bfloat16, "F16": torch.float16}[dtype]
    options = {"dtype": dtype, "width": 256, "layers": 1}
    names = [name for name, _, _ in modules("llama", 1, 256)]
    base = checkpoint(tmp_path / "base", **options)
    merge = rounded(merging(names, [8] * len(names), size=size), torch_dtype)
    found = answer(checkpoint(tmp_path / "merged", merge, **options), base)
    assert found.outcome is expected
    assert "lost in rounding below" in found.summary
    if expected is Outcome.DETECTED:
        assert "have rank 8 " in found.summary


def test_an_adapter_on_few_modules_is_found_among_unchanged_ones(tmp_path):
    names = [f"model.layers.{layer}.self_attn.{role}" for layer in range(2) for role in ("q_proj", "v_proj")]
    base = checkpoint(tmp_path / "base")
    found = answer(checkpoint(tmp_path / "merged", merging(names, [4] * 4)), base)
    assert found.outcome is Outcome.DETECTED
    assert {e.location.tensor for e in found.evidence} == set(names)
    too_few = answer(checkpoint(tmp_path / "few", merging(names[:3], [4] * 3)), base)
    assert too_few.outcome is Outcome.NOT_DETECTED
    assert "too few" in too_few.summary


@pytest.mark.parametrize(("odd", "expected"), [(2, Outcome.DETECTED), (5, Outcome.NOT_DETECTED)])
def test_most_matrices_must_agree(tmp_path, odd, expected):
    names = LINEAR["llama"]
    ranks = [*range(5, 5 + odd), *[4] * (len(names) - odd)]
    found = answer(checkpoint(tmp_path / "merged", merging(names, ranks)), checkpoint(tmp_path / "base"))
    assert found.outcome is expected
    if expected is Outcome.DETECTED:
        assert found.confidence is Confidence.LOW


@both_families
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("size", [1e-4, 1e-3, 1e-2, 0.1])
def test_a_fine_tune_has_no_rank(tmp_path, family, dtype, size):
    options = {"family": family, "dtype": dtype}
    kind = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[dtype]
    base = checkpoint(tmp_path / "base", **options)
    found = answer(checkpoint(tmp_path / "tuned", rounded(training(size), kind), **options), base)
    assert found.outcome is Outcome.NOT_DETECTED


def test_training_on_top_of_a_merge_hides_the_rank(tmp_path):
    def edit(tensors):
        merging(LINEAR["llama"], [4] * 14)(tensors)
        training(0.05)(tensors)

    found = answer(checkpoint(tmp_path / "both", edit), checkpoint(tmp_path / "base"))
    assert found.outcome is Outcome.NOT_DETECTED


def test_the_base_itself_and_what_is_no_checkpoint(tmp_path):
    base = checkpoint(tmp_path / "base")
    assert answer(checkpoint(tmp_path / "copy"), base).outcome is Outcome.NOT_DETECTED
    assert answer(base, None).outcome is Outcome.NOT_SUPPORTED
    adapter = write_adapter(tmp_path / "adapter", width=WIDTH, layers=2)
    assert answer(adapter, base).outcome is Outcome.NOT_APPLICABLE


def test_values_that_are_not_finite_have_no_rank(tmp_path):
    def edit(tensors):
        for name in tensors:
            tensors[name][...] = math.nan

    found = answer(checkpoint(tmp_path / "nan", edit), checkpoint(tmp_path / "base"))
    assert found.outcome is Outcome.NOT_SUPPORTED


def test_the_number_of_rows_bounds_the_rank(tmp_path):
    names = LINEAR["llama"]
    base = checkpoint(tmp_path / "base")
    path = checkpoint(tmp_path / "merged", merging(names, [8] * len(names)))
    assert answer(path, base, MergedAdapter(sampled=32)).outcome is Outcome.DETECTED
    assert answer(path, base, MergedAdapter(sampled=8)).outcome is Outcome.NOT_DETECTED
