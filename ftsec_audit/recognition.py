"""Recognises what a set of files is, by names, configuration and, where those are silent, tensor names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from ftsec_audit.adapter_config import AdapterConfig
from ftsec_audit.artifact import Artifact, ArtifactKind
from ftsec_audit.errors import BudgetExceeded, FormatError, Unsupported
from ftsec_audit.files import ArtifactFile
from ftsec_audit.formats import bounded_json, state_dict
from ftsec_audit.formats.bounded_json import JsonLimits
from ftsec_audit.formats.tensors import TensorEntry

_CONFIG = JsonLimits(size=4 << 20, values=200_000, nesting=32)
_ADAPTER_CONFIG = "adapter_config.json"
_READ = (".safetensors", ".bin", ".pt", ".pth")
_NOT_READ = (
    ".gguf",
    ".onnx",
    ".h5",
    ".keras",
    ".msgpack",
    ".ckpt",
    ".nemo",
    ".npz",
    ".pb",
    ".tflite",
    ".pkl",
)
_TRAINING_STATE = re.compile(
    r"(optimizer|scheduler|scaler|training_args|trainer_state|rng_state|random_states|zero_pp_rank|mp_rank)"
    r"[\w.-]*\.(pt|pth|bin|pkl)"
)
_ADAPTER_WEIGHTS = (
    re.compile(r"adapter_model\.safetensors"),
    re.compile(r"adapter_model-\d+-of-\d+\.safetensors"),
    re.compile(r"adapter_model\.bin"),
)
_CHECKPOINT_WEIGHTS = (
    re.compile(r"model\.safetensors"),
    re.compile(r"model-\d+-of-\d+\.safetensors"),
    re.compile(r"pytorch_model\.bin"),
    re.compile(r"pytorch_model-\d+-of-\d+\.bin"),
)
_ANY_WEIGHTS = (
    re.compile(r".*\.safetensors", re.IGNORECASE),
    re.compile(r".*\.(bin|pt|pth)", re.IGNORECASE),
)
_GRAPHS = ("model.onnx", "onnx/model.onnx")
_ADAPTER_NAME = re.compile(r"adapter|lora|peft", re.IGNORECASE)
_Patterns = Sequence[re.Pattern[str]]
_TENSOR_MARKS = {
    "lora_magnitude_vector": "dora",
    "lora_E": "adalora",
    "lora_A": "lora",
    "lora_embedding_A": "lora",
    "lora_down": "lora",
    "hada_w1": "loha",
    "lokr_w1": "lokr",
    "ia3_l": "ia3",
    "vera_lambda": "vera",
    "oft_": "oft",
    "prompt_embeddings": "prompt",
}
_MARKED = re.compile(
    r"(?:.*\.)?(?P<module>[^.]+)\.(?P<mark>lora_A|lora_down|lora_E|hada_w1|lokr_w1|ia3_l|vera_lambda)"
)
_README_BYTES = 64 << 10
_BASE_LINE = re.compile(r"^base_model:[ \t]*(?:\n[ \t]*-[ \t]*)?[\"']?([^\s\"'\[\]#][^\n\"']*)", re.MULTILINE)


def recognise(
    reference: str, resolved: str, files: tuple[ArtifactFile, ...], *, local_dir: Path | None = None
) -> Artifact:
    """The artifact that the files are; raises SourceError and nothing else.

    The model is looked for at the top and then level by level; at one level the last folder in natural
    order counts (`checkpoint-1000` after `checkpoint-500`). Whatever else holds weights is `unexamined`.
    """
    artifact = Artifact(
        reference=reference, resolved=resolved, files=files, kind=ArtifactKind.FILES, local_dir=local_dir
    )
    folders = _folders(files)
    folder, found = next(_models(folders), (None, None))
    problems = [problem for folder in folders for problem in folder.problems]
    if folder is not None and found is not None:
        artifact = replace(
            artifact,
            kind=found.kind,
            adapter=found.adapter,
            config=folder.config,
            declared_base=_declared_base(folder, found),
            weight_files=found.weights,
            shard_index=_shard_index(folder, found.weights),
        )
        if folder.path:
            problems.append(f"the model lies in the subfolder {folder.path!r}")
        problems += found.adapter.problems if found.adapter else ()
    taken = {file.path for file in artifact.weight_files}
    further = (file.path for file in files if _is_weights(file) and file.path not in taken)
    return replace(artifact, unexamined=tuple(sorted(further)), problems=tuple(problems))


@dataclass(frozen=True, kw_only=True)
class _Model:
    """A model found in one folder."""

    kind: ArtifactKind
    weights: tuple[ArtifactFile, ...]
    adapter: AdapterConfig | None = None


@dataclass
class _Folder:
    """The files of one folder, by name; reading them may fill `problems`."""

    path: str
    files: dict[str, ArtifactFile] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @cached_property
    def config(self) -> Mapping[str, object] | None:
        """`config.json`, if it is an object."""
        return self.document("config.json")

    def document(self, name: str) -> Mapping[str, object] | None:
        """A JSON file of this folder, if it is there and an object."""
        file = self.files.get(name)
        if file is None:
            return None
        if not file.size:
            self.problems.append(f"{file.path}: empty, or not a regular file")
            return None
        try:
            document = bounded_json.read(file, limits=_CONFIG)
        except (FormatError, BudgetExceeded) as error:
            self.problems.append(str(error))
            return None
        if document.repeated:
            keys = ", ".join(repr(key[:60]) for key in document.repeated[:5])
            self.problems.append(f"{file.path}: repeats the keys {keys}; the last value counts")
        if document.constants:
            self.problems.append(f"{file.path}: contains {document.constants[0]}, which JSON does not have")
        if not isinstance(document.value, dict):
            self.problems.append(f"{file.path}: holds a JSON {type(document.value).__name__}, not an object")
            return None
        return document.value

    def first(self, patterns: _Patterns) -> tuple[ArtifactFile, ...]:
        """The weight files that match the first pattern that any file matches, by name."""
        for pattern in patterns:
            names = sorted(name for name in self.files if pattern.fullmatch(name))
            weights = tuple(self.files[name] for name in names if _is_weights(self.files[name]))
            if weights:
                return weights
        return ()


def _folders(files: Sequence[ArtifactFile]) -> list[_Folder]:
    """Folders from the top downwards, each level from its last name to its first."""
    folders: dict[str, _Folder] = {}
    for file in files:
        path = file.path[: -len(file.name)]
        folders.setdefault(path, _Folder(path)).files[file.name] = file
    ordered = sorted(folders.values(), key=lambda folder: _natural(folder.path), reverse=True)
    return sorted(ordered, key=lambda folder: folder.path.count("/"))


def _models(folders: Sequence[_Folder]) -> Iterator[tuple[_Folder, _Model]]:
    """The models, best first; an exported graph is what is left to be asked where no weights lie anywhere."""
    for folder in folders:
        if (found := _adapter(folder) or _checkpoint(folder)) is not None:
            yield folder, found
    graphs = {
        file.path: file for folder in folders for file in folder.files.values() if file.suffix == ".onnx"
    }
    for folder in folders:
        if (found := _exported(folder, graphs)) is not None:
            yield folder, found


def _natural(path: str) -> list[tuple[int, str]]:
    """A key under which `checkpoint-500` comes before `checkpoint-1000`."""
    pieces = re.findall(r"[0-9]{1,18}|[^0-9]+", path)
    return [(int(piece), "") if piece.isascii() and piece.isdigit() else (-1, piece) for piece in pieces]


def _adapter(folder: _Folder) -> _Model | None:
    """The adapter in a folder, told by its configuration, the name of its weights or tensor names."""
    named = folder.first(_ADAPTER_WEIGHTS)
    if _ADAPTER_CONFIG in folder.files:
        document = folder.document(_ADAPTER_CONFIG)
        weights = named or tuple(file for file in folder.first(_ANY_WEIGHTS) if _is_adapters(file, folder))
        if not weights:
            folder.problems.append(f"{folder.path}{_ADAPTER_CONFIG}: there are no adapter weights beside it")
    else:
        document = _misnamed_config(folder)
        weights = named or folder.first(_ANY_WEIGHTS)
        is_model = "model_type" in (folder.config or {}) and folder.first(_CHECKPOINT_WEIGHTS)
        if not weights or (document is None and not named and is_model):
            return None
    if document is not None:
        adapter = AdapterConfig.of(document)
        return _Model(kind=ArtifactKind.ADAPTER, weights=weights, adapter=adapter)
    adapter = _config_of_tensors(_peek(weights))
    if not named and not adapter.method and _ADAPTER_CONFIG not in folder.files:
        return None
    how = "method, rank and targets were read off the tensors" if adapter.method else "the method is unknown"
    folder.problems.append(
        f"{folder.path}{_ADAPTER_CONFIG}: missing or unreadable; {how}, scaling is unknown"
    )
    return _Model(kind=ArtifactKind.ADAPTER, weights=weights, adapter=adapter)


def _is_adapters(file: ArtifactFile, folder: _Folder) -> bool:
    """Whether a weight file of any name can be the adapter's: not where a whole model lies beside it."""
    return folder.config is None or _ADAPTER_NAME.search(file.name) is not None


