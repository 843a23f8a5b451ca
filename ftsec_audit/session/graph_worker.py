"""Child process that runs one ONNX graph: standard library, numpy and onnxruntime only, run as a script.

A graph is a program: it can loop, ask for any memory, and its reader is native code. So it runs here, under a
limit of address space, without files to write and on one thread; the parent ends it when no answer comes.

Messages are frames: four bytes of length and that much JSON, then the bytes that the JSON announces. The
first request is `{"model": path, "memory": bytes}` and its answer `{"caches": whether}`. Every later one is
`{"rows", "length", "keep", "past", "hold"}` and the token ids as int64; its answer is `{"shape"}` and the
logits of the last `keep` positions as float32, or `{"error"}`, or `{"memory"}` where that did not suffice.
"past" goes on from the last cache that was held; of one row it serves any number of rows.
"""

from __future__ import annotations

import json
import os
import re
import resource
import struct
import sys
from typing import IO, Any

import numpy as np
import onnxruntime

_TYPES: dict[str, Any] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(bool)": np.bool_,
}
_PAST = re.compile(r"past_key_values\.\d+\.(key|value)")
_KNOWN = ("input_ids", "attention_mask", "position_ids")
_SILENT = 4


class Refusal(Exception):
    """The graph is none that could be asked; the message says why."""


class Graph:
    """A causal model: its session and the keys and values it was last told to hold."""

    def __init__(self, path: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = _SILENT
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._inputs = {one.name: one for one in self._session.get_inputs()}
        names = {one.name for one in self._session.get_outputs()}
        self._past = [name for name in self._inputs if _PAST.fullmatch(name)]
        present = [name.replace("past_key_values", "present", 1) for name in self._past]
        self.caches = bool(present) and names.issuperset(present)
        self._outputs = ["logits", *(present if self.caches else ())]
        self._held: list[Any] = []
        self._seen = 0
        if "input_ids" not in self._inputs or "logits" not in names:
            raise Refusal("the graph does not lead from input_ids to logits")
        for name, one in self._inputs.items():
            if name not in _KNOWN and name not in self._past:
                raise Refusal(f"the graph wants an input {name[:80]!r}, which causal models do not have")
            if one.type not in _TYPES:
                raise Refusal(f"the graph wants {name[:80]} as {one.type[:40]}")

    def answer(self, ids: Any, *, keep: int, past: bool, hold: bool) -> Any:
        """Logits of the last `keep` positions, (rows, keep, vocabulary)."""
        rows, length = ids.shape
        seen = self._seen if past else 0
        positions = np.broadcast_to(np.arange(seen, seen + length), ids.shape)
        feed = {
            "input_ids": ids,
            "attention_mask": np.ones((rows, seen + length), np.int64),
            "position_ids": positions,
        }
        feed |= dict(zip(self._past, self._held, strict=True)) if past else self._empty(rows)
        feed = {name: feed[name].astype(_TYPES[one.type]) for name, one in self._inputs.items()}
        for name in self._past:
            if len(feed[name]) != rows:
                feed[name] = np.repeat(feed[name], rows, axis=0)
        logits, *present = self._session.run(self._outputs[: None if hold else 1], feed)
        if logits.ndim != 3 or logits.shape[:2] != ids.shape or logits.dtype.kind != "f":
            raise Refusal(f"logits of {ids.shape} tokens have the shape {logits.shape}")
        self._held, self._seen = present, seen + length
        return np.ascontiguousarray(logits[:, -keep:], np.float32)

    def _empty(self, rows: int) -> dict[str, Any]:
        """Keys and values of no token: of their dimensions, those without a number are batch and length."""
        shapes = {name: self._inputs[name].shape for name in self._past}
        return {
            name: np.zeros(
                [size if isinstance(size, int) else (0 if axis else rows) for axis, size in enumerate(shape)],
                _TYPES[self._inputs[name].type],
            )
            for name, shape in shapes.items()
        }


def _read(source: IO[bytes]) -> dict[str, Any] | None:
    head = source.read(4)
    if len(head) < 4:
        return None
    request: dict[str, Any] = json.loads(source.read(struct.unpack("<I", head)[0]))
    return request


def _write(sink: IO[bytes], answer: dict[str, Any], content: bytes | memoryview = b"") -> None:
    text = json.dumps(answer).encode()
    sink.write(struct.pack("<I", len(text)) + text)
    sink.write(content)
    sink.flush()


def _failure(error: Exception) -> dict[str, str]:
    text = f"{'' if isinstance(error, Refusal) else type(error).__name__ + ': '}{error}"
    text = text.replace("\n", " ")[:300]
    lacking = isinstance(error, MemoryError) or "allocate memory" in text or "bad_alloc" in text
    return {"memory" if lacking else "error": text}


def main() -> None:
    # What native code prints must not get between the answers.
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    source = sys.stdin.buffer
    settings = _read(source)
    if settings is None:
        return
    resource.setrlimit(resource.RLIMIT_AS, (settings["memory"], settings["memory"]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    try:
        graph = Graph(settings["model"])
    except Exception as error:  # noqa: BLE001 - the file is hostile, whatever its reader raises is the answer
        _write(sink, _failure(error))
        return
    _write(sink, {"caches": graph.caches})
    while (asked := _read(source)) is not None:
        shape = asked["rows"], asked["length"]
        ids = np.frombuffer(source.read(shape[0] * shape[1] * 8), np.int64).reshape(shape)
        try:
            logits = graph.answer(ids, keep=asked["keep"], past=asked["past"], hold=asked["hold"])
        except Exception as error:  # noqa: BLE001 - as above, of a graph at work
            _write(sink, _failure(error))
            continue
        _write(sink, {"shape": logits.shape}, logits.data)


if __name__ == "__main__":
    main()
