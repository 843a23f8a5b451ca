"""The cache of measurements: whatever is wrong with it only costs time."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ftsec_audit.measurement_cache import MeasurementCache, default_root
from ftsec_audit.types import ModuleMeasurement

MODULES = (
    ModuleMeasurement(
        name="a", role="q_proj", layer=0, shape=(2, 3), values={"x": 1.5, "spectrum": [2.0, 1.0]}
    ),
    ModuleMeasurement(name="b", role="lm_head", layer=None, shape=(5,), values={}),
)


def test_what_is_put_comes_back(tmp_path: Path) -> None:
    cache = MeasurementCache(tmp_path / "deep" / "er")
    assert cache.get("digest", "none", "D@1") is None
    cache.put(MODULES, "digest", "none", "D@1")
    assert cache.get("digest", "none", "D@1") == MODULES
    assert cache.get("digest", "none", "D@2") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: json.dumps({**json.loads(text), "modules": [["a", 1, 0, [2], {}]]}),
        lambda text: json.dumps({**json.loads(text), "modules": [["a", "q", 0, [2], {"x": "1"}]]}),
        lambda text: json.dumps({**json.loads(text), "identity": ["0", "digest"]}),
        lambda text: "[" * 100_000,
    ],
)
def test_a_damaged_entry_is_an_absent_one(tmp_path: Path, damage) -> None:
    cache = MeasurementCache(tmp_path)
    cache.put(MODULES, "digest")
    (entry,) = tmp_path.iterdir()
    entry.write_text(damage(entry.read_text()))
    assert cache.get("digest") is None


def test_the_least_recently_used_entries_go_first(tmp_path: Path) -> None:
    cache = MeasurementCache(tmp_path)
    for number in range(6):
        cache.put(MODULES, str(number))
        path = max(tmp_path.iterdir(), key=lambda p: p.stat().st_mtime_ns)
        os.utime(path, (number, number))
    cache.get("0")  # used just now
    size = cache.contents().bytes // 6
    bounded = MeasurementCache(tmp_path, max_bytes=size * 4 + 10)
    bounded.put(MODULES, "6")
    assert bounded.contents().bytes <= bounded.max_bytes
    assert bounded.get("0") == MODULES
    assert bounded.get("1") is None


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = MeasurementCache(tmp_path / "file")
    cache.put(MODULES, "digest")
    assert cache.get("digest") is None


def test_clear_removes_entries_and_nothing_else(tmp_path: Path) -> None:
    cache = MeasurementCache(tmp_path)
    cache.put(MODULES, "digest")
    (tmp_path / "mine.txt").write_text("keep")
    assert cache.clear().entries == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FTSEC_AUDIT_CACHE", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.delenv("FTSEC_AUDIT_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert default_root() == Path("/x/ftsec-audit")


def test_small_entries_stay_near_the_limit_without_a_look_at_all_of_them_each_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache = MeasurementCache(tmp_path)
    cache.put(MODULES, "one")
    bounded = MeasurementCache(tmp_path, max_bytes=cache.contents().bytes * 200)
    looks = []
    evict = MeasurementCache._evict

    def counted(self: MeasurementCache) -> None:
        looks.append(1)
        evict(self)

    monkeypatch.setattr(MeasurementCache, "_evict", counted)
    for number in range(600):
        bounded.put(MODULES, str(number))
    assert bounded.contents().bytes <= 1.2 * bounded.max_bytes
    assert 0 < len(looks) < 200
