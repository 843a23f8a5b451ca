"""Pickle streams wherever they hide: one after another, behind padding, without a header, inside strings."""

from __future__ import annotations

import base64
import binascii
import re
from _codecs import escape_decode
from collections.abc import Callable, Iterator

from ftsec_audit.files import ByteReader, MemoryBytes
from ftsec_audit.formats.pickle_machine import PickleLimits, interpret
from ftsec_audit.formats.pickle_policy import is_dangerous
from ftsec_audit.formats.pickle_values import FATAL, Global, Operand, PickleRun, ProblemKind
from ftsec_audit.formats.sniff import STREAMS, Kind, sniff
from ftsec_audit.formats.views import Slice

_NAME = rb"[A-Za-z_][\w.]{0,120}"
_PUT = rb"(?:\x94|q.|r....|p\d{1,9}\n)?"
_TEXT_GLOBAL = rb"[ci]" + _NAME + rb"\n" + _NAME + rb"\n"
_STACK_GLOBAL = rb"\x8c." + _NAME + _PUT + rb"\x8c." + _NAME + _PUT + rb"\x93"
_ANCHOR = re.compile(
    rb"\x80[\x02-\x05](?=[\x95\x8c(\])}\x8fcXKJUMGNC\x88\x89\x8a])|" + _TEXT_GLOBAL + rb"|" + _STACK_GLOBAL,
    re.DOTALL,
)
_TEXT_PICKLE = re.compile(rb"[(\]})lcdNIKSVUX0-9'\n]{0,64}?" + _TEXT_GLOBAL)
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{24,}={0,2}\s*\Z")
_HEX = re.compile(rb"(?:[0-9a-fA-F]{2}){16,}\Z")
_PACKED = STREAMS | {Kind.PICKLE, Kind.ZIP, Kind.SEVEN_ZIP, Kind.NPY}
_PACKED_HEAD = re.compile(
    rb"\x80[\x02-\x05]|PK\x03\x04|\x1f\x8b|BZh|\xfd7zXZ|\x93NUMPY|x[\x01\x5e\x9c\xda]|\]\0\0|7z\xbc\xaf"
)
_FIRST_OPCODES = b"(]}lcidINKJMLFGSVUTXBC)\x8c\x8a\x88\x89\x8f\x80\x95P2"
_PROBE = PickleLimits(ops=20_000, held_bytes=4 << 20)
_WINDOW = 8 << 20
_OVERLAP = 512
_CANDIDATES = 5_000


def headerless_stream(reader: ByteReader) -> PickleRun | None:
    """The stream of protocol 0 or 1 that a file begins with, or None when it is ordinary content.

    Nearly any text begins with some opcode, so a file counts as a pickle only when it imports a name and
    either reaches STOP or calls what it imported, or when it is nothing but opcodes for a long way.
    """
    head = reader.read_at(0, 1)
    if not head or head not in _FIRST_OPCODES:
        return None
    run = interpret(reader, limits=_PROBE)
    if run.has(ProblemKind.OPERATIONS):
        return run
    says_something = run.persistent or run.has(ProblemKind.LONG_DIGITS)
    if says_something and run.complete and run.end >= reader.size - 1:
        return run
    if calls_danger(run) or (run.complete and _imports_a_name(run)):
        return run
    sound = all(problem.kind in FATAL for problem in run.problems)
    return run if sound and run.calls and _imports_a_name(run) else None


def _imports_a_name(run: PickleRun) -> bool:
    names = [r.target for r in run.references.values()]
    return any(isinstance(name, Global) and _is_name(name) for name in names)


def _is_name(name: Global) -> bool:
    return all(part.isidentifier() for part in f"{name.module}.{name.name}".split("."))


def is_probable(run: PickleRun) -> bool:
    """Whether bytes that happen to begin like a pickle are one: two bytes of a random tensor may."""
    return run.complete or bool(run.references) or run.ops > 64


