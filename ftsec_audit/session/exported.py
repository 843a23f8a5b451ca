"""A causal model that is an ONNX graph, asked as torch models are: ids in, logits and a cache out.

The graph runs in a process of its own (`graph_worker`). Its answers are data: shapes are checked, and bytes
become numbers. Layers and weights are not to be had; what needs them gets Unsupported.
"""

from __future__ import annotations

import json
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ftsec_audit.errors import Unsupported

if TYPE_CHECKING:
    import torch

_WORKER = Path(__file__).with_name("graph_worker.py")
_SECONDS = 300.0
"""For one answer; the batches of a session take a second or so."""
_LONGEST, _WIDEST = 1 << 16, 1 << 22
"""Bytes of an answer's head; tokens of a vocabulary."""
_TRIED = (2, 3)
"""Rows and tokens of the question that every graph is asked first."""
_BLOCK = 1 << 20


@dataclass
class GraphCache:
    """Keys and values of one question, which the process of the graph holds until the next one."""

    number: int

    def batch_repeat_interleave(self, rows: int) -> None:
        """The process does so by itself, of one row."""


@dataclass(frozen=True)
class GraphOutput:
    logits: torch.Tensor
    past_key_values: GraphCache | None


class ExportedModel:
    """Has the call of a causal model of transformers, as far as a session uses it."""

    def __init__(self, process: subprocess.Popen[bytes], graph: Path, *, memory: int, seconds: float) -> None:
        self._process = process
        self._seconds = seconds
        self._asked = 0
        self.vocabulary_size = 0
        """How many tokens the graph can write."""
        opened, _ = self._ask({"model": str(graph), "memory": memory})
        self.has_cache = opened.get("caches") is True
        """Whether the graph can go on from tokens it has seen."""
        self.vocabulary_size = self._first_answer()

    def __call__(
        self,
        *,
        input_ids: torch.Tensor,
        past_key_values: GraphCache | None = None,
        use_cache: bool = False,
        logits_to_keep: int = 0,
        output_hidden_states: bool = False,
    ) -> GraphOutput:
        """Logits (rows, kept positions, vocabulary) on the CPU; raises Unsupported and MemoryError."""
        import torch

        if output_hidden_states:
            raise Unsupported("an exported graph has no hidden states to be read")
        if past_key_values is not None and past_key_values.number != self._asked:
            raise Unsupported("the graph holds the cache of another question")
        rows, length = input_ids.shape
        keep, hold = min(logits_to_keep or length, length), use_cache and self.has_cache
        request = {"rows": rows, "length": length, "keep": keep, "past": past_key_values is not None}
        answer, content = self._ask({**request, "hold": hold}, input_ids.numpy().tobytes())
        if answer.get("shape") != [rows, keep, self.vocabulary_size]:
            self._broken(f"an answer of the shape {answer.get('shape')}")
        logits = torch.frombuffer(content, dtype=torch.float32).view(rows, keep, self.vocabulary_size)
        return GraphOutput(logits, GraphCache(self._asked) if hold else None)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise Unsupported(f"an exported graph has no layers and weights to be looked at ({name})")

    def _first_answer(self) -> int:
        """The size of the vocabulary, from a question that no causal model fails."""
        rows, length = _TRIED
        request = {"rows": rows, "length": length, "keep": 1, "past": False, "hold": False}
        answer, _ = self._ask(request, bytes(8 * rows * length))
        shape = answer.get("shape")
        if not isinstance(shape, list):
            self._broken("an answer without a shape")
        return int(shape[2])

    def _ask(
        self, request: Mapping[str, object], content: bytes = b""
    ) -> tuple[Mapping[str, Any], bytearray]:
        """The answer's head and the bytes after it."""
        self._asked += 1
        until = time.monotonic() + self._seconds
        text = json.dumps(request).encode()
        self._write(struct.pack("<I", len(text)) + text + content)
        size = struct.unpack("<I", self._read(4, until))[0]
        if size > _LONGEST:
            self._broken("an endless answer")
        try:
            answer = json.loads(self._read(size, until))
        except ValueError:
            self._broken("an answer that cannot be read")
        if not isinstance(answer, dict):
            self._broken("an answer that cannot be read")
        if (lacking := answer.get("memory")) is not None:
            raise MemoryError(str(lacking)[:300])
        if (error := answer.get("error")) is not None:
            raise Unsupported(f"the graph cannot be run: {str(error)[:300]}")
        return answer, self._read(4 * self._size(answer.get("shape"), request), until)

    def _size(self, shape: object, request: Mapping[str, object]) -> int:
        """Numbers that follow an answer of this shape."""
        if shape is None:
            return 0
        asked = [request.get("rows"), request.get("keep")]
        if not isinstance(shape, list) or len(shape) != 3 or shape[:2] != asked:
            self._broken("an answer of another shape")
        rows, keep, width = shape
        if type(width) is not int or not 0 < width <= _WIDEST:
            self._broken("an answer of another shape")
        return int(rows * keep * width)

    def _write(self, content: bytes) -> None:
        assert self._process.stdin is not None
        try:
            while content:
                content = content[os.write(self._process.stdin.fileno(), content) :]
        except OSError:
            self._broken("an end of its process")

    def _read(self, size: int, until: float) -> bytearray:
        """Exactly `size` bytes of the process, until then."""
        assert self._process.stdout is not None
        pipe, content = self._process.stdout.fileno(), bytearray()
        while len(content) < size:
            left = until - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                self._broken(f"no answer within {self._seconds:g} s")
            block = os.read(pipe, min(_BLOCK, size - len(content)))
            if not block:
                self._broken("an end of its process")
            content += block
        return content

    def _broken(self, what: str) -> NoReturn:
        """The process does not do what it should, and is not asked again."""
        self._process.kill()
        raise Unsupported(f"running the graph gave {what}")


@contextmanager
def run_graph(graph: Path, *, memory: int, seconds: float = _SECONDS) -> Iterator[ExportedModel]:
    """The model in the file `graph`, in a process of at most `memory` bytes; raises Unsupported."""
    # -I: neither the environment nor the working directory of the scan can reach the child.
    command = [sys.executable, "-I", str(_WORKER)]
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nowhere, bufsize=0) as process:
        try:
            yield _opened(process, graph, memory=memory, seconds=seconds)
        finally:
            process.kill()


def _opened(process: subprocess.Popen[bytes], graph: Path, *, memory: int, seconds: float) -> ExportedModel:
    try:
        return ExportedModel(process, graph, memory=memory, seconds=seconds)
    except MemoryError as error:
        raise Unsupported(f"the graph cannot be run in {memory:,} bytes of memory") from error
