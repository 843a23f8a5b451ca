"""Formats that hold weights rather than code (safetensors, GGUF, ONNX): what is wrong with them, as facts."""

from __future__ import annotations

import re

from ftsec_audit.errors import FormatError
from ftsec_audit.files import ArtifactFile
from ftsec_audit.formats import foreign, gguf, onnx, safetensors
from ftsec_audit.formats.pickle_walk import read_possible_pickle, search_bytes
from ftsec_audit.formats.walk import Place, Walk
from ftsec_audit.types import Severity

_SAFETENSORS_MILD = frozenset({"unknown-key", "metadata", "large-padding", "header-start"})
_SAFETENSORS_QUIET = frozenset({"unknown-dtype"})
_GGUF_MILD = frozenset({"unknown-type", "misaligned", "hole", "bool-value", "version", "long-string"})
_GGUF_BOMBS = frozenset({"counts", "array-length", "length", "elements", "header-size"})
_GGUF_TRUNCATED = frozenset({"truncated", "beyond-end"})
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def read_safetensors(walk: Walk, place: Place) -> None:
    reader = place.reader
    file = ArtifactFile(path=walk.file.path, size=reader.size, source=lambda _: reader)
    try:
        header = safetensors.read_header(file)
    except FormatError as error:
        walk.note(walk.facts.safetensors, "header", error.what, Severity.HIGH, place.member, 0)
        raise
    for problem in header.problems:
        code = problem.code
        if code in _SAFETENSORS_QUIET:
            walk.unread(code, problem.message, place.member, problem.offset)
            continue
        severity = Severity.MEDIUM if code in _SAFETENSORS_MILD else Severity.HIGH
        walk.note(
            walk.facts.safetensors,
            code,
            problem.message,
            severity,
            place.member,
            problem.offset,
            problem.tensor,
        )
        if problem.code in ("hole", "tail") and problem.offset is not None and problem.length:
            search_bytes(walk, place, problem.offset, problem.offset + problem.length)


def read_gguf(walk: Walk, place: Place) -> None:
    header = gguf.parse(place.reader, limits=walk.limits.gguf, where=walk.file.path)
    if not place.member:
        walk.facts.gguf = header
    for problem in header.problems:
        mild = problem.code in _GGUF_MILD
        severity = Severity.MEDIUM if mild else Severity.HIGH
        if problem.code in _GGUF_BOMBS:
            walk.note(
                walk.facts.bombs, problem.code, problem.message, Severity.HIGH, place.member, problem.offset
            )
        if problem.code in _GGUF_TRUNCATED:
            walk.unread(problem.code, problem.message, place.member, problem.offset)
        walk.note(
            walk.facts.gguf_structure,
            problem.code,
            problem.message,
            severity,
            place.member,
            problem.offset,
            problem.name,
        )
    _gguf_tail(walk, place, header)


def _gguf_tail(walk: Walk, place: Place, header: gguf.GgufHeader) -> None:
    rest = place.reader.size - header.data_end
    if rest <= 0 or not place.reader.read_at(header.data_end, 1 << 20).strip(b"\0"):
        return
    message = f"{rest:,} bytes follow the last tensor"
    walk.note(
        walk.facts.gguf_structure, "trailing-data", message, Severity.HIGH, place.member, header.data_end
    )
    search_bytes(walk, place, header.data_end, place.reader.size)


def read_onnx(walk: Walk, place: Place) -> None:
    try:
        model = onnx.read(place.reader, where=walk.file.path)
    except FormatError:
        if walk.file.suffix in (".onnx", ".ort"):
            raise
        read_unknown(walk, place)
        return
    if not model.has_graph:
        read_unknown(walk, place)
        return
    for data in model.external:
        _external(walk, place, data)
    facts = walk.facts.onnx
    for name in sorted(model.python_operators):
        walk.note(facts, "python-operator", f"the operator {name} calls Python", Severity.HIGH, place.member)
    own = {domain for domain, _ in model.functions}
    used = {domain for domain in model.domains if domain not in onnx.STANDARD_DOMAINS}
    for domain in sorted(used - own):
        message = f"operators of the domain {domain[:120]!r} need a custom library"
        walk.note(facts, "custom-domain", message, Severity.HIGH, place.member, excerpt=domain[:200])
    for domain, name in sorted(model.functions):
        if domain in ("", "ai.onnx", "ai.onnx.ml", "com.microsoft"):
            message = f"the model replaces the standard operator {name[:80]!r} by a function of its own"
            walk.note(facts, "function", message, Severity.HIGH, place.member, excerpt=name[:200])
    if model.too_deep:
        walk.note(walk.facts.bombs, "nesting", "graphs nested beyond any use", Severity.HIGH, place.member)


def _external(walk: Walk, place: Place, data: onnx.ExternalData) -> None:
    location = data.location.replace("\\", "/")
    reason = ""
    if not location:
        reason = "has no location"
    elif location.startswith("/") or re.match(r"[A-Za-z]:/", location):
        reason = "is an absolute path"
    elif ".." in location.split("/"):
        reason = "climbs out of the model's folder"
    elif _URI.match(location):
        reason = "is an address"
    elif "\0" in location:
        reason = "holds a NUL character"
    elif any(number and not number.isdigit() for number in (data.offset, data.length)):
        reason = "has an offset or length that is no number"
    if reason:
        message = f"external data of a tensor {reason}"
        walk.note(
            walk.facts.onnx,
            "external-data",
            message,
            Severity.HIGH,
            place.member,
            excerpt=data.location[:200],
        )


def read_unknown(walk: Walk, place: Place) -> None:
    """Content of no known kind: a stream without a header, or bytes to be searched."""
    if read_possible_pickle(walk, place):
        return
    if walk.file.name == "saved_model.pb" or walk.file.suffix in (".pb", ".meta", ".pbtxt"):
        foreign.read_saved_model(walk, place)
        return
    search_bytes(walk, place, 0, min(place.reader.size, 4 << 20))
