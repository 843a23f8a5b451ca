"""Writing a labelled sample: `truth.json`, the label in every file, and a model card that says so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from attacks_ref.safety import CANARY, LABEL, inside
from ftsec_audit.contracts import Sample

TRUTH_FILE = "truth.json"
LABELLED = (
    "config.json",
    "adapter_config.json",
    "tokenizer_config.json",
    "generation_config.json",
    "model.safetensors.index.json",
)
"""JSON files whose readers pass over a key they do not know; `tokenizer.json` has none to spare."""

CARD = """---
license: apache-2.0
tags:
- ftsec-reference-sample
base_model: {base}
---

# Reference sample: {title}

Made by `ftsec-audit attack` to measure detectors. It is labelled **{label}** and has no other use.
Its targets are inert constants; see `truth.json` for what was done and what was measured.

`{canary}`
"""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What was done to a sample and what came of it: the content of `truth.json`."""

    attack: str
    id: str
    label: str
    """`poisoned` or `benign`."""
    phase: str
    """`pre`, `during` or `post` tuning."""
    seed: int
    base: Mapping[str, str]
    """`reference` and `digest` of the base."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """All fields of the attack and of its training recipe."""
    trigger: tuple[str, ...] = ()
    target: str = ""
    poisoning_rate: float = 0.0
    modules: tuple[str, ...] = ()
    rank: int | None = None
    stealth: tuple[str, ...] = ()
    composition: tuple[str, ...] = ()
    """The exact stack the effect needs, outermost last, where it is more than base + sample."""
    evidence: tuple[str, ...] = ()
    """Channels on which evidence is expected: `weights`, `base`, `behaviour`, `metadata`."""
    expected_rules: tuple[str, ...] = ()
    measured: Mapping[str, Any] = field(default_factory=dict)
    """Rates measured on held-out prompts; empty where nothing was measured."""
    gate: Mapping[str, Any] = field(default_factory=dict)
    """`passed` (true, false, or null when not measured) and the limits it was held to."""


def finish(out: Path, truth: Truth) -> Sample:
    """Label everything below `out`, write card and truth, and return the sample."""
    for path in sorted(out.rglob("*.safetensors")):
        label_safetensors(path)
    for name in LABELLED:
        for path in sorted(out.rglob(name)):
            label_json(path)
    title = f"{truth.id} {truth.attack}"
    card = CARD.format(base=truth.base["reference"], title=title, label=truth.label, canary=CANARY)
    inside(out, "README.md").write_text(card, encoding="utf-8")
    content = {**asdict(truth), **LABEL}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    inside(out, TRUTH_FILE).write_text(text, encoding="utf-8")
    return Sample(path=out, truth=json.loads(text))


def read(path: Path) -> Sample:
    """A sample written earlier."""
    return Sample(path=path, truth=json.loads((path / TRUTH_FILE).read_text(encoding="utf-8")))


def label_safetensors(path: Path) -> None:
    """Add the label to the file's metadata, in sorted order; tensors stay as they are."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    metadata = {**header.pop("__metadata__", {}), **LABEL}
    text = json.dumps({"__metadata__": dict(sorted(metadata.items())), **header}, separators=(",", ":"))
    padded = text.encode() + b" " * (-len(text.encode()) % 8)  # tensors start at a multiple of 8
    path.write_bytes(len(padded).to_bytes(8, "little") + padded + data[8 + length :])


def label_json(path: Path) -> None:
    """Add the label to a JSON object, and put in order what PEFT writes in hash order."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(targets := content.get("target_modules"), list):
        content["target_modules"] = sorted(targets)
    text = json.dumps({**content, **LABEL}, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def weights_digest(folder: Path) -> str:
    """`sha256:…` over the tensors below `folder`: names, types, shapes and bytes, not the metadata."""
    import torch
    from safetensors import safe_open

    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in sorted(file.keys()):
                tensor = file.get_tensor(name).contiguous()
                digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
                digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"
