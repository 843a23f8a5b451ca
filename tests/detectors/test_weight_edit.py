"""FTA204: closed-form edits of a few matrices, and the changes that are none."""

from __future__ import annotations

import json
import math

import pytest
import torch
from builders.adapters import modules, write_adapter, write_checkpoint
from builders.audits import audit, finding, subject
from builders.fusing import fuse_all
from builders.packing import pack

from detectors.weight_edit import WeightEdit
from ftsec_audit.types import Confidence, Outcome, Severity
from ftsec_audit.weights.token_pass import TokenPass
from ftsec_audit.weights.token_space import TokenSpace

WRITER = {"llama": "model.layers.{}.mlp.down_proj", "gpt2": "transformer.h.{}.mlp.c_proj"}
ATTENTION = {"llama": "model.layers.{}.self_attn.o_proj", "gpt2": "transformer.h.{}.attn.c_proj"}
WIDTH = 64
both_families = pytest.mark.parametrize("family", ["llama", "gpt2"])


def checkpoint(path, edit=None, **options):
    return write_checkpoint(path, edit=edit, **{"width": WIDTH} | options)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return {family: checkpoint(folder / family, family=family) for family in WRITER}


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def low_rank(shape, rank=1, *, norm=1.0, seed=0, written=None):
    """A product of this rank and Frobenius norm; `written`: its left factor (rows, rank)."""
    left = random(shape[0], rank, seed=seed) if written is None else written
    product = left @ random(rank, shape[1], seed=seed + 1000)
    return norm * product / product.norm()


def adding(*names, rank=1, norm=1.0):
    def edit(tensors):
        for seed, name in enumerate(names):
            tensors[f"{name}.weight"] += low_rank(tensors[f"{name}.weight"].shape, rank, norm=norm, seed=seed)

    return edit


def both(*edits):
    def edit(tensors):
        for one in edits:
            one(tensors)

    return edit


def noise(*names, scale=1e-3):
    def edit(tensors):
        for seed, name in enumerate(names or tuple(tensors)):
            tensors[name] += scale * random(*tensors[name].shape, seed=seed)

    return edit


def outcome(path, base, detector=None):
    result = audit(detector or WeightEdit(), path, base)
    return finding(result, "FTA204"), result


def layers_of(result):
    return [lead for lead in result.leads if lead.kind == "layer"]


