"""Laws of the stream: every tensor once, names of their own, nothing dropped in silence."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.adapters import METHODS, Tensors, modules, write_adapter, write_checkpoint

from ftsec_audit.contracts import Subject
from ftsec_audit.errors import FormatError, NotApplicable, Unsupported
from ftsec_audit.sources import resolve
from ftsec_audit.weights import adapter_stream
from ftsec_audit.weights.delta import Delta, DeltaKind
from ftsec_audit.weights.stream import deltas


def subject(path: Path, base: Path | None = None) -> Subject:
    return Subject(artifact=resolve(str(path)), base=resolve(str(base)) if base else None)


def stream(path: Path, base: Path | None = None) -> dict[str, Delta]:
    """The deltas by name, the laws checked on the way."""
    found = subject(path, base)
    seen = list(deltas(found))
    names = Counter(delta.name for delta in seen)
    assert max(names.values(), default=1) == 1
    tensors = Counter(tensor for delta in seen for tensor in delta.tensors)
    assert set(found.artifact.tensors()) <= set(tensors)
    assert max(tensors.values(), default=1) == 1
    return {delta.name: delta for delta in seen}


@pytest.mark.parametrize("with_base", [False, True])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_read_and_declared(method: str, family: str, with_base: bool, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", method=method, family=family)
    base = write_checkpoint(tmp_path / "base", family=family) if with_base else None
    for delta in stream(adapter, base).values():
        assert delta.kind is not DeltaKind.UNREADABLE, delta.reason
        assert delta.declared
        if delta.change is None:
            continue
        assert delta.finite()
        assert not delta.is_zero()
        assert delta.frobenius_norm() > 0
        assert delta.entry_kurtosis() > 0
        assert len(delta.row_norms()) == delta.change.shape[0]
        assert float(delta.singular_values()[0]) > 0
        assert bool(delta.approximation) == (not with_base and method in ("dora", "ia3", "vera"))


def test_layers_roles_and_scales(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "a", rank=4, alpha=12, alpha_pattern={"layers.1.self_attn.v_proj": 2})
    found = stream(adapter)
    delta = found["model.layers.3.self_attn.q_proj"]
    assert (delta.role, delta.layer, delta.n_layers) == ("q_proj", 3, 4)
    assert (delta.scale, delta.rank, delta.shape) == (3.0, 4, (32, 32))
    assert found["model.layers.1.self_attn.v_proj"].scale == 0.5
    assert delta.file == "adapter_model.safetensors"
    assert len(delta.tensors) == 2
    deeper = write_checkpoint(tmp_path / "b", layers=4, num_hidden_layers=9)
    assert stream(adapter, deeper)["model.layers.3.self_attn.q_proj"].n_layers == 9


def test_windows_and_batches_are_no_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj")
    adapter = write_adapter(tmp_path / "a", rank=6, targets=targets)
    together = stream(adapter)
    monkeypatch.setattr(adapter_stream, "_WINDOW_BYTES", 1)
    alone = stream(adapter)
    assert list(together) == list(alone)
    for name, delta in together.items():
        torch.testing.assert_close(delta.singular_values(), alone[name].singular_values(), rtol=1e-6, atol=0)
        assert delta.entry_kurtosis() == pytest.approx(alone[name].entry_kurtosis(), rel=1e-4)


def test_dtypes_agree(tmp_path: Path) -> None:
    exact = stream(write_adapter(tmp_path / "F32", dtype="F32"))
    for dtype, tolerance in (("F64", 1e-6), ("BF16", 2e-2), ("F16", 2e-3)):
        for name, delta in stream(write_adapter(tmp_path / dtype, dtype=dtype)).items():
            top = float(exact[name].singular_values()[0])
            assert float(delta.singular_values()[0]) == pytest.approx(top, rel=tolerance)


def test_what_does_not_fit_together_is_unreadable_with_a_reason(tmp_path: Path) -> None:
    prefix = "base_model.model.model.layers"

    def damage(tensors: Tensors) -> None:
        del tensors[f"{prefix}.0.self_attn.q_proj.lora_B.weight"]
        tensors[f"{prefix}.1.self_attn.q_proj.lora_A.weight"] = torch.randn(3, 32)
        tensors[f"{prefix}.2.self_attn.q_proj.lora_A.weight"] = torch.zeros(4, 32, dtype=torch.int32)
        tensors[f"{prefix}.3.self_attn.q_proj.lora_A.weight"] = torch.zeros(0)
        tensors[f"{prefix}.0.self_attn.v_proj.oft_R"] = torch.randn(2, 2)
        tensors[f"{prefix}.1.self_attn.v_proj.lora_A"] = torch.randn(4, 32)

    found = stream(write_adapter(tmp_path / "a", edit=damage))
    reasons = {name: delta.reason for name, delta in found.items() if delta.kind is DeltaKind.UNREADABLE}
    assert "lora_B is missing" in reasons["model.layers.0.self_attn.q_proj"]
    assert "ranks 4 and 3" in reasons["model.layers.1.self_attn.q_proj"]
    assert "I32" in reasons["model.layers.2.self_attn.q_proj"]
    assert "empty" in reasons["model.layers.3.self_attn.q_proj"]
    assert "not known" in reasons["model.layers.0.self_attn.v_proj.oft_R"]
    assert len(reasons) == 6  # the sixth: a second lora_A of one module
    broken = found["model.layers.0.self_attn.q_proj"]
    with pytest.raises(Unsupported, match="lora_B is missing"):
        broken.frobenius_norm()


def test_nan_zero_and_ordinary_modules_side_by_side(tmp_path: Path) -> None:
    prefix = "base_model.model.model.layers"

    def damage(tensors: Tensors) -> None:
        tensors[f"{prefix}.0.self_attn.q_proj.lora_B.weight"].zero_()
        tensors[f"{prefix}.1.self_attn.q_proj.lora_A.weight"][0, 0] = math.nan

    found = stream(write_adapter(tmp_path / "a", edit=damage))
    assert found["model.layers.0.self_attn.q_proj"].is_zero()
    assert not found["model.layers.1.self_attn.q_proj"].finite()
    assert found["model.layers.2.self_attn.q_proj"].finite()
    assert not found["model.layers.2.self_attn.q_proj"].is_zero()


def test_several_adapters_in_one_file(tmp_path: Path) -> None:
    def rename(tensors: Tensors) -> Tensors:
        renamed = {}
        for name, tensor in tensors.items():
            stem, leaf = name.rsplit(".", 1)
            renamed[f"{stem}.default.{leaf}"] = tensor
            renamed[f"{stem}.other.{leaf}"] = 2 * tensor
        return renamed

    found = stream(write_adapter(tmp_path / "a", edit=rename))
    plain = found["model.layers.0.self_attn.q_proj"]
    other = found["model.layers.0.self_attn.q_proj@other"]
    assert other.frobenius_norm() == pytest.approx(4 * plain.frobenius_norm(), rel=1e-5)
    assert other.role == "q_proj"
    assert other.declared


def test_whole_tensors_are_compared_where_there_is_a_base(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    head = resolve(str(base)).tensors().read("lm_head.weight")

    def add(tensors: Tensors) -> None:
        tensors["base_model.model.lm_head.weight"] = head + 0.01
        tensors["base_model.model.model.norm.weight"] = torch.ones(32)
        tensors["base_model.model.score.weight"] = torch.ones(2, 32)
        tensors["base_model.model.model.layers.0.mlp.up_proj.weight"] = torch.zeros(5, 5)

    adapter = write_adapter(tmp_path / "a", edit=add, modules_to_save=["lm_head", "score"])
    found = stream(adapter, base)
    assert found["lm_head"].kind is DeltaKind.DENSE
    assert found["lm_head"].frobenius_norm() == pytest.approx(0.01 * math.sqrt(64 * 32), rel=1e-4)
    assert found["lm_head"].declared
    assert found["lm_head"].has_token_rows
    assert found["model.norm"].kind is DeltaKind.IDENTICAL
    assert not found["model.norm"].declared
    assert found["score"].kind is DeltaKind.FULL
    assert found["score"].reason
    assert found["model.layers.0.mlp.up_proj"].kind is DeltaKind.FULL
    assert "[64, 32]" in found["model.layers.0.mlp.up_proj"].reason
    alone = stream(adapter)
    assert alone["lm_head"].kind is DeltaKind.FULL
    assert alone["model.norm"].kind is DeltaKind.VECTOR
    with pytest.raises(NotApplicable):
        alone["lm_head"].changed_rows()


def test_base_norms_are_known_without_being_part_of_the_change(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    weight = resolve(str(base)).tensors().read("model.layers.2.self_attn.q_proj.weight")
    adapter = write_adapter(tmp_path / "a")
    delta = stream(adapter, base)["model.layers.2.self_attn.q_proj"]
    assert delta.base_norm() == pytest.approx(float(weight.norm()), rel=1e-5)
    assert stream(adapter)["model.layers.2.self_attn.q_proj"].base_norm() is None


def test_trained_rows_of_an_embedding(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    rows = resolve(str(base)).tensors().read("model.embed_tokens.weight")[[9, 4]]
    name = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"

    def add(tensors: Tensors) -> None:
        tensors[name] = rows + torch.tensor([[1.0], [0.0]])

    indices = {"trainable_token_indices": [9, 4]}
    delta = stream(write_adapter(tmp_path / "a", edit=add, **indices), base)["model.embed_tokens"]
    assert delta.kind is DeltaKind.ROWS
    assert delta.row_numbers == (9, 4)
    changed = delta.changed_rows()
    assert changed.indices.tolist() == [9]
    assert changed.norms.tolist() == pytest.approx([math.sqrt(32)], rel=1e-5)
    after, before = delta.rows([9])
    assert before is not None
    torch.testing.assert_close(after - before, torch.ones(1, 32))
    beyond = stream(write_adapter(tmp_path / "b", edit=add, trainable_token_indices=[9, 4000]), base)[
        "model.embed_tokens"
    ]
    assert beyond.kind is DeltaKind.UNREADABLE
    unnumbered = stream(write_adapter(tmp_path / "c", edit=add), base)["model.embed_tokens"]
    assert unnumbered.kind is DeltaKind.UNREADABLE
    assert not unnumbered.declared


def test_undeclared_factors_and_biases(tmp_path: Path) -> None:
    def add(tensors: Tensors) -> None:
        for part, shape in (("lora_A", (4, 32)), ("lora_B", (64, 4))):
            tensors[f"base_model.model.model.layers.0.mlp.up_proj.{part}.weight"] = torch.randn(*shape)
        tensors["base_model.model.model.layers.0.self_attn.q_proj.bias"] = torch.randn(32)

    found = stream(write_adapter(tmp_path / "a", edit=add))
    assert not found["model.layers.0.mlp.up_proj"].declared
    assert not found["model.layers.0.self_attn.q_proj.bias"].declared
    assert stream(write_adapter(tmp_path / "b", edit=add, bias="lora_only"))[
        "model.layers.0.self_attn.q_proj.bias"
    ].declared
    every = stream(write_adapter(tmp_path / "c", edit=add, target_modules="all-linear", bias="all"))
    assert all(delta.declared for delta in every.values())


def test_a_fused_projection_trained_in_parts(tmp_path: Path) -> None:
    def fuse(tensors: Tensors) -> Tensors:
        left, right = torch.randn(64, 4, 1), torch.randn(8, 32)
        name = "base_model.model.transformer.h.0.self_attention.query_key_value"
        return {f"{name}.lora_A.weight": right, f"{name}.lora_B.weight": left}

    adapter = write_adapter(
        tmp_path / "a",
        edit=fuse,
        enable_lora=[True, False, True],
        alpha=8,
        rank=4,
        target_modules=["query_key_value"],
    )
    (delta,) = stream(adapter).values()
    tensors = resolve(str(adapter)).tensors()
    left, right = (tensors.read(delta.tensors[k]) for k in (1, 0))
    assert delta.shape == (96, 32)
    assert delta.change is not None
    matrix = delta.change.matrix()
    torch.testing.assert_close(matrix[:32], 2 * left[:32, :, 0] @ right[:4])
    torch.testing.assert_close(matrix[64:], 2 * left[32:, :, 0] @ right[4:])
    assert float(matrix[32:64].abs().max()) == 0


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("shards", [1, 3])
def test_a_checkpoint_and_itself(family: str, shards: int, tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base", family=family)
    copy = write_checkpoint(tmp_path / "copy", family=family, shards=shards)
    assert {delta.kind for delta in stream(copy, base).values()} == {DeltaKind.IDENTICAL}
    coarse = write_checkpoint(tmp_path / "coarse", family=family, dtype="BF16")
    assert {delta.kind for delta in stream(coarse, base).values()} == {DeltaKind.IDENTICAL}


def test_an_edited_checkpoint(tmp_path: Path) -> None:
    def edit(tensors: Tensors) -> None:
        tensors["model.layers.1.mlp.down_proj.weight"] += torch.outer(torch.randn(32), torch.randn(64))
        tensors["model.embed_tokens.weight"][7] += 1
        tensors["model.norm.weight"] += 0.5
        tensors["model.extra.weight"] = torch.ones(3)
        del tensors["lm_head.weight"]

    base = write_checkpoint(tmp_path / "base")
    edited = write_checkpoint(tmp_path / "edited", edit=edit, shards=2)
    found = stream(edited, base)
    kinds = Counter(delta.kind for delta in found.values())
    assert kinds[DeltaKind.DENSE] == 2
    assert found["model.layers.1.mlp.down_proj"].singular_values()[1] < 1e-5
    rows = found["model.embed_tokens"].changed_rows()
    assert rows.indices.tolist() == [7]
    assert rows.compared == 64
    assert rows.norms.tolist() == pytest.approx([math.sqrt(32)], rel=1e-4)
    assert found["model.norm"].kind is DeltaKind.VECTOR
    assert found["model.extra"].kind is DeltaKind.ADDED
    assert found["lm_head"].kind is DeltaKind.MISSING
    assert found["lm_head"].tensors == ()
    assert len(found["model.layers.0.input_layernorm"].changed_rows().indices) == 0
    with pytest.raises(NotApplicable):
        found["lm_head"].frobenius_norm()


def test_checkpoints_of_different_vocabularies(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base", vocab=64)

    def grow(tensors: Tensors) -> None:
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            tensors[name] = torch.cat([tensors[name], torch.ones(6, 32)])

    found = stream(write_checkpoint(tmp_path / "grown", edit=grow), base)["model.embed_tokens"]
    assert found.kind is DeltaKind.DENSE
    assert found.extra_rows == 6
    assert found.shape == (70, 32)
    assert found.is_zero()
    assert found.changed_rows().compared == 64
    assert found.finite()
    with pytest.raises(IndexError):
        found.rows([69])

    def spoil(tensors: Tensors) -> None:
        grow(tensors)
        tensors["model.embed_tokens.weight"][69, 3] = math.nan

    assert not stream(write_checkpoint(tmp_path / "bad", edit=spoil), base)["model.embed_tokens"].finite()


def test_tied_and_prefixed_checkpoints_are_paired(tmp_path: Path) -> None:
    def tie(tensors: Tensors) -> None:
        del tensors["lm_head.weight"]

    def strip(tensors: Tensors) -> Tensors:
        return {name.removeprefix("model."): tensor for name, tensor in tensors.items()}

    tied = write_checkpoint(tmp_path / "tied", edit=tie, tie_word_embeddings=True)
    untied = write_checkpoint(tmp_path / "untied")
    found = stream(untied, tied)
    assert found["lm_head"].kind is DeltaKind.DENSE  # against the input embedding
    assert found["model.embed_tokens"].kind is DeltaKind.IDENTICAL
    backbone = write_checkpoint(tmp_path / "backbone", edit=lambda tensors: strip(tensors))
    assert {delta.kind for delta in stream(backbone, untied).values()} == {DeltaKind.IDENTICAL}


def test_conv1d_checkpoints_are_turned(tmp_path: Path) -> None:
    def edit(tensors: Tensors) -> None:
        tensors["transformer.h.0.mlp.c_fc.weight"][:, 5] += 1  # one output of (in, out)

    base = write_checkpoint(tmp_path / "base", family="gpt2")
    found = stream(write_checkpoint(tmp_path / "edited", family="gpt2", edit=edit), base)
    delta = found["transformer.h.0.mlp.c_fc"]
    assert delta.shape == (128, 32)
    assert delta.row_norms().nonzero()[:, 0].tolist() == [5]
    assert delta.changed_rows().indices.tolist() == [5]


def test_without_a_base_tensors_speak_for_themselves(tmp_path: Path) -> None:
    found = stream(write_checkpoint(tmp_path / "a"))
    assert {delta.kind for delta in found.values()} == {DeltaKind.FULL, DeltaKind.VECTOR}
    assert all(delta.reason for delta in found.values())


def test_a_base_that_cannot_be_read_is_no_base(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    (base / "model.safetensors").write_bytes(b"\xff" * 100)
    found = stream(write_adapter(tmp_path / "a", method="dora"), base)
    assert all(delta.approximation for delta in found.values())
    assert all("cannot be read" in d.reason for d in stream(write_checkpoint(tmp_path / "c"), base).values())


def test_a_subject_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "a")
    (adapter / "adapter_model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(FormatError):
        list(deltas(subject(adapter)))


def test_a_truncated_file_costs_its_last_modules_only(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "a")
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-64])
    found = stream(adapter)
    kinds = Counter(delta.kind for delta in found.values())
    assert kinds[DeltaKind.LOW_RANK] >= 6
    assert kinds[DeltaKind.UNREADABLE] >= 1


def test_a_folder_without_a_model_has_no_deltas(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    assert list(deltas(subject(tmp_path))) == []


def test_hostile_names_change_nothing(tmp_path: Path) -> None:
    names: dict[str, Any] = {
        "weight": torch.ones(2),
        ".weight": torch.ones(2),
        "lora_A": torch.ones(2),
        ".lora_A.weight": torch.ones(2, 2),
        "a." * 2000 + "lora_B.weight": torch.ones(2, 2),
        "base_model.model.": torch.ones(1),
        "x.modules_to_save.weight": torch.ones(2),
        "x.weight": torch.ones(2),
        "x": torch.ones(2),
        "base_model.model.x.weight": torch.ones(2),
        "\x1b[31m.lora_A.weight": torch.ones(2, 2),
        "x.lora_A.default.default.weight": torch.ones(2, 2),
    }
    found = stream(write_adapter(tmp_path / "a", edit=lambda tensors: dict(names)))
    assert len(found) >= 10


@pytest.mark.shared
@pytest.mark.parametrize("folder", ["licensed", "local-only"])
def test_real_adapters_obey_the_laws(folder: str) -> None:
    root = Path(__file__).parents[3] / "shared" / "data" / "adapters" / folder
    if not root.is_dir():
        pytest.skip("no calibration material here")
    for adapter in sorted(root.iterdir()):
        for delta in stream(adapter).values():
            if delta.kind is DeltaKind.LOW_RANK:
                assert delta.finite() in (True, False)
                assert delta.frobenius_norm() >= 0 or not delta.finite()
                assert len(delta.singular_values()) == min(delta.rank or 0, *delta.shape)


def test_modules_of_the_builder_are_all_recognised(tmp_path: Path) -> None:
    for family in ("llama", "gpt2"):
        adapter = write_adapter(
            tmp_path / family,
            family=family,
            layers=2,
            targets=tuple({name.rsplit(".", 1)[1] for name, _, _ in modules(family, 2, 32)}),
        )
        assert set(stream(adapter)) == {name for name, _, _ in modules(family, 2, 32)}
        assert json.loads((adapter / "adapter_config.json").read_text())