def sweep(reader: ByteReader, start: int, end: int, exhausted: Callable[[int], None]) -> Iterator[PickleRun]:
    """Streams between two offsets that call something dangerous, or that are whole and import something.

    Calls `exhausted` with the offset where the search gave up after too many places that were none.
    """
    tried, at = 0, start
    while at < end:
        block = reader.read_at(at, min(_WINDOW, end - at))
        resume = 0
        for match in _ANCHOR.finditer(block):
            if match.start() < resume:
                continue
            tried += 1
            run = interpret(reader, at + match.start(), end, limits=_PROBE)
            if calls_danger(run) or (run.complete and run.references and match[0][0] == 0x80):
                yield run
                resume = run.end - at
            if tried >= _CANDIDATES:
                exhausted(at + match.start())
                return
        if at + len(block) >= end:
            return
        at += max(len(block) - _OVERLAP, resume)


def calls_danger(run: PickleRun) -> bool:
    functions = [call.function for call in run.calls] + [build.target for build in run.builds]
    return any(isinstance(function, Global) and is_dangerous(function) for function in functions)


def hidden_in(run: PickleRun, reader: ByteReader, *, limit: int) -> Iterator[tuple[Operand, ByteReader]]:
    """Strings of a stream that hold something a loader could open, decoded where they are encoded.

    At most `limit` bytes are decoded per string; plain byte strings are given as a view.
    """
    for operand in run.operands:
        head = reader.read_at(operand.offset, min(operand.length, 128))
        found = _decoded(operand, head, reader, limit)
        if found is not None and (_looks_packed(found) or (found is not None and _is_text_pickle(found))):
            yield operand, found


def _decoded(operand: Operand, head: bytes, reader: ByteReader, limit: int) -> ByteReader | None:
    view = Slice(reader, operand.offset, operand.length)
    if head[:1] in b"'\"" and b"\\x" in head:  # protocol 0 bytes: a quoted literal
        return _escaped(reader.read_at(operand.offset, min(operand.length, limit)))
    if head[:2] == b"\xc2\x80" or (operand.kind == "str" and head[:2] in (b"x\xc2", b"\x1f\xc2")):
        text = reader.read_at(operand.offset, min(operand.length, limit))
        return _memory(text.decode("utf-8", "ignore").encode("latin-1", "ignore"))
    if operand.kind == "str" and b"\\u00" in head:  # protocol 0 text
        text = reader.read_at(operand.offset, min(operand.length, limit))
        return _memory(text.decode("raw_unicode_escape", "ignore").encode("latin-1", "ignore"))
    sample = head.rstrip()
    if _HEX.match(sample) and operand.length <= limit:
        return _memory(_unhex(reader.read_at(operand.offset, operand.length)))
    if _BASE64.match(sample):
        return _memory(_unbase64(reader.read_at(operand.offset, min(operand.length, limit))))
    return view


def _looks_packed(reader: ByteReader) -> bool:
    return _PACKED_HEAD.match(reader.read_at(0, 8)) is not None and sniff(reader) in _PACKED


def _is_text_pickle(reader: ByteReader) -> bool:
    return _TEXT_PICKLE.match(reader.read_at(0, 512)) is not None


def _memory(data: bytes) -> ByteReader | None:
    return MemoryBytes(data) if data else None


def _escaped(text: bytes) -> ByteReader | None:
    try:
        return _memory(escape_decode(text.strip(b"'\""))[0])
    except ValueError:
        return None


def _unhex(text: bytes) -> bytes:
    try:
        return binascii.unhexlify(text.strip())
    except binascii.Error:
        return b""


def _unbase64(text: bytes) -> bytes:
    text = text.strip().translate(bytes.maketrans(b"-_", b"+/"))
    try:
        return base64.b64decode(text[: len(text) // 4 * 4] if not text.endswith(b"=") else text)
    except binascii.Error:
        return b""
