"""One look at every file of an artifact, shared by all detectors that ask about structure and code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ftsec_audit.errors import SourceError
from ftsec_audit.files import ArtifactFile
from ftsec_audit.formats import container_walk, foreign, model_walk, pickle_walk
from ftsec_audit.formats.facts import FileFacts
from ftsec_audit.formats.sniff import STREAMS, Kind, sniff
from ftsec_audit.formats.walk import ContentReader, Place, SurveyLimits, Walk
from ftsec_audit.formats.zip_archive import ends_with_archive
from ftsec_audit.types import Severity

if TYPE_CHECKING:
    from ftsec_audit.artifact import Artifact

_MODEL_SUFFIXES = {
    ".safetensors": (Kind.SAFETENSORS,),
    ".gguf": (Kind.GGUF,),
    ".onnx": (Kind.ONNX,),
    ".h5": (Kind.HDF5,),
    ".hdf5": (Kind.HDF5,),
    ".keras": (Kind.ZIP, Kind.HDF5),
    ".npy": (Kind.NPY,),
    ".npz": (Kind.ZIP,),
    ".pt": (Kind.ZIP, Kind.PICKLE, Kind.TAR),
    ".pth": (Kind.ZIP, Kind.PICKLE, Kind.TAR),
    ".ckpt": (Kind.ZIP, Kind.PICKLE, Kind.TAR, Kind.HDF5),
    ".zip": (Kind.ZIP,),
    ".mar": (Kind.ZIP,),
    ".tar": (Kind.TAR,),
    ".nemo": (Kind.TAR, Kind.GZIP),
    ".7z": (Kind.SEVEN_ZIP,),
    ".gz": (Kind.GZIP,),
    ".tgz": (Kind.GZIP,),
    ".bz2": (Kind.BZIP2,),
    ".xz": (Kind.XZ,),
}
"""What a file of that name is taken for by the programs that load it; anything else is said."""


@dataclass(frozen=True)
class Survey:
    """The facts of every file, in the order of the artifact."""

    files: tuple[FileFacts, ...]


_CACHE: WeakKeyDictionary[Artifact, dict[SurveyLimits, Survey]] = WeakKeyDictionary()


def survey(artifact: Artifact, limits: SurveyLimits) -> Survey:
    """The survey of an artifact; made once and kept as long as the artifact lives."""
    kept = _CACHE.setdefault(artifact, {})
    if limits not in kept:
        kept[limits] = Survey(tuple(read_file(file, limits) for file in artifact.files))
    return kept[limits]


def read_file(file: ArtifactFile, limits: SurveyLimits) -> FileFacts:
    """Everything one file says; raises nothing that the file could cause."""
    facts = FileFacts(file=file)
    walk = Walk(facts, limits, readers=_READERS)
    if file.link_target is not None:
        walk.skipped("link", f"a symbolic link to {file.link_target[:200]}")
        return facts
    try:
        reader = file.open()
        facts.kind = sniff(reader)
        walk.into(reader, "", 0)
        _check_name(walk, facts.kind)
        if facts.kind not in (Kind.ZIP, Kind.EMPTY, Kind.TEXT) and ends_with_archive(reader):
            message = f"the file is {facts.kind} to some readers and a ZIP archive to others"
            walk.note(facts.container, "polyglot", message, Severity.HIGH)
            container_walk.read_zip(walk, Place(reader=reader, member="", depth=0, kind=Kind.ZIP))
    except SourceError as error:
        walk.unread("source", str(error))
    if walk.unverified:
        walk.skipped("checksums", f"the checksums of {walk.unverified:,} large members were not verified")
    return facts


_UNREAD_SUFFIXES = {
    ".msgpack": "Flax weights",
    ".mlmodel": "Core ML models",
    ".engine": "TensorRT engines, which are native code,",
    ".plan": "TensorRT engines, which are native code,",
    ".rknn": "RKNN models",
    ".pte": "ExecuTorch programs",
}


def _check_name(walk: Walk, kind: Kind) -> None:
    if walk.file.suffix in _UNREAD_SUFFIXES and kind is Kind.BINARY:
        walk.unread("format", f"{_UNREAD_SUFFIXES[walk.file.suffix]} are not read")
    expected = _MODEL_SUFFIXES.get(walk.file.suffix)
    if expected is None or kind in expected:
        return
    if kind is Kind.EMPTY:
        walk.unread("empty", f"an empty file named {walk.file.suffix}")
        return
    walk.unread("not-as-named", f"named {walk.file.suffix}, but its content is {kind}")


def _ignore(walk: Walk, place: Place) -> None:
    """Empty files."""


def _image(walk: Walk, place: Place) -> None:
    pickle_walk.search_bytes(walk, place, 0, place.reader.size)


def _text(walk: Walk, place: Place) -> None:
    if not pickle_walk.read_possible_pickle(walk, place):
        foreign.read_text(walk, place)


_READERS: dict[Kind, ContentReader] = {
    Kind.EMPTY: _ignore,
    Kind.IMAGE: _image,
    Kind.TEXT: _text,
    Kind.ZIP: container_walk.read_zip,
    Kind.TAR: container_walk.read_tar,
    Kind.SEVEN_ZIP: container_walk.read_seven_zip,
    Kind.RAR: container_walk.read_unsupported_archive,
    Kind.ZSTD: container_walk.read_unsupported_archive,
    Kind.LZ4: container_walk.read_unsupported_archive,
    **dict.fromkeys(STREAMS, container_walk.read_compressed),
    Kind.NPY: container_walk.read_npy,
    Kind.PICKLE: pickle_walk.read_pickles,
    Kind.SAFETENSORS: model_walk.read_safetensors,
    Kind.GGUF: model_walk.read_gguf,
    Kind.ONNX: model_walk.read_onnx,
    Kind.HDF5: foreign.read_hdf5,
    Kind.SAVED_MODEL: foreign.read_saved_model,
    Kind.TFLITE: foreign.read_tflite,
    Kind.EXECUTABLE: foreign.read_executable,
    Kind.PYTHON_BYTECODE: foreign.read_executable,
    Kind.BINARY: model_walk.read_unknown,
}
