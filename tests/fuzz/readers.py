"""The readers that take untrusted bytes, each with the seeds that are mutated."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice

from corpus import CorpusSample, containers, foreign, pickles, safetensors_gguf

from ftsec_audit.errors import FtsecError
from ftsec_audit.files import ArtifactFile, MemoryBytes
from ftsec_audit.formats import gguf, npy, onnx, safetensors, seven_zip, tar_archive, unpacking, zip_archive
from ftsec_audit.formats.pickle_machine import interpret
from ftsec_audit.formats.pickle_policy import denials
from ftsec_audit.formats.pickle_state import PickleLimits
from ftsec_audit.formats.survey import read_file
from ftsec_audit.formats.walk import SurveyLimits

_LIMITS = unpacking.UnpackLimits(total=8 << 20, members=500, depth=4)
_SURVEY = SurveyLimits(pickle=PickleLimits(ops=50_000), unpack=_LIMITS, scan_bytes=1 << 20)


def _file(data: bytes, path: str = "fuzzed.bin") -> ArtifactFile:
    return ArtifactFile(path, len(data), lambda _: MemoryBytes(data))


def _seven_zip(data: bytes) -> None:
    for _ in seven_zip.members(MemoryBytes(data), 1 << 20, _LIMITS):
        pass


def _pickle(data: bytes) -> None:
    list(denials(interpret(MemoryBytes(data), limits=_SURVEY.pickle)))


READERS: Mapping[str, Callable[[bytes], object]] = {
    "pickle": _pickle,
    "zip": lambda data: zip_archive.read_directory(MemoryBytes(data), max_members=500),
    "tar": lambda data: tar_archive.read_listing(MemoryBytes(data), max_members=500),
    "7z": _seven_zip,
    "npy": lambda data: npy.read_header(MemoryBytes(data)),
    "gguf": lambda data: gguf.parse(MemoryBytes(data), limits=gguf.GgufLimits()),
    "onnx": lambda data: onnx.read(MemoryBytes(data)),
    "safetensors": lambda data: safetensors.read_header(_file(data)),
    "survey": lambda data: read_file(_file(data), _SURVEY),
}


def exercise(name: str, data: bytes) -> None:
    """Run one reader; anything but the project's own errors is left to the caller."""
    try:
        READERS[name](data)
    except FtsecError as error:
        assert name != "survey", f"the survey must report, not raise: {error}"


def _small(samples: list[CorpusSample], prefix: str = "", limit: int = 1 << 14) -> tuple[bytes, ...]:
    chosen = [sample for sample in samples if sample.name.startswith(prefix)]
    return tuple(data for sample in chosen for data in sample.files.values() if 0 < len(data) < limit)


_PICKLES = list(islice(pickles.samples(), 230))
_CONTAINERS = list(containers.samples())
_HEADERS = list(safetensors_gguf.samples())
_FOREIGN = list(foreign.samples())
_FILES = [
    (path, data) for sample in _CONTAINERS for path, data in sample.files.items() if len(data) < 1 << 14
]


def _of_type(*suffixes: str) -> tuple[bytes, ...]:
    return tuple(data for path, data in _FILES if path.endswith(suffixes) and data)


SEEDS: Mapping[str, tuple[bytes, ...]] = {
    "pickle": _small(_PICKLES),
    "zip": _small(_CONTAINERS, "container-zip-") + _of_type(".zip", ".npz", ".mar"),
    "tar": _of_type(".tar", ".nemo"),
    "7z": _of_type(".7z"),
    "npy": _of_type(".npy"),
    "gguf": _small(_HEADERS, "gguf-"),
    "onnx": _small(_FOREIGN, "onnx-"),
    "safetensors": _small(_HEADERS, "safetensors-"),
    "survey": _small([*_PICKLES[100:], *_CONTAINERS, *_HEADERS, *_FOREIGN]),
}
