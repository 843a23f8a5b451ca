"""Pickles in every container a loader opens, and archives that readers disagree about."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator

from corpus import CorpusSample, Label
from corpus.assemble import attack, npy, safetensors, seven_zip, tar_file, torch_zip, zip_file

EVIL = attack(protocol=2)
GOOD = pickle.dumps({"lr": 1e-3, "betas": (0.9, 0.999)}, 2)
_PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 64
_EMPTY_TENSORS = safetensors({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}}, b"abcd")


def samples() -> Iterator[CorpusSample]:
    for path, data in _wrapped(EVIL).items():
        yield _sample(f"holds-{path}", Label.MALICIOUS, "container", path, data)
    for path, data in _renamed().items():
        yield _sample(f"named-{path}", Label.MALICIOUS, "extension", path, data)
    for name, data in _ambiguous().items():
        yield _sample(f"zip-{name}", Label.MALICIOUS, "archive-structure", "pytorch_model.bin", data)
    for name, data in _tars().items():
        yield _sample(f"tar-{name}", Label.MALICIOUS, "archive-structure", "model.tar", data)
    for path, data in _wrapped(GOOD).items():
        yield _sample(f"honest-{path}", Label.BENIGN, "container", path, data)
    for path, data in _honest().items():
        yield _sample(f"ordinary-{path}", Label.BENIGN, "container", path, data)
    for path, data in _damaged().items():
        yield _sample(f"damaged-{path}", Label.CORRUPT, "container", path, data)


def _sample(name: str, label: Label, group: str, path: str, data: bytes) -> CorpusSample:
    return CorpusSample(name=f"container-{name}", label=label, group=group, files={path: data})


def _wrapped(body: bytes) -> dict[str, bytes]:
    archive = torch_zip(body)
    objects = npy("'|O'", "(1,)", body)
    return {
        "pytorch_model.bin": archive,
        "raw.pkl": body,
        "deflated.zip": zip_file({"data.pkl": body}, zipfile.ZIP_DEFLATED),
        "bzip2.zip": zip_file({"data.pkl": body}, zipfile.ZIP_BZIP2),
        "lzma.zip": zip_file({"data.pkl": body}, zipfile.ZIP_LZMA),
        "folder.zip": zip_file({"a/": b"", "a/b/weights": body}),
        "nested.zip": zip_file({"inner.zip": zip_file({"deep.zip": archive})}),
        "model.tar": tar_file({"readme.txt": b"hello", "pickle": body}),
        "model.tar.gz": tar_file({"model.bin": archive}, mode="w:gz"),
        "model.tar.xz": tar_file({"model.bin": body}, mode="w:xz"),
        "copy.7z": seven_zip({"a.txt": b"hello", "model.pkl": body}, "copy"),
        "lzma.7z": seven_zip({"model.pkl": body}, "lzma"),
        "lzma2.7z": seven_zip({"a.txt": b"hello" * 50, "model.bin": archive}, "lzma2"),
        "bzip2.7z": seven_zip({"model.pkl": body}, "bzip2"),
        "deflate.7z": seven_zip({"model.pkl": body}, "deflate"),
        "model.pkl.gz": gzip.compress(body, mtime=0),
        "two-streams.gz": gzip.compress(body[:9], mtime=0) + gzip.compress(body[9:], mtime=0),
        "model.pkl.bz2": bz2.compress(body),
        "model.pkl.xz": lzma.compress(body),
        "model.pkl.lzma": lzma.compress(body, lzma.FORMAT_ALONE),
        "model.joblib": zlib.compress(body),
        "zip-in-gzip.bin": gzip.compress(archive, mtime=0),
        "objects.npy": objects,
        "objects.npz": zip_file({"w.npy": npy("'<f4'", "(2,)", b"\0" * 8), "o.npy": objects}),
        "objects-deflated.npz": zip_file({"o.npy": objects}, zipfile.ZIP_DEFLATED),
        "service.mar": zip_file({"model.pt": archive, "MAR-INF/MANIFEST.json": b"{}"}),
        "shards/.metadata": body,
        "__0_0.distcp": archive + torch_zip(GOOD),
        "checkpoint.nemo": tar_file({"./model_config.yaml": b"name: x\n", "./weights.ckpt": archive}),
        "second-member.pt": zip_file({"archive/data.pkl": GOOD, "archive/constants.pkl": body}),
        "odd-name.pt": zip_file({"archive/data.pkl": GOOD, "archive/version": b"3\n", "archive/.x": body}),
        "storage-place.pt": zip_file({"archive/data.pkl": GOOD, "archive/data/0": body}),
    }  # fmt: skip


def _renamed() -> dict[str, bytes]:
    archive = torch_zip(EVIL)
    plain = b"cposix\nsystem\n(S'echo inert'\ntR."
    return {
        "model.safetensors": EVIL,
        "zipped.safetensors": archive,
        "model.gguf": EVIL,
        "config.json": EVIL,
        "protocol0.json": plain,
        "README.md": plain,
        "notes.txt": EVIL,
        "picture.jpg": EVIL,
        "zipped.png": archive,
        "weights": EVIL,
        "zipped": archive,
        "model.onnx": EVIL,
        "model.h5": archive,
        "array.npy": EVIL,
        "array.npz": EVIL,
        "tokenizer.model": EVIL,
        "flax_model.msgpack": EVIL,
        ".hidden": archive,
        "a.b.c": EVIL,
        "model.ckpt": gzip.compress(EVIL, mtime=0),
        "model.pt.zip.txt": zip_file({"x": archive}),
        "script.py": EVIL,
        "behind-image.png": _PNG + EVIL,
        "behind-tensors.safetensors": _EMPTY_TENSORS + EVIL,
        "behind-array.npy": npy("'<f4'", "(2,)", b"\0" * 8) + EVIL,
        "behind-gzip.gz": gzip.compress(b"hello", mtime=0) + EVIL,
    }


def _patched(data: bytes, find: bytes, change: dict[int, int], which: int = 0) -> bytes:
    """Bytes at offsets from the `which`-th occurrence of a signature, replaced."""
    at = -1
    for _ in range(which + 1):
        at = data.index(find, at + 1)
    out = bytearray(data)
    for offset, value in change.items():
        out[at + offset] = value
    return bytes(out)


def _ambiguous() -> dict[str, bytes]:
    local, central, end = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
    good, evil = torch_zip(GOOD), torch_zip(EVIL)
    renamed = evil.replace(b"archive/data.pkl", b"archive/datA.txt", 1)
    encrypted = _patched(_patched(evil, local, {6: 1}), central, {8: 1})
    members = {"archive/data.pkl": EVIL}
    return {
        "wrong-crc-directory": _patched(evil, central, {16: 1, 17: 2, 18: 3}),
        "wrong-crc-both": _patched(_patched(evil, local, {14: 9, 15: 9}), central, {16: 9, 17: 9}),
        "wrong-crc-honest-pickle": _patched(good, central, {16: 1, 17: 2}),
        "encrypted-flag": encrypted,
        "encrypted-flag-directory": _patched(good, central, {8: 1}),
        "encrypted-flag-local": _patched(good, local, {6: 1}),
        "strong-encryption-flag": _patched(good, central, {8: 0x40}),
        "name-mismatch": renamed,
        "method-mismatch": _patched(good, local, {8: 8}),
        "unknown-method": _patched(_patched(evil, local, {8: 99}), central, {10: 99}),
        "size-mismatch": _patched(good, local, {22: 7}),
        "corrupt-first-member": _patched(zip_file({"first": b"x" * 50, **members}), local, {0: 0, 1: 0}),
        "corrupt-first-member-data": _patched(zip_file({"first": b"x" * 50, **members}), b"xxxx", {0: 0}),
        "duplicate": _duplicate(GOOD, EVIL),
        "duplicate-reversed": _duplicate(EVIL, GOOD),
        "duplicate-honest": _duplicate(GOOD, pickle.dumps({}, 2)),
        "case-collision": zip_file({"archive/data.pkl": GOOD, "archive/DATA.pkl": EVIL}),
        "case-collision-honest": zip_file({"archive/data.pkl": GOOD, "archive/Data.pkl": GOOD}),
        "two-end-records": evil + good,
        "two-end-records-reversed": good + evil,
        "end-record-in-comment": zip_file({"a": GOOD}, comment=evil),
        "prefix-pickle": EVIL + good,
        "prefix-text": b"#!/bin/sh\necho inert\n" + good,
        "prefix-image": _PNG + evil,
        "gap": _with_gap(GOOD, EVIL),
        "hidden-member": _hidden_member(GOOD, EVIL),
        "overlap": _overlap(),
        "traversal": zip_file({"archive/data.pkl": GOOD, "../../.bashrc": b"echo inert"}),
        "absolute": zip_file({"archive/data.pkl": GOOD, "/etc/cron.d/x": b"echo inert"}),
        "drive": zip_file({"archive/data.pkl": GOOD, "C:/x.txt": b"echo inert"}),
        "symlink": _symlink(),
        "count-too-small": _patched(zip_file({"a": GOOD, "b": EVIL}), end, {8: 1, 10: 1}),
        "behind-end": evil + b"\0" * 10,
        "no-directory": evil[: evil.index(central)],
        "tensors-and-archive": _EMPTY_TENSORS + evil,
        "array-and-archive": npy("'<f4'", "(2,)", b"\0" * 8) + evil,
        "control-character": zip_file({"archive/data.pkl": GOOD, "a\x01b": b"x"}),
    }


def _duplicate(first: bytes, second: bytes) -> bytes:
    import warnings

    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("archive/data.pkl", first)
        archive.writestr("archive/data.pkl", second)
    return out.getvalue()


def _with_gap(good: bytes, evil: bytes) -> bytes:
    """A pickle between the members and the directory, which the end record still finds."""
    data = zip_file({"archive/data.pkl": good})
    directory = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    moved = struct.pack("<I", directory + len(evil))
    return data[:directory] + evil + data[directory:end] + data[end : end + 16] + moved + data[end + 20 :]


def _hidden_member(good: bytes, evil: bytes) -> bytes:
    """A member with a local header that the directory leaves out."""
    hidden = zip_file({"archive/data.pkl": evil})
    return _with_gap(good, hidden[: hidden.index(b"PK\x01\x02")])


def _overlap() -> bytes:
    """Two directory entries that share one member's bytes."""
    data = zip_file({"aaaa": b"0" * 5000, "bbbb": b"1" * 5000})
    first, second = data.index(b"PK\x01\x02"), data.rindex(b"PK\x01\x02")
    out = bytearray(data)
    out[second + 42 : second + 46] = struct.pack("<I", 30)
    out[first + 20 : first + 28] = struct.pack("<II", 6000, 6000)
    return bytes(out)


