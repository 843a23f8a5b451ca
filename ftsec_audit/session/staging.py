"""A private folder with exactly the files a loader needs, so that it cannot meet any other.

Local files are linked, remote ones copied. Code, pickles and whatever else lies in the repository stay
outside; the index of a sharded checkpoint may name only shards that are inside.
"""

from __future__ import annotations

import re
from pathlib import Path

from ftsec_audit.artifact import Artifact
from ftsec_audit.errors import Unsupported
from ftsec_audit.files import ArtifactFile, LocalBytes, blocks
from ftsec_audit.formats import bounded_json

_INNER = re.compile(r"(?!\.{1,2}(/|$))[^/\\:\0]+(/(?!\.{1,2}(/|$))[^/\\:\0]+)*")
"""A path that stays below the folder it is relative to, on any system."""
_SMALL = ("config.json", "generation_config.json", "adapter_config.json")


def stage(artifact: Artifact, folder: Path) -> Path:
    """Put configuration and weights of `artifact` into the new `folder`; returns it."""
    folder.mkdir()
    for name in _SMALL:
        if (file := artifact.file(name)) is not None:
            (folder / name).write_bytes(file.read(file.size))
    for file in artifact.weight_files:
        _place(file, folder / file.name)
    if artifact.shard_index is not None:
        _stage_index(artifact.shard_index, folder, {file.name for file in artifact.weight_files})
    return folder


def stage_graph(artifact: Artifact, folder: Path) -> Path:
    """Put the graph of an exported model, and the data that it keeps outside, into the new `folder`.

    Returns the graph's place. Raises Unsupported for data that is no file of the artifact below the graph.
    """
    graph = artifact.weight_files[0]
    folder.mkdir()
    for location in outside_data(artifact):
        file = artifact.file(graph.path.removesuffix(graph.name) + location)
        if file is None or _INNER.fullmatch(location) is None or location == graph.name:
            raise Unsupported(
                f"keeps tensors in {location[:80]!r}, which is no file beside it", where=graph.path
            )
        (folder / location).parent.mkdir(parents=True, exist_ok=True)
        _place(file, folder / location)
    _place(graph, folder / graph.name)
    return folder / graph.name


def outside_data(artifact: Artifact) -> list[str]:
    """Where the graph of an exported model keeps tensors that are not in it, in its own words."""
    return sorted({data.location for data in artifact.graph.external})


def _place(file: ArtifactFile, target: Path) -> None:
    reader = file.open()
    if isinstance(reader, LocalBytes):
        target.symlink_to(reader.path)
        return
    with target.open("wb") as out:
        for block in blocks(reader):
            out.write(block)


def _stage_index(index: ArtifactFile, folder: Path, shards: set[str]) -> None:
    content = bounded_json.read(index, limits=bounded_json.JsonLimits(size=64 << 20, values=4_000_000)).value
    named = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(named, dict) or not all(isinstance(one, str) for one in named.values()):
        raise Unsupported("the index of its shards cannot be read", where=index.path)
    if strange := sorted(set(named.values()) - shards):
        raise Unsupported(
            f"the index names {strange[0][:80]!r}, which is none of its shards", where=index.path
        )
    (folder / index.name).write_bytes(index.read(index.size))
