"""The tensors of a model spread over one or several files, whatever format each file has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ftsec_audit.errors import BudgetExceeded, FormatError, FtsecError, Unsupported
from ftsec_audit.files import ArtifactFile
from ftsec_audit.formats import bounded_json, safetensors, torch_pickle
from ftsec_audit.formats.bounded_json import JsonLimits
from ftsec_audit.formats.tensors import Problem, TensorEntry, TensorIndex
from ftsec_audit.formats.torch_archive import ZIP_MAGIC

_SUFFIX = ".safetensors"
_GRAPH_SUFFIX = ".onnx"
_SHARD_INDEX = JsonLimits(size=64 << 20)


def index(files: Sequence[ArtifactFile], *, shard_index: ArtifactFile | None = None) -> TensorIndex:
    """Index all tensors of `files`; what one file lacks does not hide the others.

    `shard_index` (`model.safetensors.index.json`) is only compared with what the files themselves say.
    Raises the first error when no file can be read; SourceError always.
    """
    entries: dict[str, TensorEntry] = {}
    homes: dict[str, str] = {}
    problems: list[Problem] = []
    errors: list[FtsecError] = []
    for file in files:
        try:
            found, odd = _read(file)
        except (FormatError, BudgetExceeded, Unsupported) as error:
            errors.append(error)
            problems.append(Problem(code="unreadable-file", message=error.what, file=file.path, fatal=True))
            continue
        problems += odd
        for entry in found:
            if homes.setdefault(entry.name, file.path) == file.path:
                entries[entry.name] = entry
            else:
                problems.append(_also_elsewhere(file, entry.name))
    if errors and len(errors) == len(files):
        raise errors[0]
    if shard_index is not None:
        problems += _disagreements(shard_index, files, homes)
    return TensorIndex(entries.values(), problems)


def _read(file: ArtifactFile) -> tuple[Iterable[TensorEntry], Iterable[Problem]]:
    """By content; under a safetensors name nothing but safetensors is accepted, as loaders do."""
    if file.suffix == _GRAPH_SUFFIX:
        # Exporters rename, transpose, fuse and fold; which weight of the base one came from is not stored.
        raise Unsupported("weights inside an ONNX graph are not compared", where=file.path)
    start = file.read(9)
    if file.suffix == _SUFFIX or start[8:] == b"{":
        try:
            header = safetensors.read_header(file)
        except FormatError as error:
            if start.startswith((ZIP_MAGIC, b"\x80")):
                raise FormatError("a pickle under the name of a safetensors file", where=file.path) from error
            raise
        return header.entries, header.problems
    found = torch_pickle.read_index(file)
    return found.entries, found.problems


def _also_elsewhere(file: ArtifactFile, name: str) -> Problem:
    message = "a file before this one has a tensor of the same name; this one was left out"
    return Problem(code="repeated-name", message=message, file=file.path, tensor=name, fatal=True)


def _disagreements(
    shard_index: ArtifactFile, files: Sequence[ArtifactFile], homes: Mapping[str, str]
) -> Iterator[Problem]:
    """Where the index of a sharded checkpoint says something else than its shards."""

    def problem(code: str, message: str, tensor: str = "") -> Problem:
        return Problem(code=code, message=message, file=shard_index.path, tensor=tensor)

    try:
        document = bounded_json.read(shard_index, limits=_SHARD_INDEX)
    except (FormatError, BudgetExceeded) as error:
        yield problem("shard-index", f"the shard index cannot be read: {error.what}")
        return
    if document.repeated:
        yield problem("shard-index", f"the shard index repeats {len(document.repeated)} of its keys")
    weight_map = document.value.get("weight_map") if isinstance(document.value, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        yield problem("shard-index", "the shard index has no weight_map of names to file names")
        return
    folder = shard_index.path[: -len(shard_index.name)]
    known = {file.path for file in files}
    for name in sorted(set(weight_map.values())):
        if "/" in name or "\\" in name or name in ("", ".", ".."):
            yield problem("shard-path", f"the shard index names {name[:200]!r}, not a file beside it")
        elif folder + name not in known:
            yield problem("missing-shard", f"the shard {name[:200]!r} is missing")
    for tensor in sorted(weight_map.keys() | homes.keys()):
        if tensor not in weight_map:
            yield problem("unmapped-tensor", "the shard index does not name it", tensor)
            continue
        mapped = folder + weight_map[tensor]
        if mapped in known and mapped != homes.get(tensor):
            message = f"the shard index puts it into {mapped[:200]!r}, which does not hold it"
            yield problem("misplaced-tensor", message, tensor)