def _symlink() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", GOOD)
        info = zipfile.ZipInfo("archive/link")
        info.create_system, info.external_attr = 3, 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    return out.getvalue()


def _tars() -> dict[str, bytes]:
    return {
        "symlink-out": tar_file({"a": b"x"}, links={"weights.bin": "/etc/passwd"}),
        "symlink-parent": tar_file({"a": b"x"}, links={"weights.bin": "../../secret"}),
        "traversal": tar_file({"../../.ssh/authorized_keys": b"echo"}),
        "absolute": tar_file({"/etc/cron.d/x": b"echo"}),
        "behind-end": tar_file({"a": b"x"}) + EVIL,
        "nested": tar_file({"inner.tar": tar_file({"x.bin": torch_zip(EVIL)})}),
        "long-name": tar_file({"d/" * 40 + "model.pkl": EVIL}),
    }


def _honest() -> dict[str, bytes]:
    return {
        "weights.npy": npy("'<f4'", "(2, 3)", b"\0" * 24),
        "scalar.npy": npy("'<f8'", "()", b"\0" * 8),
        "text.npy": npy("'<U5'", "(2,)", b"\0" * 40, version=2),
        "record.npy": npy("[('a', '<i4'), ('b', '<f8')]", "(2,)", b"\0" * 24),
        "weights.npz": zip_file({"a.npy": npy("'<f4'", "(4,)", b"\0" * 16)}, zipfile.ZIP_DEFLATED),
        "logs.tar.gz": tar_file({"train.log": b"step 1\n" * 100, "cfg/a.json": b"{}"}, mode="w:gz"),
        "source.zip": zip_file({"README.md": b"# hi", "data/a.csv": b"1,2\n"}, zipfile.ZIP_DEFLATED),
        "merges.txt": b"#version: 0.2\n" + b"\n".join(b"c os" + bytes([97 + i]) for i in range(26)),
        "vocab.txt": b"cos\nsystem\ncposix\nsystem\n[PAD]\n" * 20,
        "README.md": b"# Model\n\n```python\nimport pickle\nos.system('ls')\n```\n(see `c` below)\n",
        "LICENSE": b"(c) 2024 The Authors\n" * 30,
        "config.json": b'{"model_type": "llama", "hidden_size": 64}',
        "training.log": b"]\n}\n(l\nIteration 1\n" * 5,
        "image.png": _PNG + bytes(range(256)) * 8,
        "random.bin": zlib.compress(bytes(range(256)) * 64)[9:] + b"\x80\x02\x80\x04" * 3,
        "empty.txt": b"",
        "model.7z": seven_zip({"a.txt": b"hello", "b.json": b"{}"}),
    }


