from __future__ import annotations

import os
from pathlib import Path

import pytest
from hub_server import HubServer

from ftsec_audit.errors import SourceError
from ftsec_audit.files import ArtifactFile
from ftsec_audit.sources import resolve
from ftsec_audit.sources.local import LocalBounds, resolve_local


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A directory beside a file that no link may reach."""
    (tmp_path / "secret").write_text("secret")
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sub" / "weights.safetensors").write_bytes(b"w" * 100)
    return folder


def listed(folder: Path) -> dict[str, ArtifactFile]:
    return {file.path: file for file in resolve_local(folder, str(folder)).files}


def test_a_directory_lists_every_file_in_order(model: Path) -> None:
    artifact = resolve(str(model))
    assert [file.path for file in artifact.files] == ["config.json", "sub/weights.safetensors"]
    assert [file.size for file in artifact.files] == [2, 100]
    assert artifact.files[1].open().read_at(98, 10) == b"ww"
    assert artifact.local_dir == model
    assert artifact.resolved == str(model)


def test_a_single_file(model: Path) -> None:
    artifact = resolve(str(model / "sub" / "weights.safetensors"))
    assert [(file.path, file.size) for file in artifact.files] == [("weights.safetensors", 100)]
    assert artifact.files[0].read(3) == b"www"


def test_an_empty_directory_has_no_files(tmp_path: Path) -> None:
    assert listed(tmp_path) == {}


def test_hidden_files_are_listed(model: Path) -> None:
    (model / ".hidden.py").write_text("x")
    assert ".hidden.py" in listed(model)


def test_a_link_that_stays_inside_is_recorded_and_read(model: Path) -> None:
    (model / "link.json").symlink_to("config.json")
    file = listed(model)["link.json"]
    assert (file.link_target, file.size, file.read(10)) == ("config.json", 2, b"{}")


@pytest.mark.parametrize("target", ["../secret", "/etc/hostname", "no-such-file", "..", "/dev/zero", "sub"])
def test_a_link_that_leads_elsewhere_is_recorded_and_never_opened(model: Path, target: str) -> None:
    (model / "link").symlink_to(target)
    artifact = resolve_local(model, str(model))
    file = next(file for file in artifact.files if file.path == "link")
    assert (file.link_target, file.size) == (target, 0)
    with pytest.raises(SourceError, match="symbolic link"):
        file.open()
    assert any(target in problem for problem in artifact.problems)


def test_a_loop_of_links_ends(model: Path) -> None:
    (model / "a").symlink_to("b")
    (model / "b").symlink_to("a")
    (model / "sub" / "up").symlink_to("..")
    assert set(listed(model)) == {"a", "b", "config.json", "sub/up", "sub/weights.safetensors"}


def test_a_named_pipe_is_recorded_and_never_opened(model: Path) -> None:
    os.mkfifo(model / "model.safetensors")
    artifact = resolve_local(model, str(model))
    file = next(file for file in artifact.files if file.path == "model.safetensors")
    with pytest.raises(SourceError, match="named pipe"):
        file.open()
    assert artifact.problems[-1] == "model.safetensors: a named pipe, not a regular file; not opened"


def test_a_named_pipe_as_the_reference_itself(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="named pipe, neither"):
        resolve(str(tmp_path / "pipe"))


def test_bounds_on_files_and_depth(model: Path) -> None:
    with pytest.raises(SourceError, match="more than 1 files"):
        resolve_local(model, "m", bounds=LocalBounds(files=1))
    with pytest.raises(SourceError, match="nest deeper than 0"):
        resolve_local(model, "m", bounds=LocalBounds(depth=0))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_a_problem_not_a_gap(model: Path) -> None:
    (model / "sub").chmod(0)
    try:
        artifact = resolve_local(model, str(model))
        assert any(problem.startswith("sub/: Permission denied") for problem in artifact.problems)
        with pytest.raises(SourceError, match=r"[Pp]ermission denied"):
            resolve_local(model / "sub", "sub")
    finally:
        (model / "sub").chmod(0o755)


def test_a_snapshot_in_the_cache_of_the_hub_client_reads_through_to_its_blobs(
    hub: HubServer, tmp_path: Path
) -> None:
    from huggingface_hub import snapshot_download

    hub.add("org/m", {"config.json": b"{}", "sub/model.safetensors": b"w" * 70_000})
    snapshot = Path(snapshot_download("org/m", endpoint=hub.endpoint, cache_dir=tmp_path / "cache"))
    assert (snapshot / "config.json").is_symlink()

    artifact = resolve(str(snapshot))
    assert [(f.path, f.size, f.link_target) for f in artifact.files] == [
        ("config.json", 2, None),
        ("sub/model.safetensors", 70_000, None),
    ]
    assert artifact.files[1].read(5) == b"wwwww"
    assert resolve(str(snapshot / "sub")).files[0].read(5) == b"wwwww"
    assert not any("link" in problem for problem in artifact.problems)


def test_the_layout_of_a_cache_opens_no_way_out(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    repository = tmp_path / "cache" / "models--org--m"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    blob = repository / "blobs" / ("a" * 40)
    blob.symlink_to(secret)
    (snapshot / "config.json").symlink_to(f"../../blobs/{blob.name}")
    (snapshot / "other.json").symlink_to("../../refs/main")
    for file in listed(snapshot).values():
        with pytest.raises(SourceError, match="symbolic link"):
            file.open()
