"""Small files that grow without measure, and honest files that are merely large or repetitive."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator

from corpus import CorpusSample, Label
from corpus.assemble import entry, gguf_array, gguf_text, gguf_value, npy, safetensors, stream, zip_file

_MIB = 1 << 20
_TEBI = 1 << 40


def samples() -> Iterator[CorpusSample]:
    for name, data in _pickles().items():
        yield _sample(f"pickle-{name}", Label.MALICIOUS, "model.pkl", data)
    for path, data in _archives().items():
        yield _sample(f"archive-{path}", Label.MALICIOUS, path, data)
    for path, data in _headers().items():
        yield _sample(f"header-{path}", Label.MALICIOUS, path, data)
    for path, data in _honest().items():
        yield _sample(f"honest-{path}", Label.BENIGN, path, data)


def _sample(name: str, label: Label, path: str, data: bytes) -> CorpusSample:
    return CorpusSample(name=f"bomb-{name}", label=label, group="denial-of-service", files={path: data})


def _pickles() -> dict[str, bytes]:
    many = 200_000
    return {
        "laughs-by-dup": stream(b"](K\x00e" + b"(222222222t" * 40),
        "laughs-by-memo": stream(b"]\x94" + b"".join(_memo_level(i) for i in range(60))),
        "laughs-by-tuple": stream(b"K\x01" + b"2\x86" * 100),
        "laughs-in-dict": stream(b"N" + b"q\x00}(K\x00h\x00K\x01h\x00K\x02h\x00u" * 60, 2),
        "laughs-in-key": stream(b"}" + b"K\x01" + b"2\x86" * 100 + b"Ns"),
        "nested-lists": stream(b"]" * many + b"a" * (many - 1)),
        "nested-tuples": stream(b"N" + b"\x85" * many),
        "nested-dicts": stream(b"}" + b"K\x01}" * many + b"s" * many),
        "nested-marks": stream(b"(" * many + b"t" * many),
        "memo-index-binary": stream(b"Nr\xff\xff\xff\x7f"),
        "memo-index-text": stream(b"Np2147483648\n"),
        "memo-index-large": stream(b"Np" + b"9" * 30 + b"\n"),
        "bytes-of-a-tebibyte": stream(b"\x8e" + struct.pack("<Q", _TEBI)),
        "text-of-a-tebibyte": stream(b"\x8d" + struct.pack("<Q", _TEBI)),
        "bytearray-of-a-tebibyte": stream(b"\x96" + struct.pack("<Q", _TEBI), 5),
        "bytes-of-two-gibibytes": stream(b"B\xff\xff\xff\x7f"),
        "integer-of-two-gibibytes": stream(b"\x8b\xff\xff\xff\x7f"),
        "frame-of-exbibytes": b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"N.",
        "decimal-integer": b"\x80\x02I" + b"9" * 100_000 + b"\n.",
        "decimal-long": b"\x80\x02L" + b"9" * 500_000 + b"L\n.",
        "protocol0-decimal": b"(lp0\nL" + b"7" * 100_000 + b"L\na.",
        "frame-lie-after-call": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fcposix\nsystem\n(S'echo'\ntR.",
    }


def _memo_level(level: int) -> bytes:
    """A list of ten references to the level before, put into the memo."""
    reference = b"h" + bytes([level])
    return b"](" + reference * 10 + b"e\x94"


def _zeros(packer: str, total: int) -> bytes:
    """A compressed stream of zeros, made without holding them."""
    if packer == "zlib":
        pack = zlib.compressobj(9)
        return b"".join(pack.compress(b"\0" * _MIB) for _ in range(total // _MIB)) + pack.flush()
    # The other formats may be concatenated, and their tools read on.
    one = {"gzip": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}[packer](b"\0" * (8 * _MIB))
    return one * (total // (8 * _MIB))


def _deflated_zeros(name: str, total: int) -> bytes:
    out = io.BytesIO()
    info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
    info.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(out, "w") as archive, archive.open(info, "w") as member:
        for _ in range(total // _MIB):
            member.write(b"\0" * _MIB)
    return out.getvalue()


def _archives() -> dict[str, bytes]:
    zeros = _deflated_zeros("archive/data.pkl", 112 * _MIB)
    packed = _zeros("gzip", 112 * _MIB)
    return {
        "model.zip": zeros,
        "model.npz": _deflated_zeros("a.npy", 112 * _MIB),
        "nested.zip": zip_file({"inner.zip": zeros, "readme": b"x"}),
        "model.gz": packed,
        "twice.gz": gzip.compress(packed, mtime=0),
        "model.bz2": _zeros("bz2", 112 * _MIB),
        "model.xz": _zeros("xz", 112 * _MIB),
        "model.joblib": _zeros("zlib", 112 * _MIB),
        "members.zip": _many_members(30_000),
        "deep.zip": _deep(12),
        "overlapping.zip": _quoted_overlap(50),
    }


def _many_members(count: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for i in range(count):
            archive.writestr(zipfile.ZipInfo(f"{i}"), b"")
    return out.getvalue()


def _deep(levels: int) -> bytes:
    data = pickle.dumps({}, 2)
    for _ in range(levels):
        data = zip_file({"inner.zip": data, "copy.zip": data}, zipfile.ZIP_DEFLATED)
    return data


def _quoted_overlap(count: int) -> bytes:
    """Many directory entries that all lead to one member."""
    data = zip_file({"a": b"0" * 5000}, zipfile.ZIP_DEFLATED)
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    directory = data[start:end] * count
    record = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(directory), start, 0)
    return data[:start] + directory + record


def _headers() -> dict[str, bytes]:
    deep = b"[" * 100_000 + b"]" * 100_000
    objects = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    many = {f"t{i}": entry("U8", [0], 0, 0) for i in range(250_000)}
    counts = struct.pack("<4sIQQ", b"GGUF", 3, 1 << 63, 1)
    return {
        "shape.npy": npy("'<f4'", "(1000000000, 1000000000)", b""),
        "digits.npy": npy("'<f4'", f"({'9' * 39},)", b""),
        "itemsize.npy": npy("'V9999999999'", "(1000000,)", b""),
        "many.safetensors": safetensors(many),
        "deep.safetensors": safetensors(b'{"a":' + deep + b"}"),
        "integer.safetensors": safetensors(b'{"a":{"dtype":"U8","shape":[' + b"9" * 9000 + b"]}}"),
        "length.safetensors": safetensors({}, length=(1 << 40) - 1).replace(b"{}", b'{"dtype":1}'),
        "config.json": b'{"model_type": "llama", "x": ' + deep + b"}",
        "tokenizer_config.json": objects,
        "generation_config.json": b'{"top_k": ' + b"9" * 100_000 + b"}",
        "tensors.gguf": counts + b"\0" * 40,
        "entries.gguf": struct.pack("<4sIQQ", b"GGUF", 3, 0, 1 << 63) + b"\0" * 19,
        "string.gguf": struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, 1 << 62) + b"\0" * 40,
        "array.gguf": struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + gguf_array("x", 0, b"\0" * 20, 1 << 60),
        "strings.gguf": struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + gguf_array("x", 8, b"\0" * 20, 1 << 50),
        "value.gguf": struct.pack("<4sIQQ", b"GGUF", 3, 0, 1)
        + gguf_value(8, struct.pack("<Q", 1 << 61) + b"\0" * 20, "general.name"),
        "both.gguf": struct.pack("<4sIQQ", b"GGUF", 2, (1 << 64) - 1, (1 << 64) - 1) + gguf_text("a", "b"),
    }  # fmt: skip


def _honest() -> dict[str, bytes]:
    numbers = list(range(100_000))
    return {
        "list.pkl": pickle.dumps(numbers, 4),
        "table.pkl": pickle.dumps({f"row{i}": (i, float(i)) for i in range(20_000)}, 4),
        "nested-50.pkl": pickle.dumps(_nest(50), 4),
        "shared.pkl": pickle.dumps([[numbers[:50]] * 100] * 20, 4),
        "zeros.npz": zip_file({"a.npy": npy("'<f4'", "(1000000,)", b"\0" * 4_000_000)}, zipfile.ZIP_DEFLATED),
        "zeros.gz": gzip.compress(b"\0" * (8 * _MIB), mtime=0),
        "thousand.zip": zip_file({f"f{i}": b"x" for i in range(1000)}),
        "vocabulary.json": json.dumps({f"token{i}": i for i in range(30_000)}).encode(),
        "matrix.json": json.dumps([[0.5] * 50] * 50).encode(),
        "large-integer.json": json.dumps({"seed": 2**512}).encode(),
    }


def _nest(levels: int) -> list[object]:
    value: list[object] = []
    for _ in range(levels):
        value = [value]
    return value