def _damaged() -> dict[str, bytes]:
    archive, packed = torch_zip(GOOD, (b"\1" * 5000,)), gzip.compress(GOOD * 50, mtime=0)
    flipped = bytearray(archive)
    flipped[archive.index(b"\1" * 100) + 40] ^= 0xFF
    deflated = zip_file({"data.pkl": GOOD * 30}, zipfile.ZIP_DEFLATED)
    tar = tar_file({"a.pkl": GOOD * 100})
    return {
        "cut-10.pt": archive[: len(archive) // 10],
        "cut-50.pt": archive[: len(archive) // 2],
        "cut-end.pt": archive[:-10],
        "flipped.pt": bytes(flipped),
        "cut.gz": packed[: len(packed) // 2],
        "flipped.gz": packed[:30] + b"\xff\xff" + packed[32:],
        "cut.bz2": bz2.compress(GOOD * 50)[:-20],
        "cut.xz": lzma.compress(GOOD * 50)[:-30],
        "cut.tar": tar[:700],
        "header.tar": tar[:100] + b"\xff" * 20 + tar[120:512] + tar[512:],
        "cut.npy": npy("'<f4'", "(20,)", b"\0" * 8),
        "header.npy": b"\x93NUMPY\x01\x00\xff\x00{'descr'",
        "shape.npy": npy("'<f4'", "(2, x)", b"\0" * 8),
        "cut.npz": zip_file({"a.npy": npy("'<f4'", "(4,)", b"\0" * 8)}),
        "cut.7z": seven_zip({"a.pkl": GOOD * 40})[:-60],
        "coder.7z": seven_zip({"a.pkl": GOOD}, "lzma2").replace(b"\x21\x21\x01\x10", b"\x21\x42\x01\x10"),
        "deflate.zip": deflated[:60] + b"\0\0\0\0" + deflated[64:],
        "archive.rar": b"Rar!\x1a\x07\x01\0" + b"\0" * 64,
        "archive.zst": b"\x28\xb5\x2f\xfd" + b"\0" * 64,
        "empty.pt": b"",
        "empty.safetensors": b"",
        "text.pt": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n",
    }
