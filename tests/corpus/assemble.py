"""Small writers for hostile files: pickle opcodes, ZIP and 7z records, protobuf fields, GGUF headers.

The payload is always `echo`, and nothing in the project ever loads what these functions return.
"""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence

COMMAND = "echo inert"


# pickle


def text(value: str) -> bytes:
    raw = value.encode("utf-8", "surrogatepass")
    return b"\x8c" + bytes([len(raw)]) + raw if len(raw) < 256 else b"X" + struct.pack("<I", len(raw)) + raw


def global_(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def stack_global(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def call(module: str, name: str, *args: bytes, protocol: int = 4) -> bytes:
    """A REDUCE of a global with already assembled arguments."""
    function = stack_global(module, name) if protocol >= 4 else global_(module, name)
    return function + b"(" + b"".join(args) + b"tR"


def stream(body: bytes, protocol: int = 4) -> bytes:
    head = b"\x80" + bytes([protocol]) if protocol >= 2 else b""
    return head + body + b"."


def attack(module: str = "os", name: str = "system", protocol: int = 4, argument: str = COMMAND) -> bytes:
    """A whole stream that calls one global with one string."""
    literal = text(argument) if protocol >= 4 else b"X" + struct.pack("<I", len(argument)) + argument.encode()
    if protocol < 1:
        literal = b"V" + argument.encode("raw_unicode_escape") + b"\n"
    return stream(call(module, name, literal, protocol=protocol), protocol)


# archives


def zip_file(members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED, comment: bytes = b"") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            info.compress_type = method
            archive.writestr(info, data)
        archive.comment = comment
    return out.getvalue()


def torch_zip(pickle: bytes, storages: Sequence[bytes] = (b"\0" * 16,), name: str = "archive") -> bytes:
    members = {f"{name}/data.pkl": pickle, f"{name}/byteorder": b"little"}
    members |= {f"{name}/data/{i}": data for i, data in enumerate(storages)}
    return zip_file(members | {f"{name}/version": b"3\n"})


def tar_file(
    members: Mapping[str, bytes], *, links: Mapping[str, str] | None = None, mode: str = "w"
) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return out.getvalue()


def seven_zip(members: Mapping[str, bytes], packer: str = "lzma2") -> bytes:
    """A 7z archive of one folder with a plain header."""
    import bz2
    import lzma

    data = b"".join(members.values())
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}]
    raw_filters = [{"id": lzma.FILTER_LZMA1, "dict_size": 1 << 20}]
    packed, coder = {
        "copy": lambda: (data, b"\x01\x00"),
        "lzma2": lambda: (lzma.compress(data, lzma.FORMAT_RAW, filters=filters), b"\x21\x21\x01\x10"),
        "lzma": lambda: (
            lzma.compress(data, lzma.FORMAT_RAW, filters=raw_filters),
            b"\x23\x03\x01\x01\x05\x5d" + struct.pack("<I", 1 << 20),
        ),
        "bzip2": lambda: (bz2.compress(data), b"\x03\x04\x02\x02"),
        "deflate": lambda: (zlib.compress(data)[2:-4], b"\x03\x04\x01\x08"),
    }[packer]()
    sizes = [len(member) for member in members.values()]
    names = "".join(f"{name}\0" for name in members).encode("utf-16-le")
    header = b"\x01\x04"
    header += b"\x06" + _number(0) + _number(1) + b"\x09" + _number(len(packed)) + b"\x00"
    header += b"\x07\x0b" + _number(1) + b"\x00" + _number(1) + coder + b"\x0c" + _number(len(data)) + b"\x00"
    header += b"\x08\x0d" + _number(len(sizes)) + b"\x09" + b"".join(map(_number, sizes[:-1])) + b"\x00"
    header += b"\x00"
    header += b"\x05" + _number(len(sizes))
    header += b"\x11" + _number(len(names) + 1) + b"\x00" + names + b"\x00\x00"
    start = struct.pack("<QQI", len(packed), len(header), zlib.crc32(header))
    return b"7z\xbc\xaf\x27\x1c\x00\x04" + struct.pack("<I", zlib.crc32(start)) + start + packed + header


def _number(value: int) -> bytes:
    if value < 0x80:
        return bytes([value])
    if value < 0x4000:
        return bytes([0x80 | value >> 8, value & 0xFF])
    return b"\xff" + struct.pack("<Q", value)


# arrays and tensors


def npy(descr: str, shape: str, data: bytes, version: int = 1) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header.encode() + data


def safetensors(
    header: object, data: bytes = b"", *, length: int | None = None, padding: bytes = b""
) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    raw += padding
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(dtype: str, shape: Sequence[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


# GGUF


def gguf_string(value: str | bytes, order: str = "<") -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack(order + "Q", len(raw)) + raw


def gguf_value(kind: int, raw: bytes, key: str, order: str = "<") -> bytes:
    return gguf_string(key, order) + struct.pack(order + "I", kind) + raw


def gguf_text(key: str, value: str, order: str = "<") -> bytes:
    return gguf_value(8, gguf_string(value, order), key, order)


def gguf_u32(key: str, value: int, order: str = "<") -> bytes:
    return gguf_value(4, struct.pack(order + "I", value), key, order)


def gguf_array(key: str, kind: int, items: bytes, count: int, order: str = "<") -> bytes:
    return gguf_value(9, struct.pack(order + "IQ", kind, count) + items, key, order)


def gguf_tensor(
    name: str, dimensions: Sequence[int], kind: int, offset: int, order: str = "<", n: int | None = None
) -> bytes:
    count = len(dimensions) if n is None else n
    body = struct.pack(f"{order}I{len(dimensions)}Q", count, *dimensions)
    return gguf_string(name, order) + body + struct.pack(order + "IQ", kind, offset)


def gguf(
    entries: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    order: str = "<",
    counts: tuple[int, int] | None = None,
    alignment: int = 32,
) -> bytes:
    n_tensors, n_entries = counts or (len(tensors), len(entries))
    head = b"GGUF" + struct.pack(order + "IQQ", version, n_tensors, n_entries)
    head += b"".join(entries) + b"".join(tensors)
    return head + b"\0" * (-len(head) % alignment) + data


# protobuf


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(raw)) + raw
