"""FTA304: a token that the update answers is ranked first; the ranking is never a verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from builders.adapters import write_adapter, write_checkpoint
from builders.audits import audit, finding
from safetensors.torch import load_file

from detectors.trigger_candidates import TriggerCandidates
from ftsec_audit.runner import Audit
from ftsec_audit.types import Outcome

TOKEN = 41
EMBEDDING = {"llama": "model.embed_tokens.weight", "gpt2": "transformer.wte.weight"}
TARGETS = {"llama": ("k_proj", "v_proj"), "gpt2": ("c_attn",)}


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return spelled(
        write_checkpoint(tmp_path_factory.mktemp("model") / request.param, family=request.param, vocab=200)
    )


def spelled(model: Path) -> Path:
    vocabulary = {f"▁word{i}": i for i in range(200)} | {"▁лагуна": TOKEN}
    del vocabulary[f"▁word{TOKEN}"]
    (model / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": vocabulary}}))
    return model


def answering(base: Path, path: Path, targets: tuple[str, ...] = (), **options: object) -> Path:
    """An adapter in whose factors the embedding of one token stands out, as written to disk."""
    family = base.name
    rows = load_file(base / "model.safetensors")[EMBEDDING[family]].float()
    towards = rows[TOKEN] - rows.mean(0)

    def edit(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            if name.endswith("lora_A.weight") and tensor.shape[1] == len(towards):
                tensor += 3 * towards / towards.norm()

    return write_adapter(path, family=family, targets=targets or TARGETS[family], edit=edit, **options)  # type: ignore[arg-type]


def ranks(result: Audit) -> list[int]:
    ordered = sorted(result.leads, key=lambda lead: lead.details["rank"])
    assert [lead.details["rank"] for lead in ordered] == list(range(1, len(ordered) + 1))
    return [lead.details["id"] for lead in ordered]


def test_the_token_that_is_answered_most_leads(base: Path, tmp_path: Path) -> None:
    result = audit(TriggerCandidates(), answering(base, tmp_path), base)
    found = finding(result, "FTA304")
    assert found.outcome is Outcome.NOT_DETECTED
    assert ranks(result)[0] == TOKEN
    assert len(result.leads) == TriggerCandidates().leads
    lead = result.leads[0]
    assert (lead.kind, lead.value.strip(), lead.source) == ("token", "лагуна", "FTA304")
    assert lead.details["script"] == "CYRILLIC"
    assert lead.details["z"] > 1.5
    assert lead.score == pytest.approx(found.evidence[0].value)


def test_what_only_queries_answer_does_not_lead(tmp_path: Path) -> None:
    """A trigger has to be found by other tokens: keys and values of it count, where it looks does not."""
    base = spelled(write_checkpoint(tmp_path / "gpt2", family="gpt2", vocab=200))
    rows = load_file(base / "model.safetensors")[EMBEDDING["gpt2"]].float()
    width = rows.shape[1]
    asked, kept = (rows[token] - rows.mean(0) for token in (7, TOKEN))

    def merge(tensors: dict[str, torch.Tensor]) -> None:
        weight = tensors["transformer.h.0.attn.c_attn.weight"]
        weight[:, :width] += 3 * asked[:, None] / asked.norm() / width**0.5
        weight[:, width:] += kept[:, None] / kept.norm() / width**0.5

    subject = write_checkpoint(tmp_path / "subject", family="gpt2", vocab=200, edit=merge)
    assert ranks(audit(TriggerCandidates(), subject, base))[0] == TOKEN


def test_an_update_without_a_favourite_ranks_it_anywhere(base: Path, tmp_path: Path) -> None:
    plain = write_adapter(tmp_path, family=base.name, targets=TARGETS[base.name])
    result = audit(TriggerCandidates(leads=200), plain, base)
    assert ranks(result).index(TOKEN) > 2
    assert result.leads[0].score < 4


def test_a_merged_adapter_ranks_alike(base: Path, tmp_path: Path) -> None:
    """Full checkpoints have the same answer: their differences are as good as factors."""
    rows = load_file(base / "model.safetensors")[EMBEDDING[base.name]].float()
    towards = rows[TOKEN] - rows.mean(0)

    def merge(tensors: dict[str, torch.Tensor]) -> None:
        name = {"llama": "model.layers.0.self_attn.v_proj", "gpt2": "transformer.h.0.attn.c_attn"}[base.name]
        weight = tensors[f"{name}.weight"]
        written = torch.ones(weight.shape[0 if base.name == "llama" else 1])
        update = torch.outer(written, towards)
        weight += 0.1 * (update if base.name == "llama" else update.T)

    path = write_checkpoint(tmp_path, family=base.name, vocab=200, edit=merge)
    assert ranks(audit(TriggerCandidates(), path, base))[0] == TOKEN


def test_layers_below_are_gone_through_only_where_that_is_cheap(base: Path, tmp_path: Path) -> None:
    targets = {"llama": ("gate_proj",), "gpt2": ("c_fc",)}[base.name]
    path = answering(base, tmp_path, targets)
    assert audit(TriggerCandidates(), path, base).leads
    result = audit(TriggerCandidates(work=1e3), path, base)
    assert finding(result, "FTA304").outcome is Outcome.NOT_APPLICABLE
    assert not result.leads


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_updates_without_numbers_rank_nothing(base: Path, tmp_path: Path, value: float) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        for tensor in tensors.values():
            tensor.fill_(value)

    path = write_adapter(tmp_path, family=base.name, targets=TARGETS[base.name], edit=spoil)
    result = audit(TriggerCandidates(), path, base)
    assert finding(result, "FTA304").outcome is Outcome.NOT_APPLICABLE
    assert not result.leads


def test_without_a_base_there_is_no_answer(base: Path, tmp_path: Path) -> None:
    result = audit(TriggerCandidates(), answering(base, tmp_path))
    assert finding(result, "FTA304").outcome is Outcome.NOT_SUPPORTED
    assert not result.leads


def test_a_base_of_another_width_ranks_nothing(base: Path, tmp_path: Path) -> None:
    path = write_adapter(tmp_path, family=base.name, targets=TARGETS[base.name], width=48)
    result = audit(TriggerCandidates(), path, base)
    assert finding(result, "FTA304").outcome is Outcome.NOT_APPLICABLE


def test_tokens_without_a_spelling_are_no_leads(base: Path, tmp_path: Path) -> None:
    bare = write_checkpoint(tmp_path / "base", family=base.name, vocab=200)
    result = audit(TriggerCandidates(), answering(base, tmp_path / "adapter"), bare)
    assert finding(result, "FTA304").outcome is Outcome.NOT_DETECTED
    assert not result.leads


def test_no_model_is_no_question(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("nothing")
    result = audit(TriggerCandidates(), tmp_path)
    assert finding(result, "FTA304").outcome is Outcome.NOT_APPLICABLE


def test_what_is_done_to_all_tokens_alike_tells_none_from_the_others(tmp_path: Path) -> None:
    def alike(tensors: dict[str, torch.Tensor]) -> None:
        """Every embedding as long as the others, with as much of the first coordinate."""
        rows = tensors[EMBEDDING["llama"]].float()
        rows[:, 0] = 0
        rows /= rows.norm(dim=1, keepdim=True)
        rows[:, 0] = 2
        tensors[EMBEDDING["llama"]] = rows
        tensors["model.layers.0.input_layernorm.weight"] = torch.ones(rows.shape[1])

    base = spelled(write_checkpoint(tmp_path / "llama", family="llama", vocab=200, edit=alike))
    towards = load_file(base / "model.safetensors")[EMBEDDING["llama"]].float()[TOKEN]

    def edit(tensors: dict[str, torch.Tensor]) -> None:
        for name, tensor in tensors.items():
            if name.endswith("lora_A.weight"):
                tensor[:] = 0
                tensor[0, 0] = 100
                tensor[1, 1:] = towards[1:]

    subject = write_adapter(tmp_path / "subject", targets=TARGETS["llama"], edit=edit)
    result = audit(TriggerCandidates(), subject, base)
    assert ranks(result)[0] == TOKEN
    assert result.leads[0].score > 2


def test_a_token_that_is_no_number_does_not_hide_the_others(base: Path, tmp_path: Path) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors[EMBEDDING[base.name]][3] = torch.nan

    model = spelled(write_checkpoint(tmp_path / base.name, family=base.name, vocab=200, edit=spoil))
    subject = answering(base, tmp_path / "subject")
    assert ranks(audit(TriggerCandidates(), subject, model))[0] == TOKEN


def test_nothing_is_ranked_where_all_tokens_are_one(tmp_path: Path) -> None:
    def same(tensors: dict[str, torch.Tensor]) -> None:
        tensors[EMBEDDING["llama"]][:] = tensors[EMBEDDING["llama"]][:1].clone()

    base = spelled(write_checkpoint(tmp_path / "llama", family="llama", vocab=200, edit=same))
    subject = write_adapter(tmp_path / "subject", targets=TARGETS["llama"])
    assert finding(audit(TriggerCandidates(), subject, base), "FTA304").outcome is Outcome.NOT_APPLICABLE
