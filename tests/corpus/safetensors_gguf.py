"""safetensors and GGUF headers: lies, repetitions and hidden bytes; every published dtype and layout."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator

from corpus import CorpusSample, Label
from corpus.assemble import (
    attack,
    entry,
    gguf,
    gguf_array,
    gguf_string,
    gguf_tensor,
    gguf_text,
    gguf_u32,
    gguf_value,
    safetensors,
)

_A = entry("F32", [2, 2], 0, 16)
_SIZES = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16,
    "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64, "C64": 64, "F4": 4,
    "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


def samples() -> Iterator[CorpusSample]:
    for name, data in _hostile_safetensors().items():
        yield _sample(f"safetensors-{name}", Label.MALICIOUS, "safetensors", "model.safetensors", data)
    for name, data in _hostile_gguf().items():
        yield _sample(f"gguf-{name}", Label.MALICIOUS, "gguf", "model.gguf", data)
    for name, data in _honest_safetensors().items():
        yield _sample(f"safetensors-{name}", Label.BENIGN, "safetensors", "model.safetensors", data)
    for name, data in _honest_gguf().items():
        yield _sample(f"gguf-{name}", Label.BENIGN, "gguf", "model.gguf", data)
    for name, data in _damaged().items():
        path = "model.gguf" if name.startswith("gguf") else "model.safetensors"
        yield _sample(f"damaged-{name}", Label.CORRUPT, path.removeprefix("model."), path, data)


def _sample(name: str, label: Label, group: str, path: str, data: bytes) -> CorpusSample:
    return CorpusSample(name=name, label=label, group=group, files={path: data})


def _hostile_safetensors() -> dict[str, bytes]:
    a, zeros = json.dumps(_A), b"\0" * 16
    pair = {"a": _A, "b": entry("F32", [2, 2], 16, 32)}
    return {
        "repeated-name": safetensors(f'{{"a": {a}, "a": {a}}}'.encode(), zeros),
        "repeated-name-escaped": safetensors(f'{{"a": {a}, "\\u0061": {a}}}'.encode(), zeros),
        "repeated-key": safetensors(
            b'{"a": {"dtype": "F32", "dtype": "I32", "shape": [2, 2], "data_offsets": [0, 16]}}', zeros
        ),
        "repeated-offsets": safetensors(
            b'{"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 16], "data_offsets": [0, 4]}}',
            b"\0" * 4,
        ),
        "repeated-metadata": safetensors(
            f'{{"__metadata__": {{"format": "pt", "format": "tf"}}, "a": {a}}}'.encode(), zeros
        ),
        "two-metadata": safetensors(
            f'{{"__metadata__": {{"a": "b"}}, "a": {a}, "__metadata__": {{"a": "c"}}}}'.encode(), zeros
        ),
        "overlap": safetensors({"a": _A, "b": entry("F32", [2, 2], 8, 24)}, b"\0" * 24),
        "same-bytes": safetensors({"a": _A, "b": _A}, zeros),
        "contained": safetensors({"a": _A, "b": entry("U8", [4], 4, 8)}, zeros),
        "hole": safetensors(
            {"a": _A, "b": entry("F32", [2, 2], 4096, 4112)}, b"\0" * 16 + b"x" * 4080 + zeros
        ),
        "hole-before": safetensors({"a": entry("F32", [2, 2], 512, 528)}, attack().ljust(512) + zeros),
        "tail": safetensors(pair, zeros * 2 + b"hidden data " * 20),
        "tail-zip": safetensors(pair, zeros * 2 + b"PK\x03\x04" + b"\0" * 40),
        "tail-pickle": safetensors(pair, zeros * 2 + attack()),
        "shape-overflow": safetensors({"a": entry("F32", [1 << 62, 1 << 62], 0, 16)}, zeros),
        "shape-wraps": safetensors({"a": entry("U8", [1 << 32, 1 << 32], 0, 0)}),
        "shape-negative": safetensors({"a": entry("F32", [-2, -2], 0, 16)}, zeros),
        "shape-float": safetensors(
            {"a": {"dtype": "F32", "shape": [2.0, 2], "data_offsets": [0, 16]}}, zeros
        ),
        "shape-mismatch": safetensors({"a": entry("F32", [3, 3], 0, 16)}, zeros),
        "offsets-reversed": safetensors({"a": entry("F32", [2, 2], 16, 0)}, zeros),
        "offsets-beyond": safetensors({"a": entry("F32", [1 << 30], 0, 1 << 32)}, zeros),
        "offsets-three": safetensors(
            {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16, 32]}}, zeros
        ),
        "length-lie-long": safetensors({"a": _A}, zeros, length=1 << 30),
        "length-lie-short": safetensors({"a": _A}, zeros, length=20),
        "nul-padding": safetensors({"a": _A}, zeros, padding=b"\0" * 64),
        "second-document": safetensors({"a": _A}, zeros, padding=b' {"b": 1}'),
        "payload-in-padding": safetensors({"a": _A}, zeros, padding=b" " + attack(protocol=2)),
        "nan-in-header": safetensors(f'{{"a": {a}, "__metadata__": {{"x": NaN}}}}'.encode(), zeros),
        "entry-is-list": safetensors({"a": [1, 2]}, zeros),
        "no-dtype": safetensors({"a": {"shape": [4], "data_offsets": [0, 16]}}, zeros),
        "large-padding": safetensors({"a": _A, "b": _A}, zeros, padding=b" " * 100_000),
    }


def _hostile_gguf() -> dict[str, bytes]:
    arch = gguf_text("general.architecture", "llama")
    tensor = gguf_tensor("a", [4], 0, 0)
    data = b"\0" * 32
    tokens = gguf_string("<0x-1>") + gguf_string("ok")
    return {
        "dimension-overflow": gguf([arch], [gguf_tensor("a", [1 << 33, 1 << 33], 0, 0)], data),
        "dimension-huge": gguf([arch], [gguf_tensor("a", [(1 << 64) - 1], 0, 0)], data),
        "dimension-wraps": gguf([arch], [gguf_tensor("a", [1 << 32, 1 << 32, 1 << 32], 24, 0)], data),
        "dimension-zero": gguf([arch], [gguf_tensor("a", [0, 5], 0, 0)], data),
        "dimension-count": gguf([arch], [gguf_tensor("a", [1] * 9, 0, 0)], data),
        "dimension-count-huge": gguf([arch], [gguf_tensor("a", [1], 0, 0, n=1 << 31)], data),
        "offset-overflow": gguf([arch], [gguf_tensor("a", [4], 0, (1 << 64) - 32)], data),
        "offset-beyond": gguf([arch], [gguf_tensor("a", [4], 0, 1 << 20)], data),
        "overlap": gguf([arch], [tensor, gguf_tensor("b", [4], 0, 0)], data),
        "alignment-zero": gguf([arch, gguf_u32("general.alignment", 0)], [tensor], data),
        "alignment-three": gguf([arch, gguf_u32("general.alignment", 3)], [tensor], data),
        "alignment-huge": gguf([arch, gguf_u32("general.alignment", 1 << 31)], [tensor], data),
        "alignment-text": gguf([arch, gguf_text("general.alignment", "32")], [tensor], data),
        "alignment-signed": gguf([arch, gguf_value(5, struct.pack("<i", -32), "general.alignment")], [], b""),
        "alignment-float": gguf([arch, gguf_value(6, struct.pack("<f", 32), "general.alignment")], [], b""),
        "repeated-key": gguf([arch, gguf_text("general.architecture", "evil")], [tensor], data),
        "repeated-template": gguf(
            [
                arch,
                gguf_text("tokenizer.chat_template", "{{ messages }}"),
                gguf_text("tokenizer.chat_template", "{{ 1 }}"),
            ]
        ),
        "repeated-tensor": gguf([arch], [tensor, gguf_tensor("a", [4], 0, 32)], b"\0" * 64),
        "trailing-pickle": gguf([arch], [tensor], b"\0" * 32 + attack()),
        "trailing-data": gguf([arch], [tensor], b"\0" * 32 + b"hidden data " * 30),
        "trailing-zip": gguf([arch], [tensor], b"\0" * 32 + b"PK\x03\x04" + bytes(range(1, 120))),
        "byte-token": gguf([arch, gguf_array("tokenizer.ggml.tokens", 8, tokens, 2)]),
        "byte-token-long": gguf([arch, gguf_array("tokenizer.ggml.tokens", 8, gguf_string("<0xFFFF>"), 1)]),
        "block-count-negative": gguf([arch, gguf_value(5, struct.pack("<i", -1), "llama.block_count")]),
        "block-count-huge": gguf([arch, gguf_u32("llama.block_count", 1 << 31)]),
        "block-count-text": gguf([arch, gguf_text("llama.block_count", "32")]),
        "block-count-lie": gguf(
            [arch, gguf_u32("llama.block_count", 1)],
            [gguf_tensor(f"blk.{i}.w", [8], 0, 32 * i) for i in range(3)],
            b"\0" * 96,
        ),
        "value-type": gguf([gguf_value(77, b"\0" * 8, "x")]),
        "element-type": gguf([gguf_array("x", 99, b"\0" * 8, 1)]),
        "array-of-arrays": gguf([gguf_array("x", 9, struct.pack("<IQ", 9, 1) * 20, 1)]),
        "key-length": gguf([struct.pack("<Q", 1 << 40) + b"x" * 64]),
        "counts-beyond": gguf([arch], [tensor], data, counts=(5000, 1)),
        "negative-counts": gguf([arch], [tensor], data, counts=((1 << 64) - 1, 1)),
    }


def _honest_safetensors() -> dict[str, bytes]:
    found = {}
    for dtype, bits in _SIZES.items():
        size = bits * 16 // 8
        found[f"dtype-{dtype}"] = safetensors({"w": entry(dtype, [4, 4], 0, size)}, b"\1" * size)
    experts = {
        f"model.layers.{i // 128}.mlp.experts.{i % 128}.up_proj.weight": entry("BF16", [1], 2 * i, 2 * i + 2)
        for i in range(5000)
    }
    found["mixture-of-experts"] = safetensors(experts, b"\0" * 10_000)
    metadata = {"__metadata__": {"format": "pt", "total": "5"}, "a": _A}
    found["metadata"] = safetensors(metadata, b"\0" * 16)
    found["space-padding"] = safetensors({"a": _A}, b"\0" * 16, padding=b" " * 7)
    found["empty-tensor"] = safetensors({"a": _A, "e": entry("F32", [0, 3], 16, 16)}, b"\0" * 16)
    found["scalar"] = safetensors({"s": entry("I64", [], 0, 8)}, b"\0" * 8)
    found["no-tensors"] = safetensors({"__metadata__": {"format": "pt"}})
    found["out-of-order"] = safetensors(
        {"b": entry("F32", [2, 2], 16, 32), "a": _A}, b"\0" * 32, padding=b"  "
    )
    found["pickle-like-weights"] = safetensors(
        {"a": entry("U8", [4096], 0, 4096)}, (b"\x80\x04\x95" + bytes(range(253))) * 16
    )
    return found


def _honest_gguf() -> dict[str, bytes]:
    arch = gguf_text("general.architecture", "llama")
    tokens = b"".join(gguf_string(t) for t in ["<unk>", "<0x00>", "<0xFF>", "<0x", "hello", "<0xZZ extra"])
    found = {}
    for version in (2, 3):
        found[f"version-{version}"] = gguf(
            [arch, gguf_u32("llama.block_count", 1)],
            [gguf_tensor("blk.0.w", [32, 2], 8, 0)],
            b"\0" * 96,
            version=version,
        )
    found["big-endian"] = gguf(
        [gguf_text("general.architecture", "llama", ">")],
        [gguf_tensor("w", [8], 0, 0, ">")],
        b"\0" * 32,
        order=">",
    )
    found["vocabulary"] = gguf(
        [arch, gguf_array("tokenizer.ggml.tokens", 8, tokens, 6), gguf_array("s", 6, b"\0" * 24, 6)]
    )
    found["templates"] = gguf(
        [
            arch,
            gguf_text("tokenizer.chat_template", "{{ messages }}"),
            gguf_text("tokenizer.chat_template.tool_use", "{{ tools }}"),
        ]
    )
    found["alignment-64"] = gguf(
        [arch, gguf_u32("general.alignment", 64)], [gguf_tensor("w", [8], 0, 0)], b"\0" * 64, alignment=64
    )
    found["padded-end"] = gguf([arch], [gguf_tensor("w", [5], 0, 0)], b"\0" * 32)
    found["several"] = gguf(
        [arch, gguf_u32("llama.block_count", 2)],
        [gguf_tensor(f"blk.{i}.attn", [256], kind, 160 * i) for i, kind in enumerate((12, 14))],
        b"\0" * 384,
    )
    return found


def _damaged() -> dict[str, bytes]:
    whole = safetensors({"a": _A, "b": entry("F32", [64], 16, 272)}, b"\0" * 272)
    broken = gguf([gguf_text("general.architecture", "llama")], [gguf_tensor("w", [64], 0, 0)], b"\0" * 256)
    found = {f"cut-{cut}": whole[: len(whole) * cut // 100] for cut in (3, 30, 60, 95)}
    found["header-bit"] = whole[:12] + b"\xff" + whole[13:]
    found["header-comma"] = whole.replace(b",", b";", 1)
    found["zeros"] = b"\0" * 400
    found["lfs-pointer"] = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"
    found |= {f"gguf-cut-{cut}": broken[: len(broken) * cut // 100] for cut in (4, 20, 40, 90)}
    found["gguf-version-9"] = broken[:4] + b"\x09" + broken[5:]
    found["gguf-zeroed"] = broken[:24] + b"\0" * 30 + broken[54:]
    return found
