"""Formats that are not read as weights, recognised where they carry code.

Keras: Lambda layers hold marshalled bytecode (`.h5`, `.keras`), and a `.keras` configuration names modules
to import (CVE-2024-3660, CVE-2025-1550). TensorFlow: graph operations that call Python or touch files.
NeMo and Hydra: `_target_` names a callable. TorchServe: a handler. TorchScript: a program.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ftsec_audit.files import ByteReader
from ftsec_audit.formats.pickle_policy import is_dangerous
from ftsec_audit.formats.pickle_values import Global
from ftsec_audit.formats.walk import Place, Walk
from ftsec_audit.types import Severity

_BLOCK = 4 << 20
_OVERLAP = 8192
_LAMBDA = re.compile(rb'"class_name"\s*:\s*"(?:\w+>)?(Lambda|TFOpLambda|SlicingOpLambda)"')
_MODULE = re.compile(rb'"module"\s*:\s*"([\w.]{1,200})"')
_BYTECODE = re.compile(rb'"(?:class_name|function_type)"\s*:\s*"(?:__lambda__|lambda)"')
_KERAS_MODULES = ("keras", "tensorflow", "tf_keras", "builtins", "keras_hub", "keras_nlp", "keras_cv")
_GRAPH_OPERATIONS = {
    b"PyFunc": "calls a Python function",
    b"PyFuncStateless": "calls a Python function",
    b"EagerPyFunc": "calls a Python function",
    b"ReadFile": "reads a file of the host",
    b"WriteFile": "writes a file of the host",
    b"MatchingFiles": "lists files of the host",
    b"WholeFileReaderV2": "reads files of the host",
    b"DebugIdentityV2": "sends tensors to an address",
    b"PrintV2": "writes to a file of the host",
    b"Save": "writes a file of the host",
    b"SaveSlices": "writes a file of the host",
    b"LookupTableExportV2": "reads out a table",
    b"LoadLibrary": "loads a shared library",
    b"ShellExec": "runs a command",
}
_MILD_OPERATIONS = frozenset({b"LookupTableExportV2", b"Save", b"PrintV2", b"SaveSlices"})
_NODE_OPERATION = re.compile(
    b"|".join(
        rb"\x12" + re.escape(bytes([len(name)])) + name + rb"(?=[\x1a\x22\x2a\x32\x3a])"
        for name in sorted(_GRAPH_OPERATIONS, key=len, reverse=True)
    )
)
_JSON_BOMBS = (
    (re.compile(rb"(?:[\[{]\s{0,4}){200}"), "json-nesting", "brackets nested more than 200 deep"),
    (
        re.compile(rb"(?:\{\s{0,4}\"[^\"]{0,16}\"\s{0,4}:\s{0,4}\[?){100}"),
        "json-nesting",
        "objects nested more than 100 deep",
    ),
    (re.compile(rb"[:\[,]\s{0,4}-?\d{4301}"), "json-digits", "an integer of more than 4,300 digits"),
)
_TARGET = re.compile(rb"""["']?_target_["']?\s*:\s*["']?([A-Za-z_][\w.]{1,200})""")
_TARGET_MODULES = (
    "nemo.", "nemo_toolkit.", "torch.nn.", "torch.optim.", "pytorch_lightning.", "lightning.",
    "megatron.", "transformer_engine.", "torchmetrics.", "omegaconf.", "apex.optimizers.", "torchaudio.",
)  # fmt: skip
_SCRIPT_FILES = re.compile(
    rb"aten::from_file|torch\.from_file|\bops\.(?!prim|aten|quantized|torchvision|image)\w+"
)


def judge_archive(walk: Walk, place: Place, names: set[str]) -> None:
    """What the names of an archive's members say about its kind."""
    facts = walk.facts.foreign
    tops = {name.rsplit("/", 1)[-1] for name in names}
    if "MAR-INF/MANIFEST.json" in names:
        handlers = sorted(name for name in names if name.endswith((".py", ".sh")))
        message = f"a TorchServe archive with {len(handlers)} scripts that run when it is served"
        if handlers:
            walk.note(
                facts, "handler", message, Severity.HIGH, place.member, excerpt=", ".join(handlers)[:200]
            )
    scripts = any("/code/" in f"/{name}" and name.endswith(".py") for name in names)
    if scripts and "constants.pkl" in tops:
        message = "a TorchScript program: its code runs in torch's interpreter when it is called"
        walk.note(facts, "torchscript", message, Severity.MEDIUM, place.member)
    for name in sorted(names):
        if name.endswith((".so", ".dll", ".dylib", ".pyd")):
            walk.note(facts, "native-code", "a shared library", Severity.HIGH, place.inner(name))