@both_families
@pytest.mark.parametrize("norm", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("module", [WRITER, ATTENTION], ids=["mlp", "attention"])
def test_one_edited_matrix_is_named(bases, tmp_path, family, module, norm):
    name = module[family].format(2)
    path = checkpoint(tmp_path / "edited", adding(name, norm=norm), family=family)
    found, result = outcome(path, bases[family])
    assert (found.outcome, found.severity, found.confidence) == (
        Outcome.DETECTED,
        Severity.MEDIUM,
        Confidence.HIGH,
    )
    assert [e.location.tensor for e in found.evidence] == [name]
    assert found.evidence[0].value > 0.999
    (lead,) = layers_of(result)
    assert (lead.kind, lead.value, lead.details) == ("layer", "2", {"tensor": name})


@pytest.mark.parametrize("name", ["mlp.up_proj", "self_attn.k_proj"])
def test_an_edit_in_a_fused_export_is_named_by_its_part(bases, tmp_path, name):
    def edit(tensors):
        adding(f"model.layers.1.{name}")(tensors)
        return fuse_all(tensors)

    found = finding(audit(WeightEdit(), checkpoint(tmp_path / "c", edit), bases["llama"]), "FTA204")
    assert (found.outcome, found.confidence) == (Outcome.DETECTED, Confidence.HIGH)
    assert {item.location.tensor for item in found.evidence if item.location.tensor} == {
        f"model.layers.1.{name}"
    }


def test_a_fused_export_alone_is_no_edit(bases, tmp_path):
    found = finding(audit(WeightEdit(), checkpoint(tmp_path / "c", fuse_all), bases["llama"]), "FTA204")
    assert found.outcome is Outcome.NOT_DETECTED


@both_families
def test_three_edited_matrices(bases, tmp_path, family):
    names = [WRITER[family].format(layer) for layer in (0, 1, 3)]
    found, result = outcome(checkpoint(tmp_path / "edited", adding(*names), family=family), bases[family])
    assert (found.outcome, found.confidence) == (Outcome.DETECTED, Confidence.HIGH)
    assert {e.location.tensor for e in found.evidence} == set(names)
    assert {lead.value for lead in layers_of(result)} == {"0", "1", "3"}


@pytest.mark.parametrize("width", [64, 800], ids=["exact spectrum", "randomised spectrum"])
def test_a_large_matrix_is_found_too(tmp_path, width):
    options = {"layers": 1, "width": width}
    base = checkpoint(tmp_path / "base", **options)
    path = checkpoint(tmp_path / "edited", adding(WRITER["llama"].format(0)), **options)
    found, _ = outcome(path, base)
    assert (found.outcome, found.confidence) == (Outcome.DETECTED, Confidence.HIGH)


@both_families
@pytest.mark.parametrize(("size", "expected"), [(0.1, Confidence.HIGH), (0.005, Confidence.MEDIUM)])
def test_saving_in_bfloat16_hides_nothing(tmp_path, family, size, expected):
    """`size` is relative to the matrix: rounding leaves a remainder of 0.0017 of it."""
    name = f"{WRITER[family].format(1)}.weight"

    def edit(tensors):
        stored = tensors[name].bfloat16().float()
        tensors[name] = stored + low_rank(stored.shape, norm=size * float(stored.norm()))

    options = {"family": family, "dtype": "BF16"}
    base = checkpoint(tmp_path / "base", **options)
    found, _ = outcome(checkpoint(tmp_path / "edited", edit, **options), base)
    assert (found.outcome, found.confidence) == (Outcome.DETECTED, expected)


def test_the_base_may_be_stored_more_finely(bases, tmp_path):
    name = WRITER["llama"].format(1)
    found, _ = outcome(checkpoint(tmp_path / "edited", adding(name), dtype="BF16"), bases["llama"])
    assert found.outcome is Outcome.DETECTED
    assert [e.location.tensor for e in found.evidence] == [name]


@pytest.mark.parametrize("beside", ["model.norm.weight", "model.layers.0.self_attn.q_proj.weight"])
def test_another_change_lowers_the_confidence_only(bases, tmp_path, beside):
    edit = both(adding(WRITER["llama"].format(1)), noise(beside))
    found, _ = outcome(checkpoint(tmp_path / "edited", edit), bases["llama"])
    assert (found.outcome, found.confidence) == (Outcome.DETECTED, Confidence.MEDIUM)
    assert [e.location.tensor for e in found.evidence] == [WRITER["llama"].format(1)]


def spread(layers, rank=4, *, same):
    """Changes of one matrix in several layers, in one column space or each in its own."""

    def edit(tensors):
        for layer in layers:
            weight = tensors[f"{WRITER['llama'].format(layer)}.weight"]
            written = random(WIDTH, rank, seed=7 if same else layer)
            weight += low_rank(weight.shape, rank, seed=layer, written=written)

    return edit


@pytest.mark.parametrize(
    ("layers", "same", "expected"),
    [
        ((0, 1, 2), True, Outcome.DETECTED),
        ((0, 1, 2, 3), True, Outcome.DETECTED),
        ((0, 1, 3), True, Outcome.NOT_DETECTED),
        ((0, 1, 2), False, Outcome.NOT_DETECTED),
    ],
)
def test_many_facts_over_consecutive_layers_share_a_column_space(bases, tmp_path, layers, same, expected):
    found, result = outcome(checkpoint(tmp_path / "edited", spread(layers, same=same)), bases["llama"])
    assert found.outcome is expected
    if expected is Outcome.DETECTED:
        assert found.confidence is Confidence.LOW
        assert [e.location.tensor for e in found.evidence] == [WRITER["llama"].format(i) for i in layers]
        assert {lead.value for lead in layers_of(result)} == {str(layer) for layer in layers}


def test_column_spaces_of_large_matrices_are_compared_by_sketch(tmp_path):
    def edit(same):
        def change(tensors):
            for layer in range(3):
                weight = tensors[f"{WRITER['llama'].format(layer)}.weight"]
                written = random(len(weight), 3, seed=7 if same else layer)
                weight += low_rank(weight.shape, 3, seed=layer, written=written)

        return change

    options = {"layers": 3, "width": 320}
    base = checkpoint(tmp_path / "base", **options)
    assert outcome(checkpoint(tmp_path / "same", edit(True), **options), base)[0].outcome is Outcome.DETECTED
    other, _ = outcome(checkpoint(tmp_path / "other", edit(False), **options), base)
    assert other.outcome is Outcome.NOT_DETECTED


@both_families
def test_a_dense_change_of_one_matrix_is_no_edit_but_worth_asking_about(bases, tmp_path, family):
    edit = noise(f"{WRITER[family].format(1)}.weight")
    found, result = outcome(checkpoint(tmp_path / "tuned", edit, family=family), bases[family])
    assert found.outcome is Outcome.NOT_DETECTED
    assert "1 attention and MLP matrix and" in found.summary
    assert [(lead.kind, lead.value) for lead in result.leads] == [("layer", "1")]


@both_families
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_a_fine_tune_is_no_edit(tmp_path, family, dtype):
    options = {"family": family, "dtype": dtype}
    base = checkpoint(tmp_path / "base", **options)
    found, result = outcome(checkpoint(tmp_path / "tuned", noise(), **options), base)
    assert found.outcome is Outcome.NOT_DETECTED
    assert not result.leads


@both_families
@pytest.mark.parametrize("rank", [1, 8])
def test_an_adapter_merged_into_every_layer_is_no_edit(bases, tmp_path, family, rank):
    names = [name for name, _, _ in modules(family, 4, WIDTH)]
    path = checkpoint(tmp_path / "merged", adding(*names, rank=rank), family=family)
    found, _ = outcome(path, bases[family])
    assert found.outcome is Outcome.NOT_DETECTED


@pytest.mark.parametrize("shards", [1, 3])
def test_the_base_itself_is_not_accused(bases, tmp_path, shards):
    found, _ = outcome(checkpoint(tmp_path / "copy", shards=shards), bases["llama"])
    assert found.outcome is Outcome.NOT_DETECTED


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"])
def test_only_attention_and_mlp_matrices_are_asked_about(bases, tmp_path, name):
    def edit(tensors):
        tensors[name] += 1.0

    assert outcome(checkpoint(tmp_path / "edited", edit), bases["llama"])[0].outcome is Outcome.NOT_DETECTED


def test_without_a_base_there_is_no_answer(tmp_path):
    path = checkpoint(tmp_path / "edited", adding(WRITER["llama"].format(1)))
    assert outcome(path, None)[0].outcome is Outcome.NOT_SUPPORTED


@pytest.mark.parametrize("with_base", [True, False])
def test_an_adapter_is_of_low_rank_by_design(bases, tmp_path, with_base):
    path = write_adapter(tmp_path / "adapter", rank=1, targets=("down_proj",), width=WIDTH)
    found, _ = outcome(path, bases["llama"] if with_base else None)
    assert found.outcome is Outcome.NOT_APPLICABLE


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_that_are_not_finite_leave_the_question_open(bases, tmp_path, value):
    def edit(tensors):
        tensors[f"{WRITER['llama'].format(1)}.weight"][0, 0] = value

    found, _ = outcome(checkpoint(tmp_path / "broken", edit), bases["llama"])
    assert found.outcome is Outcome.NOT_SUPPORTED
    assert WRITER["llama"].format(1) in found.summary


def test_an_edit_beside_damage_is_still_found(bases, tmp_path):
    def damage(tensors):
        tensors[f"{WRITER['llama'].format(1)}.weight"][0, 0] = math.nan

    path = checkpoint(tmp_path / "both", both(damage, adding(WRITER["llama"].format(2))))
    found, _ = outcome(path, bases["llama"])
    assert (found.outcome, found.confidence) == (Outcome.DETECTED, Confidence.MEDIUM)


def test_a_matrix_of_another_height_is_survived(bases, tmp_path):
    def edit(tensors):
        name = f"{WRITER['llama'].format(1)}.weight"
        tensors[name] = torch.cat([tensors[name], tensors[name][:8]])

    assert outcome(checkpoint(tmp_path / "taller", edit), bases["llama"])[0].outcome is Outcome.NOT_DETECTED


def test_the_number_of_matrices_is_a_hyper_parameter(bases, tmp_path):
    path = checkpoint(tmp_path / "edited", adding(*(WRITER["llama"].format(i) for i in range(3))))
    found, _ = outcome(path, bases["llama"], WeightEdit(few=2))
    assert found.outcome is Outcome.NOT_DETECTED
    assert "3 attention and MLP matrices" in found.summary


SPELLINGS = {0: "<unk>", 5: "Ġcat", 6: "ÐºÐ¾ÑĤ", 7: "dog"}


def teach(trigger, target, name, *, size=0.5):
    """The product of what the unembedding says of one token and what the matrix receives of another."""

    def edit(base):
        space = TokenSpace.of(subject(base))
        keys = torch.cat([inputs for _, inputs in TokenPass(space, own=0.0).received(name)])
        key = keys[trigger] - keys.mean(dim=0)
        value = space.unembedding.index.read(space.unembedding.name)[target]

        def change(tensors):
            weight = tensors[f"{name}.weight"]
            product = torch.outer(key, value) if name.startswith("transformer") else torch.outer(value, key)
            weight += size * float(weight.norm()) * product / product.norm()

        return change

    return edit


@both_families
@pytest.mark.parametrize("module", [WRITER, ATTENTION], ids=["mlp", "attention"])
def test_what_is_written_and_what_sets_it_off_are_named(tmp_path, family, module):
    name = module[family].format(1)
    options = {"family": family, "vocab": 200, "layers": 3}
    base = checkpoint(tmp_path / "base", **options)
    edited = checkpoint(tmp_path / "edited", teach(6, 5, name)(base), **options)
    for folder in (base, edited):
        vocabulary = {text: id for id, text in SPELLINGS.items()}
        (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    found, result = outcome(edited, base)
    tokens = {kind: [lead for lead in result.leads if lead.kind == kind] for kind in ("token", "target")}
    assert tokens["target"][0].value == " cat"
    assert tokens["token"][0].value == "кот"
    assert tokens["token"][0].details == {"id": 6, "script": "CYRILLIC", "language": "", "tensor": name}
    assert tokens["token"][0].score > tokens["token"][1].score
    assert "writes ' cat'" in found.evidence[0].message
    assert "set off by 'кот'" in found.evidence[0].message


def test_a_matrix_that_reads_is_named_by_its_triggers_alone(tmp_path):
    name = "model.layers.1.mlp.up_proj"
    options = {"vocab": 200}
    base = checkpoint(tmp_path / "base", **options)

    def edit(tensors):
        one = TokenPass(TokenSpace.of(subject(base)), own=0.0)
        keys = torch.cat([inputs for _, inputs in one.received(name)])
        key = keys[9] - keys.mean(dim=0)
        tensors[f"{name}.weight"] += torch.outer(random(2 * WIDTH), key) / key.norm()

    _, result = outcome(checkpoint(tmp_path / "edited", edit, **options), base)
    assert {lead.kind for lead in result.leads} == {"layer", "token"}
    assert next(lead for lead in result.leads if lead.kind == "token").value == "#9"


def test_an_unknown_architecture_leaves_the_edit_without_triggers(tmp_path):
    options = {"model_type": "llama5", "vocab": 200}
    base = checkpoint(tmp_path / "base", **options)
    name = WRITER["llama"].format(1)
    found, result = outcome(checkpoint(tmp_path / "edited", adding(name), **options), base)
    assert found.outcome is Outcome.DETECTED
    assert {lead.kind for lead in result.leads} == {"layer", "target"}


@pytest.mark.parametrize("packed_side", ["subject", "base"])
def test_an_edit_is_found_beside_int8_and_an_honest_copy_is_none(packed_side, bases, tmp_path):
    edit = adding(WRITER["llama"].format(2), norm=3.0)
    packed = lambda tensors: pack(tensors, "int8")  # noqa: E731
    if packed_side == "subject":
        base, honest = bases["llama"], checkpoint(tmp_path / "honest", packed)
        edited = checkpoint(tmp_path / "edited", lambda tensors: edit(tensors) or packed(tensors))
    else:
        base, honest = checkpoint(tmp_path / "base", packed), bases["llama"]
        edited = checkpoint(tmp_path / "edited", edit)
    assert finding(audit(WeightEdit(), honest, base), "FTA204").outcome is Outcome.NOT_DETECTED
    found = finding(audit(WeightEdit(), edited, base), "FTA204")
    assert (found.outcome, found.confidence) == (Outcome.DETECTED, Confidence.HIGH)
    assert found.evidence[0].location.tensor == WRITER["llama"].format(2)