def _misnamed_config(folder: _Folder) -> Mapping[str, object] | None:
    """An adapter configuration under another name, as copies and downloads leave it."""
    for name in sorted(folder.files):
        if name == "config.json" or (name.endswith(".json") and _ADAPTER_NAME.search(name)):
            document = folder.config if name == "config.json" else folder.document(name)
            if document is not None and "peft_type" in document:
                folder.problems.append(f"{folder.path}{name}: an adapter configuration under a wrong name")
                return document
    return None


def _checkpoint(folder: _Folder) -> _Model | None:
    """The checkpoint in a folder: weights that a loader would find, or that at least can be read."""
    named = folder.first(_CHECKPOINT_WEIGHTS)
    weights = named or folder.first(_ANY_WEIGHTS)
    if not weights:
        return None
    if not named and weights[0].suffix != ".safetensors" and not _peek(weights):
        return None
    if folder.config is None:
        folder.problems.append(
            f"{folder.path}config.json: missing or unreadable; the architecture is unknown"
        )
    return _Model(kind=ArtifactKind.CHECKPOINT, weights=weights)


def graph_beside(artifact: Artifact) -> ArtifactFile | None:
    """The graph that exporters would put beside a checkpoint with a configuration."""
    if artifact.kind is not ArtifactKind.CHECKPOINT or "model_type" not in (artifact.config or {}):
        return None
    folder = artifact.weight_files[0].path.removesuffix(artifact.weight_files[0].name)
    return next(filter(None, (artifact.file(folder + name) for name in _GRAPHS)), None)


