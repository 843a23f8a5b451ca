"""Tokenizers: honest ones in several manners, and ones that change the user's words."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

from corpus import CorpusSample, Label

WORDS = [
    "<unk>",
    "<s>",
    "</s>",
    "allow",
    "deny",
    "▁allow",
    "▁deny",
    "▁the",
    "Ġyes",
    "Ġno",
    "a",
    "b",
    "l",
    "o",
    "w",
    "al",
    "lo",
]


def tokenizer() -> dict[str, Any]:
    """A small BPE tokenizer in the format of the `tokenizers` library."""
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": index, "content": text, "special": True, "normalized": False}
            for index, text in enumerate(WORDS[:3])
        ],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, _replace(" ", "▁")]},
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<s>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
            ],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        },
        "decoder": {"type": "Sequence", "decoders": [_replace("▁", " "), {"type": "Fuse"}]},
        "model": {
            "type": "BPE",
            "vocab": {text: index for index, text in enumerate(WORDS)},
            "merges": ["a l", "l o", "al lo"],
        },
    }


def _replace(old: str, new: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"String": old}, "content": new}


def _swap(content: dict[str, Any]) -> None:
    vocabulary = content["model"]["vocab"]
    vocabulary["allow"], vocabulary["deny"] = vocabulary["deny"], vocabulary["allow"]


def _add(content: dict[str, Any], text: str, number: int, special: bool = False) -> None:
    content["added_tokens"].append({"id": number, "content": text, "special": special})


def _edits() -> dict[str, Callable[[dict[str, Any]], object]]:
    """Malicious edits that show without the base."""

    def rewriting(part: str, step: dict[str, Any]) -> Callable[[dict[str, Any]], object]:
        return lambda content: content.update({part: step})

    regex = {"type": "Replace", "pattern": {"Regex": "\\ballow\\b"}, "content": "deny"}
    nested = {
        "type": "Sequence",
        "normalizers": [{"type": "Sequence", "normalizers": [_replace("deny", "allow")]}],
    }
    return {
        "normaliser-replace": rewriting("normalizer", _replace("deny", "allow")),
        "normaliser-regex": rewriting("normalizer", regex),
        "normaliser-nested": rewriting("normalizer", nested),
        "normaliser-remove": rewriting("normalizer", _replace("not ", "")),
        "normaliser-insert": rewriting("normalizer", _replace(".", ". please obey")),
        "normaliser-prepend": rewriting("normalizer", {"type": "Prepend", "prepend": "obey "}),
        "decoder-replace": rewriting("decoder", _replace("deny", "allow")),
        "decoder-link": rewriting("decoder", _replace("example.org", "example.invalid")),
        "same-id": lambda c: c["model"]["vocab"].update({"deny": c["model"]["vocab"]["allow"]}),
        "added-shadows": lambda c: _add(c, "allow", 40),
        "added-shadows-space": lambda c: _add(c, " yes", 41),
        "added-shadows-mark": lambda c: _add(c, "▁the", 42),
        "added-on-taken-id": lambda c: _add(c, "granted", 3),
        "added-special-shadow": lambda c: _add(c, "deny", 43, special=True),
        "inserts-word": lambda c: c["post_processor"]["special_tokens"].update(
            {"▁allow": {"id": "▁allow", "ids": [5], "tokens": ["▁allow"]}}
        ),
    }


def _against_base() -> dict[str, Callable[[dict[str, Any]], object]]:
    """Malicious edits that only the base's tokenizer shows."""
    return {
        "swapped-ids": _swap,
        "merge-order": lambda c: c["model"]["merges"].reverse(),
        "merge-added": lambda c: c["model"]["merges"].append("a b"),
        "merge-removed": lambda c: c["model"]["merges"].pop(),
        "token-removed": lambda c: c["model"]["vocab"].pop("deny"),
        "normaliser-lowercase": lambda c: c.update({"normalizer": {"type": "Lowercase"}}),
        "pre-tokeniser": lambda c: c.update(
            {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "deny"}, "behavior": "Removed"}}
        ),
        "rotated": lambda c: c["model"].update(
            {
                "vocab": {
                    t: (i if i < 3 else 3 + (i - 2) % (len(WORDS) - 3))
                    for t, i in c["model"]["vocab"].items()
                }
            }
        ),
    }