def read_hdf5(walk: Walk, place: Place) -> None:
    """Keras and others in HDF5: searched for code; the weights are not read."""
    _keras(walk, place)
    walk.unread("hdf5", "tensors in HDF5 are not read", place.member)


def read_saved_model(walk: Walk, place: Place) -> None:
    """A TensorFlow graph or SavedModel: searched for operations that leave the graph."""
    seen: set[bytes] = set()
    for offset, match in _matches(walk, place.reader, _NODE_OPERATION):
        name = match[0][2:]
        if name in seen:
            continue
        seen.add(name)
        severity = Severity.MEDIUM if name in _MILD_OPERATIONS else Severity.HIGH
        message = f"the graph operation {name.decode()} {_GRAPH_OPERATIONS[name]}"
        walk.note(walk.facts.foreign, "graph-operation", message, severity, place.member, offset)
    walk.unread("tensorflow", "tensors of TensorFlow graphs are not read", place.member)


def read_text(walk: Walk, place: Place) -> None:
    """Configuration that names code, inside or beside a foreign model."""
    name = place.member.rsplit("› ", 1)[-1] or walk.file.path
    _json_bombs(walk, place)
    if name.endswith((".json", ".yaml", ".yml")):
        _targets(walk, place)
        if place.member and name.endswith("config.json"):
            _keras(walk, place)
    if "/code/" in f"/{name}" and name.endswith(".py"):
        for offset, match in _matches(walk, place.reader, _SCRIPT_FILES):
            message = f"the TorchScript program uses {match[0].decode('latin-1')[:80]}"
            walk.note(walk.facts.foreign, "script-operation", message, Severity.HIGH, place.member, offset)


def _json_bombs(walk: Walk, place: Place) -> None:
    """Nesting and integers on which JSON parsers overflow or stall."""
    for pattern, code, message in _JSON_BOMBS:
        for offset, _ in _matches(walk, place.reader, pattern):
            walk.note(walk.facts.bombs, code, message, Severity.HIGH, place.member, offset)
            break


def read_executable(walk: Walk, place: Place) -> None:
    if place.member:  # a program that lies in the repository itself is FTA422's
        message = f"{place.kind}: code that runs outside any model format"
        walk.note(walk.facts.foreign, "executable", message, Severity.HIGH, place.member, 0)


def read_tflite(walk: Walk, place: Place) -> None:
    walk.unread("tflite", "TensorFlow Lite models are not read", place.member)


def _keras(walk: Walk, place: Place) -> None:
    facts = walk.facts.foreign
    for offset, match in _matches(walk, place.reader, _LAMBDA):
        layer = match[1].decode()
        code = layer == "Lambda"
        message = (
            f"a {layer} layer{' holds Python bytecode that runs when the model is loaded' if code else ''}"
        )
        severity = Severity.HIGH if code else Severity.LOW
        walk.note(facts, "keras-lambda", message, severity, place.member, offset, match[0].decode("latin-1"))
    for offset, match in _matches(walk, place.reader, _BYTECODE):
        walk.note(
            facts,
            "keras-bytecode",
            "a serialised Python function",
            Severity.HIGH,
            place.member,
            offset,
            match[0].decode("latin-1"),
        )
    for offset, match in _matches(walk, place.reader, _MODULE):
        module = match[1].decode()
        if module.split(".")[0] not in _KERAS_MODULES:
            message = f"the configuration makes Keras import {module}"
            walk.note(facts, "keras-module", message, Severity.HIGH, place.member, offset, module)


def _targets(walk: Walk, place: Place) -> None:
    for offset, match in _matches(walk, place.reader, _TARGET):
        target = match[1].decode()
        if target.startswith(_TARGET_MODULES):
            continue
        module, _, name = target.rpartition(".")
        dangerous = is_dangerous(Global(module, name))
        message = f"`_target_` makes the loader call {target}"
        severity = Severity.CRITICAL if dangerous else Severity.HIGH
        walk.note(walk.facts.foreign, "target", message, severity, place.member, offset, target)


def _matches(
    walk: Walk, reader: ByteReader, pattern: re.Pattern[bytes]
) -> Iterator[tuple[int, re.Match[bytes]]]:
    """Matches over the first bytes of some content, block by block, each once."""
    last = -1
    end = min(reader.size, walk.limits.scan_bytes)
    for at in range(0, end, _BLOCK - _OVERLAP):
        for match in pattern.finditer(reader.read_at(at, min(_BLOCK, end - at))):
            if at + match.start() > last:
                last = at + match.start()
                yield last, match
