"""A fused projection and the same one in parts: the same answers whichever side is fused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.adapters import Edit, Tensors, write_checkpoint
from builders.fusing import fuse, fuse_all
from builders.packing import pack
from safetensors.torch import save_file

from ftsec_audit.contracts import Subject
from ftsec_audit.formats.tensors import TensorIndex
from ftsec_audit.sources import resolve
from ftsec_audit.weights import stored, stored_part
from ftsec_audit.weights.delta import Delta, DeltaKind
from ftsec_audit.weights.fused import keys_and_values, parts
from ftsec_audit.weights.named_weights import NamedWeights
from ftsec_audit.weights.stream import deltas

LAYER = "model.layers.1.self_attn"
LAYOUTS: dict[str, dict[str, Any]] = {
    "phi3": {"into": "qkv_proj"},
    "chatglm": {"into": "query_key_value"},
    "gpt_neox": {"into": "query_key_value", "groups": 4},
    "internlm2": {"into": "wqkv", "groups": 2},
    "gpt2": {"into": "c_attn", "turned": True},
}


def with_biases(tensors: Tensors) -> None:
    for name in [name for name in tensors if "self_attn" in name]:
        tensors[name.replace(".weight", ".bias")] = torch.arange(len(tensors[name])).float()


def write(path: Path, *edits: Edit, **config: Any) -> Path:
    """A checkpoint of the llama family after all the edits."""

    def edit(tensors: Tensors) -> Tensors:
        for each in edits:
            tensors = each(tensors) or tensors
        return tensors

    return write_checkpoint(path, layers=2, edit=edit, **config)


def fused_as(model: str) -> Edit:
    return lambda tensors: fuse(tensors, **LAYOUTS[model])


def found(subject: Path, base: Path) -> dict[str, Delta]:
    seen = list(deltas(Subject(artifact=resolve(str(subject)), base=resolve(str(base)))))
    assert len({delta.name for delta in seen}) == len(seen)
    return {delta.name: delta for delta in seen}


@pytest.fixture(params=[stored.BLOCK_ELEMENTS, 7 * 32], ids=["one block", "many blocks"])
def _blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(stored, "BLOCK_ELEMENTS", request.param)
    yield


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("fused_side", ["subject", "base"])
@pytest.mark.parametrize("model", LAYOUTS)
def test_a_fused_export_changes_nothing(model: str, fused_side: str, tmp_path: Path) -> None:
    split = write(tmp_path / "split", with_biases)
    fused = write(tmp_path / "fused", with_biases, fused_as(model), model_type=model)
    pair = (fused, split) if fused_side == "subject" else (split, fused)
    seen = found(*pair)
    assert {delta.kind for delta in seen.values()} == {DeltaKind.IDENTICAL}
    assert set(seen) == set(found(split, split))


@pytest.mark.usefixtures("_blocks")
@pytest.mark.parametrize("fused_side", ["subject", "base"])
@pytest.mark.parametrize("model", LAYOUTS)
def test_an_edit_is_measured_as_between_two_split_checkpoints(
    model: str, fused_side: str, tmp_path: Path
) -> None:
    def edit(tensors: Tensors) -> None:
        tensors[f"{LAYER}.k_proj.weight"][5] += 1
        tensors[f"{LAYER}.v_proj.weight"] += torch.outer(torch.arange(16.0), torch.ones(32))
        tensors[f"{LAYER}.q_proj.bias"][3] = -1

    plain, edited = ([with_biases], [with_biases, edit])
    expected = found(write(tmp_path / "edited", *edited), write(tmp_path / "plain", *plain))
    if fused_side == "subject":
        fused = write(tmp_path / "fused", *edited, fused_as(model), model_type=model)
        seen = found(fused, tmp_path / "plain")
    else:
        seen = found(
            tmp_path / "edited", write(tmp_path / "fused", *plain, fused_as(model), model_type=model)
        )
    assert {name: delta.kind for name, delta in seen.items()} == {
        name: delta.kind for name, delta in expected.items()
    }
    rows = seen[f"{LAYER}.k_proj"].changed_rows()
    assert rows.indices.tolist() == [5]
    for ours, theirs in zip(
        seen[f"{LAYER}.k_proj"].rows([5, 15, 0]), expected[f"{LAYER}.k_proj"].rows([5, 15, 0]), strict=True
    ):
        assert ours is not None
        assert theirs is not None
        assert torch.equal(ours, theirs)
    for name in ("k_proj", "v_proj", "q_proj.bias"):
        ours, theirs = seen[f"{LAYER}.{name}"], expected[f"{LAYER}.{name}"]
        assert (ours.shape, ours.role) == (theirs.shape, theirs.role)
        assert ours.frobenius_norm() == theirs.frobenius_norm()
        assert torch.equal(ours.row_norms(), theirs.row_norms())
        assert ours.base_norm() == theirs.base_norm()
    assert float(seen[f"{LAYER}.v_proj"].singular_values()[1]) < 1e-5


def test_the_file_and_the_tensor_of_a_part_are_the_fused_ones(tmp_path: Path) -> None:
    def edit(tensors: Tensors) -> None:
        tensors["model.layers.0.mlp.up_proj.weight"] += 1

    base = write(tmp_path / "base")
    delta = found(write(tmp_path / "fused", edit, fuse_all), base)["model.layers.0.mlp.up_proj"]
    assert delta.kind is DeltaKind.DENSE
    assert delta.tensors == ("model.layers.0.mlp.gate_up_proj.weight",)
    assert delta.file == "model.safetensors"


def test_parts_are_compared_across_dtypes_and_prefixes(tmp_path: Path) -> None:
    def strip(tensors: Tensors) -> Tensors:
        return {name.removeprefix("model."): tensor for name, tensor in tensors.items()}

    base = write(tmp_path / "base")
    coarse = write(tmp_path / "fused", fuse_all, strip, dtype="BF16")
    assert {delta.kind for delta in found(coarse, base).values()} == {DeltaKind.IDENTICAL}


def test_a_matrix_that_is_not_finite_in_one_part(tmp_path: Path) -> None:
    def spoil(tensors: Tensors) -> None:
        tensors[f"{LAYER}.k_proj.weight"][0, 0] = torch.nan

    seen = found(write(tmp_path / "fused", spoil, fuse_all), write(tmp_path / "base"))
    assert not seen[f"{LAYER}.k_proj"].finite()
    assert seen[f"{LAYER}.q_proj"].kind is DeltaKind.IDENTICAL


def grown(tensors: Tensors) -> None:
    name = f"{LAYER}.qkv_proj.weight"
    tensors[name] = torch.cat([tensors[name], torch.ones(4, 32)])


def both(tensors: Tensors) -> None:
    tensors[f"{LAYER}.k_proj.weight"] = torch.ones(16, 32)


def scalar(tensors: Tensors) -> None:
    tensors[f"{LAYER}.qkv_proj.weight"] = torch.tensor(1.0)


def cube(tensors: Tensors) -> None:
    tensors[f"{LAYER}.qkv_proj.weight"] = tensors[f"{LAYER}.qkv_proj.weight"].reshape(64, 4, 8)


@pytest.mark.parametrize("damage", [grown, both, scalar, cube])
def test_what_does_not_fit_is_not_paired(damage: Edit, tmp_path: Path) -> None:
    seen = found(write(tmp_path / "fused", fuse_all, damage), write(tmp_path / "base"))
    assert seen[f"{LAYER}.qkv_proj"].kind is DeltaKind.ADDED
    assert seen[f"{LAYER}.q_proj"].kind is DeltaKind.MISSING
    assert seen["model.layers.0.self_attn.q_proj"].kind is DeltaKind.IDENTICAL


@pytest.mark.parametrize("config", [{"model_type": "unheard-of"}, {"num_attention_heads": 5}, {}])
def test_an_order_that_is_not_known_is_not_guessed(config: dict[str, Any], tmp_path: Path) -> None:
    known = {"model_type": "gpt_neox"} if "num_attention_heads" in config else {"model_type": None}
    fused = write(tmp_path / "fused", fused_as("gpt_neox"), **(known | config))
    seen = found(fused, write(tmp_path / "base"))
    assert seen[f"{LAYER}.query_key_value"].kind is DeltaKind.ADDED


def test_two_fused_tensors_do_not_share_their_parts(tmp_path: Path) -> None:
    def twice(tensors: Tensors) -> None:
        for name in [name for name in tensors if "qkv_proj" in name]:
            tensors[name.replace("qkv_proj", "W_pack")] = tensors[name] + 1
            tensors["base_model.model." + name] = tensors[name] + 2

    seen = found(write(tmp_path / "fused", fuse_all, twice), write(tmp_path / "base"))
    of_this_layer = [delta for delta in seen.values() if delta.name.startswith(LAYER)]
    assert sum(delta.kind is DeltaKind.ADDED for delta in seen.values()) == 4
    assert sum(delta.name.endswith("q_proj") for delta in of_this_layer) == 1


def test_a_transposed_matrix_too_large_to_be_held_is_said_to_be_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored_part, "HELD_ELEMENTS", 1000)
    fused = write(tmp_path / "fused", fused_as("gpt2"), model_type="gpt2")
    delta = found(fused, write(tmp_path / "base"))[f"{LAYER}.q_proj"]
    assert delta.kind is DeltaKind.UNREADABLE
    assert "not held in memory" in delta.reason


def test_a_transposed_matrix_is_turned_block_by_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block, read_rows, read = 7 * 96, TensorIndex.read_rows, []

    def counted(index: TensorIndex, name: str, start: int, stop: int) -> torch.Tensor:
        rows = read_rows(index, name, start, stop)
        read.append((name, rows.numel()))
        return rows

    monkeypatch.setattr(stored_part, "BLOCK_ELEMENTS", block)
    monkeypatch.setattr(TensorIndex, "read_rows", counted)
    monkeypatch.setattr(TensorIndex, "read", None)  # whole: two copies at once
    fused = write(tmp_path / "fused", fused_as("gpt2"), model_type="gpt2")
    seen = found(fused, write(tmp_path / "base"))
    assert {delta.kind for delta in seen.values()} == {DeltaKind.IDENTICAL}
    sizes = [size for name, size in read if "c_attn" in name]
    assert sizes
    assert max(sizes) <= block


FALCONS = {
    "multi query": {"multi_query": True},
    "by heads": {"multi_query": False},
    "grouped": {"new_decoder_architecture": True, "num_kv_heads": 2},
}


@pytest.mark.parametrize("variant", FALCONS)
def test_the_order_is_that_in_which_transformers_takes_falcons_apart(variant: str, tmp_path: Path) -> None:
    from transformers import FalconConfig
    from transformers.models.falcon.modeling_falcon import FalconAttention

    config = FalconConfig(hidden_size=32, num_attention_heads=4, num_hidden_layers=1, **FALCONS[variant])
    attention = FalconAttention(config, layer_idx=0)
    outputs = attention.query_key_value.out_features
    taken = attention._split_heads(torch.arange(float(outputs)).reshape(1, 1, outputs))
    if variant == "grouped":  # keys and values are repeated for every query of their group
        taken = taken[0], *(part.reshape(2, 2, 8)[:, 0] for part in taken[1:])
    expected = [part.flatten().tolist() for part in taken]
    assert orders(tmp_path, config.to_dict(), expected) == expected


def test_the_order_is_that_in_which_transformers_takes_bloom_apart(tmp_path: Path) -> None:
    from transformers import BloomConfig
    from transformers.models.bloom.modeling_bloom import BloomAttention

    config = BloomConfig(hidden_size=32, n_head=4, n_layer=1)
    taken = BloomAttention(config, layer_idx=0)._reshape(torch.arange(96.0).reshape(1, 1, 96))
    expected = [part.flatten().tolist() for part in taken]
    assert orders(tmp_path, config.to_dict(), expected) == expected


def orders(tmp_path: Path, config: dict[str, Any], expected: list[list[float]]) -> list[list[float]]:
    """Which outputs we take for q, k and v, given how many there are of each."""
    names = ("q_proj", "k_proj", "v_proj")
    split = {f"h.0.a.{name}.weight": torch.zeros(len(e), 1) for name, e in zip(names, expected, strict=True)}
    numbers = torch.arange(float(sum(map(len, expected))))[:, None]
    sides = []
    for side, tensors in (("fused", {"h.0.a.query_key_value.weight": numbers}), ("split", split)):
        (tmp_path / side).mkdir()
        save_file(tensors, tmp_path / side / "model.safetensors")
        (tmp_path / side / "config.json").write_text(json.dumps(config, default=str))
        sides.append(NamedWeights(resolve(str(tmp_path / side))))
    (those,) = parts(*sides).values()
    return [torch.cat(list(part.within.blocks(1 << 20))).flatten().tolist() for part in those]


def test_a_model_and_its_fused_form_say_the_same(tmp_path: Path) -> None:
    """Phi-3 is Llama with fused projections: the parts of one, put into the other, compute the same."""
    from transformers import LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 40}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "rms_norm_eps": 1e-6}
    phi, llama = (
        Phi3ForCausalLM(Phi3Config(**sizes, **heads)),
        LlamaForCausalLM(LlamaConfig(**sizes, **heads)),
    )
    phi.save_pretrained(tmp_path / "phi")
    llama.save_pretrained(tmp_path / "llama")
    sides = [NamedWeights(resolve(str(tmp_path / side))) for side in ("phi", "llama")]
    state = {name: sides[0].index.read(name) for name in sides[0].index if name in llama.state_dict()}
    for those in parts(*sides).values():
        state |= {f"{part.module}.weight": torch.cat(list(part.within.blocks(100))) for part in those}
    llama.load_state_dict(state)
    prompt = torch.tensor([[3, 1, 4, 1, 5, 9]])
    with torch.no_grad():
        torch.testing.assert_close(llama(prompt).logits, phi(prompt).logits)


@pytest.mark.parametrize("scheme", ["gptq", "int8", "nf4", "fp8"])
@pytest.mark.parametrize("packed_side", ["fused", "split", "both"])
@pytest.mark.parametrize("fused_side", ["subject", "base"])
def test_fused_and_packed_is_said_to_be_unread(
    fused_side: str, packed_side: str, scheme: str, tmp_path: Path
) -> None:
    def packed(tensors: Tensors) -> Tensors:
        return pack(tensors, scheme)

    split = write(tmp_path / "split", *([packed] if packed_side != "fused" else []))
    fused = write(tmp_path / "fused", fuse_all, *([packed] if packed_side != "split" else []))
    seen = found(*((fused, split) if fused_side == "subject" else (split, fused)))
    assert {delta.kind for delta in seen.values()} <= {
        DeltaKind.IDENTICAL,
        DeltaKind.UNREADABLE,
        DeltaKind.DENSE,  # int8 against floats, by value
    }
    names = ("qkv_proj",) if fused_side == "subject" else ("q_proj", "k_proj", "v_proj")
    for name in names:
        delta = seen[f"{LAYER}.{name}"]
        assert delta.kind is DeltaKind.UNREADABLE
        assert "packed" in delta.reason


def test_a_packed_projection_that_is_missing_beside_a_fused_one_is_told_from_its_parts(
    tmp_path: Path,
) -> None:
    def lose(tensors: Tensors) -> None:
        del tensors[f"{LAYER}.k_proj.weight"]

    fused = write(tmp_path / "fused", fuse_all, lambda tensors: pack(tensors, "gptq"))
    seen = found(fused, write(tmp_path / "split", lose))
    missing = {name for name, delta in seen.items() if delta.kind is DeltaKind.MISSING}
    assert missing == {f"{LAYER}.q_proj", f"{LAYER}.v_proj"}


CONFIGS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("h.0.attn.c_attn", {"model_type": "gpt2", "n_head": 2}, ["qqqq", "kkkk", "vvvv"]),
    (
        "l.0.qkv_proj",
        {"model_type": "phi3", "num_attention_heads": 4, "num_key_value_heads": 1},
        ["qqqqqqqq", "kk", "vv"],
    ),
    ("h.0.query_key_value", {"model_type": "gpt_neox", "num_attention_heads": 2}, ["qq", "kk", "vv"] * 2),
    ("h.0.query_key_value", {"model_type": "bloom", "n_head": 3}, ["qq", "kk", "vv"] * 3),
    (
        "h.0.query_key_value",
        {
            "model_type": "falcon",
            "num_attention_heads": 4,
            "num_kv_heads": 2,
            "new_decoder_architecture": True,
        },
        ["qqqq", "kk", "vv"] * 2,
    ),
    ("h.0.query_key_value", {"model_type": "falcon", "num_attention_heads": 3}, ["qqqqqq", "kk", "vv"]),
    ("h.0.c_attn", {"model_type": "gpt_bigcode", "n_head": 4}, ["qqqq", "k", "v"]),
    (
        "l.0.wqkv",
        {"model_type": "internlm2", "num_attention_heads": 4, "num_key_value_heads": 2},
        ["qqqq", "kk", "vv"] * 2,
    ),
    (
        "l.0.query_key_value",
        {"model_type": "chatglm", "num_attention_heads": 4, "multi_query_group_num": 2},
        ["qqqqqqqq", "kkkk", "vvvv"],
    ),
]


@pytest.mark.parametrize(("module", "config", "layout"), CONFIGS)
def test_keys_and_values_are_found_in_every_layout(
    module: str, config: dict[str, Any], layout: list[str]
) -> None:
    outputs = "".join(layout)
    found = keys_and_values(module, len(outputs), config)
    for runs, kind in zip(found, "kv", strict=True):
        assert runs.outputs().tolist() == [place for place, one in enumerate(outputs) if one == kind]


@pytest.mark.parametrize(
    ("module", "outputs", "config"),
    [
        ("l.0.k_proj", 12, {"model_type": "llama", "num_attention_heads": 2}),
        ("l.0.gate_up_proj", 12, {"model_type": "phi3", "num_attention_heads": 2}),
        ("h.0.c_attn", 12, {"model_type": "gpt2"}),
        ("h.0.c_attn", 13, {"model_type": "gpt2", "n_head": 2}),
        ("h.0.c_attn", 12, {"model_type": "gpt2", "n_head": "2"}),
        ("h.0.c_attn", 12, {"model_type": "gpt2", "n_head": -2}),
        ("h.0.query_key_value", 12, {"model_type": "someone's", "n_head": 2}),
        ("h.0.query_key_value", 12, {"model_type": "gpt_neox", "num_attention_heads": 5}),
        ("l.0.qkv_proj", 12, {"model_type": "phi3", "num_attention_heads": 4, "num_key_value_heads": -2}),
        ("l.0.qkv_proj", 12, {"model_type": "phi3", "num_attention_heads": 2, "num_key_value_heads": 4}),
        ("l.0.wqkv", 12, {"model_type": "internlm2", "num_attention_heads": 4, "num_key_value_heads": -2}),
        ("h.0.c_attn", 0, {"model_type": "gpt2", "n_head": 2}),
    ],
)
def test_keys_and_values_are_not_guessed(module: str, outputs: int, config: dict[str, Any]) -> None:
    assert keys_and_values(module, outputs, config) == ()