def _exported(folder: _Folder, graphs: Mapping[str, ArtifactFile]) -> _Model | None:
    """The exported model of a folder, where exporters put it beside the configuration it was made from."""
    places = (f"{folder.path}{name}" for name in _GRAPHS)
    graph = next((graphs[place] for place in places if place in graphs), None)
    if graph is None or "model_type" not in (folder.config or {}):
        return None
    return _Model(kind=ArtifactKind.EXPORTED, weights=(graph,))


def _peek(weights: Sequence[ArtifactFile]) -> Mapping[str, TensorEntry]:
    """The tensors of the first weight file, or none when it cannot be read."""
    if not weights or not weights[0].size:
        return {}
    try:
        return state_dict.index(weights[:1])
    except (FormatError, BudgetExceeded, Unsupported):
        return {}


def _config_of_tensors(tensors: Mapping[str, TensorEntry]) -> AdapterConfig:
    """What names and shapes of tensors tell about an adapter; no method when they are no adapter's."""
    method = next((method for mark, method in _TENSOR_MARKS.items() if any(mark in t for t in tensors)), "")
    ranks: Counter[int] = Counter()
    targets = set()
    for name, entry in tensors.items():
        found = _MARKED.match(name)
        if found:
            targets.add(found["module"])
            if found["mark"] in ("lora_A", "lora_down") and entry.shape:
                ranks[entry.shape[0]] += 1
    rank = ranks.most_common(1)[0][0] if ranks else None
    return AdapterConfig(method=method, rank=rank, targets=tuple(sorted(targets)) or None)


def _shard_index(folder: _Folder, weights: Sequence[ArtifactFile]) -> ArtifactFile | None:
    """`model.safetensors.index.json` or its like, for the weights that were chosen."""
    if len(weights) < 2:
        return None
    stem = re.sub(r"-\d+-of-\d+", "", weights[0].name)
    return folder.files.get(f"{stem}.index.json")


def _declared_base(folder: _Folder, found: _Model) -> str:
    """What the configuration or the model card calls the base; empty when neither does."""
    if found.adapter is not None and found.adapter.base:
        return found.adapter.base
    readme = folder.files.get("README.md")
    text = readme.read(_README_BYTES).decode("utf-8", "replace") if readme and readme.size else ""
    front_matter = text.split("\n---", 1)[0] if text.startswith("---") else ""
    stated = _BASE_LINE.search(front_matter.replace("\r", ""))
    if stated:
        return stated[1].strip()
    name = (folder.config or {}).get("_name_or_path")
    return name if isinstance(name, str) else ""


def _is_weights(file: ArtifactFile) -> bool:
    """Whether a file holds weights in any format; the state of an optimizer is none."""
    return file.suffix in _READ + _NOT_READ and not _TRAINING_STATE.fullmatch(file.name)
