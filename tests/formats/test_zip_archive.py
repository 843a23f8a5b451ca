"""Zip directories are followed within one bound, whichever of the two readers does it."""

from __future__ import annotations

import io
import zipfile

import pytest

from ftsec_audit.errors import BudgetExceeded
from ftsec_audit.files import MemoryBytes
from ftsec_audit.formats import zip_archive, zip_members
from tests.builders.files import memory_file


def archive(members: int, name_length: int) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as packed:
        for number in range(members):
            packed.writestr(f"{number:0{name_length}}", b"")
    return data.getvalue()


def test_a_directory_of_long_names_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_archive, "DIRECTORY_BYTES", 64 << 10)
    data = archive(100, 4000)  # 400 kB of names
    directory = zip_archive.read_directory(MemoryBytes(data), max_members=1000)
    assert directory is not None
    assert directory.cut
    assert 0 < len(directory.members) <= 17
    with pytest.raises(BudgetExceeded, match="refused unread"):
        zip_members.members(memory_file(data), limits=zip_members.ZipLimits(directory_bytes=64 << 10))


def test_both_readers_have_the_same_bound() -> None:
    assert zip_members.ZipLimits().directory_bytes == zip_archive.DIRECTORY_BYTES
    data = archive(100, 4000)
    directory = zip_archive.read_directory(MemoryBytes(data), max_members=1000)
    assert directory is not None
    assert not directory.cut
    assert len(directory.members) == len(zip_members.members(memory_file(data))) == 100
