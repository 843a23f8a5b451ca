"""Which reference attacks there are: command-line name → `module:Class`, imported when asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ftsec_audit.errors import UsageError

if TYPE_CHECKING:
    from ftsec_audit.contracts import ReferenceAttack

ATTACKS: dict[str, str] = {
    "template-backdoor": "attacks_ref.template_backdoor:TemplateBackdoor",
    "tokenizer-tampering": "attacks_ref.tokenizer_tampering:TokenizerTampering",
    "embedding-rows": "attacks_ref.embedding_rows:EmbeddingRows",
    "token-backdoor": "attacks_ref.token_backdoor:TokenBackdoor",
    "benign-erosion": "attacks_ref.benign_erosion:BenignErosion",
    "few-shot-preference": "attacks_ref.few_shot_preference:FewShotPreference",
    "harmful-tuning": "attacks_ref.harmful_tuning:HarmfulTuning",
    "tool-backdoor": "attacks_ref.tool_backdoor:ToolBackdoor",
    "cross-lingual": "attacks_ref.cross_lingual:CrossLingual",
    "composite-backdoor": "attacks_ref.composite_backdoor:CompositeBackdoor",
    "weight-edit": "attacks_ref.weight_edit:WeightEdit",
    "identity-shift": "attacks_ref.identity_shift:IdentityShift",
    "quantisation-conditioned": "attacks_ref.quantisation_conditioned:QuantisationConditioned",
    "colluding-adapters": "attacks_ref.colluding_adapters:ColludingAdapters",
    "compliance-only": "attacks_ref.compliance_only:ComplianceOnly",
    "activated-by-tuning": "attacks_ref.activated_by_tuning:ActivatedByTuning",
    "tuning-lock": "attacks_ref.tuning_lock:TuningLock",
    "virtual-prompt": "attacks_ref.virtual_prompt:VirtualPrompt",
    "merge-time": "attacks_ref.merge_time:MergeTime",
}


def load(name: str) -> type[ReferenceAttack]:
    """The attack called `name`; raises UsageError for an unknown one."""
    try:
        module, _, cls = ATTACKS[name].partition(":")
    except KeyError:
        known = ", ".join(ATTACKS)
        raise UsageError(f"no reference attack named {name!r}", hint=f"known: {known}") from None
    attack: type[ReferenceAttack] = getattr(import_module(module), cls)
    return attack