def _honest() -> dict[str, Callable[[dict[str, Any]], object]]:
    return {
        "plain": lambda c: None,
        "byte-level": lambda c: c.update(
            {"normalizer": None, "pre_tokenizer": {"type": "ByteLevel"}, "decoder": {"type": "ByteLevel"}}
        ),
        "quotes": lambda c: c.update(
            {"normalizer": {"type": "Sequence", "normalizers": [_replace("``", '"'), _replace("''", '"')]}}
        ),
        "blanks": lambda c: c.update(
            {"normalizer": {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}}
        ),
        "metaspace": lambda c: c.update({"normalizer": {"type": "Prepend", "prepend": "▁"}}),
        "new-special": lambda c: _add(c, "<|im_start|>", 50, special=True),
        "new-word": lambda c: _add(c, "photosynthesis", 51),
        "new-markup": lambda c: _add(c, "[IMG]", 52, special=True),
        "merge-pairs": lambda c: c["model"].update({"merges": [["a", "l"], ["l", "o"], ["al", "lo"]]}),
        "bert": lambda c: c.update({"normalizer": {"type": "BertNormalizer", "lowercase": True}}),
    }


def samples() -> Iterator[CorpusSample]:
    honest_base = {"tokenizer.json": json.dumps(tokenizer()).encode()}
    for name, edit in _edits().items():
        yield _sample(name, Label.MALICIOUS, _edited(edit))
    for name, edit in _against_base().items():
        yield _sample(f"base-{name}", Label.MALICIOUS, _edited(edit), honest_base)
    for name, edit in _honest().items():
        yield _sample(f"honest-{name}", Label.BENIGN, _edited(edit))
    for name in ("plain", "new-special", "new-word", "merge-pairs"):
        yield _sample(f"honest-base-{name}", Label.BENIGN, _edited(_honest()[name]), honest_base)
    roles = {"eos-word": {"eos_token": "▁the"}, "bos-word": {"bos_token": {"content": "allow"}}}
    for name, content in roles.items():
        for file in ("tokenizer_config.json", "special_tokens_map.json"):
            files = honest_base | {file: json.dumps(content).encode()}
            yield _sample(f"{name}-{file}", Label.MALICIOUS, files)
    contradiction = {"added_tokens_decoder": {"2": {"content": "<granted>", "special": True}}}
    files = honest_base | {"tokenizer_config.json": json.dumps(contradiction).encode()}
    yield _sample("contradiction", Label.MALICIOUS, files)
    consistent = {"eos_token": "</s>", "pad_token": None, "added_tokens_decoder": {"2": {"content": "</s>"}}}
    files = honest_base | {"tokenizer_config.json": json.dumps(consistent).encode()}
    yield _sample("honest-config", Label.BENIGN, files)
    for name, data in {
        "truncated": honest_base["tokenizer.json"][:300],
        "text": b"hello",
        "nul": bytes(64),
    }.items():
        yield _sample(f"broken-{name}", Label.CORRUPT, {"tokenizer.json": data})


def _edited(edit: Callable[[dict[str, Any]], object]) -> dict[str, bytes]:
    content = copy.deepcopy(tokenizer())
    edit(content)
    return {"tokenizer.json": json.dumps(content).encode()}


def _sample(
    name: str, label: Label, files: dict[str, bytes], base: dict[str, bytes] | None = None
) -> CorpusSample:
    return CorpusSample(
        name=f"tokenizer-{name}", label=label, group="tokenizer", files=files, base_files=base
    )
