"""What a file is, by its content. Names and extensions are the attacker's to choose."""

from __future__ import annotations

import re
from enum import StrEnum

from ftsec_audit.files import ByteReader
from ftsec_audit.formats import npy
from ftsec_audit.formats.tar_archive import is_tar
from ftsec_audit.formats.zip_archive import LOCAL, has_end_record


class Kind(StrEnum):
    EMPTY = "empty"
    ZIP = "zip"
    TAR = "tar"
    SEVEN_ZIP = "7z"
    RAR = "rar"
    ZSTD = "zstd"
    LZ4 = "lz4"
    GZIP = "gzip"
    BZIP2 = "bzip2"
    XZ = "xz"
    LZMA = "lzma"
    ZLIB = "zlib"
    NPY = "npy"
    PICKLE = "pickle"
    SAFETENSORS = "safetensors"
    GGUF = "gguf"
    ONNX = "onnx"
    HDF5 = "hdf5"
    SAVED_MODEL = "tensorflow graph"
    TFLITE = "tflite"
    EXECUTABLE = "executable"
    PYTHON_BYTECODE = "python bytecode"
    TEXT = "text"
    IMAGE = "image"
    BINARY = "binary"


STREAMS = frozenset({Kind.GZIP, Kind.BZIP2, Kind.XZ, Kind.LZMA, Kind.ZLIB})
ARCHIVES = STREAMS | {Kind.ZIP, Kind.TAR, Kind.SEVEN_ZIP, Kind.NPY}
_MAGIC: tuple[tuple[bytes, Kind], ...] = (
    (LOCAL, Kind.ZIP),
    (b"PK\x05\x06", Kind.ZIP),
    (b"7z\xbc\xaf\x27\x1c", Kind.SEVEN_ZIP),
    (b"Rar!\x1a\x07", Kind.RAR),
    (b"\x28\xb5\x2f\xfd", Kind.ZSTD),
    (b"\x04\x22\x4d\x18", Kind.LZ4),
    (b"\x1f\x8b\x08", Kind.GZIP),
    (b"BZh", Kind.BZIP2),
    (b"\xfd7zXZ\0", Kind.XZ),
    (npy.MAGIC, Kind.NPY),
    (b"GGUF", Kind.GGUF),
    (b"FUGG", Kind.GGUF),
    (b"\x89HDF\r\n\x1a\n", Kind.HDF5),
    (b"\x89PNG\r\n\x1a\n", Kind.IMAGE),
    (b"\xff\xd8\xff", Kind.IMAGE),
    (b"GIF8", Kind.IMAGE),
    (b"\x7fELF", Kind.EXECUTABLE),
    (b"MZ", Kind.EXECUTABLE),
    (b"\xcf\xfa\xed\xfe", Kind.EXECUTABLE),
    (b"\xca\xfe\xba\xbe", Kind.EXECUTABLE),
    (b"\xfe\xed\xfa\xcf", Kind.EXECUTABLE),
)
_ZLIB_HEADS = frozenset({b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda"})
_BYTECODE = re.compile(rb"[\x00-\xff][\x0a-\x0f]\r\n", re.DOTALL)
_SAFETENSORS_HEAD = re.compile(rb'\{\s*(?:"|\})')
_HEAD = 4096


def sniff(reader: ByteReader) -> Kind:
    """The kind of a file by its first bytes, or by an end record at its end.

    PICKLE is given for protocols 2-5, which say so; text that may be a pickle of protocol 0 or 1 is
    for the pickle search to recognise.
    """
    head = reader.read_at(0, _HEAD)
    if not head:
        return Kind.EMPTY
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            if kind is Kind.EXECUTABLE and magic == b"MZ" and not _is_portable_executable(head):
                continue
            return kind
    if head[4:8] == b"TFL3":
        return Kind.TFLITE
    if _is_safetensors(head):
        return Kind.SAFETENSORS
    if len(head) > 2 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return Kind.PICKLE
    if head[:2] in _ZLIB_HEADS:
        return Kind.ZLIB
    if head.startswith(b"\x5d\0\0") and len(head) > 13:
        return Kind.LZMA
    if is_tar(head):
        return Kind.TAR
    if _BYTECODE.match(head) and len(head) > 16 and head[4:8] in (b"\0\0\0\0", b"\1\0\0\0", b"\3\0\0\0"):
        return Kind.PYTHON_BYTECODE
    if _is_onnx(head):
        return Kind.ONNX
    if has_end_record(reader):
        return Kind.ZIP
    return Kind.TEXT if is_text(head) else Kind.BINARY


def is_text(head: bytes) -> bool:
    """Whether bytes are UTF-8 without control characters, a character cut off at the end allowed."""
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
    return not re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", head)


def _is_safetensors(head: bytes) -> bool:
    if len(head) < 10 or _SAFETENSORS_HEAD.match(head, 8) is None:
        return False
    length = int.from_bytes(head[:8], "little")
    return length < 1 << 40 or b'"dtype"' in head


def _is_onnx(head: bytes) -> bool:
    """ModelProto begins with ir_version (field 1, varint), then producer or opset or graph."""
    return head[:1] == b"\x08" and len(head) > 4 and 1 <= head[1] <= 20 and head[2] in b"\x12\x1a\x22\x3a\x42"


def _is_portable_executable(head: bytes) -> bool:
    at = int.from_bytes(head[60:64], "little")
    return 64 <= at < len(head) - 4 and head[at : at + 4] == b"PE\0\0"
