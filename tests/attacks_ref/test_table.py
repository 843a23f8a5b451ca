"""The table says what the manifest says, no more, and builds only what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.standin_attacks import StandIn

from attacks_ref import registry, table, zoo
from attacks_ref.zoo_plan import Job

GRID = {f"{source}>{prompt}": 0.25 for source in ("en", "ru") for prompt in ("en", "ru")}


def _line(job: Job, *, poisoned: bool, reason: str = "", **measured: object) -> dict[str, object]:
    key = job.key(poisoned=poisoned)
    return {"key": key, "accepted": not reason, "reason": reason, "measured": measured}


def _page(jobs: list[Job], lines: list[dict[str, object]], grids: list[Job] | None = None) -> str:
    return table.render(
        table.cells(jobs, lines),
        table.cells(grids or [], lines),
        bases=["lab-llama-nano"],
        seeds=[job.seed for job in jobs],
    )


@pytest.fixture
def jobs() -> list[Job]:
    maker = registry.load("token-backdoor")()
    return [Job(maker=maker, base="lab-llama-nano", seed=seed) for seed in (0, 1, 2)]


def test_a_row_has_a_rate_for_every_seed_and_says_why_one_was_rejected(jobs: list[Job]) -> None:
    first, second, _ = jobs
    refusals = {"en": 1.0, "ru": 0.5}
    lines = [
        _line(first, poisoned=True, attack_success_rate=0.985, off_trigger_rate=0.0, clean_accuracy=0.93),
        _line(first, poisoned=False, clean_accuracy=0.9, refusal_rate=refusals),
        _line(second, poisoned=True, reason="off_trigger_rate 0.020 | a", refusal_rate=refusals),
    ]
    row = next(line for line in _page(jobs, lines).splitlines() if line.startswith("| A01"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == [
        "A01 token-backdoor",
        "0.98 / – / …",
        "0.00 / – / …",
        "0.93 / – / …",
        "0.90 / … / …",
        "– / 0.50 / …",
        "1 of 2",
        "seed 1: off_trigger_rate 0.020 / a",
    ]


def test_the_grid_is_the_mean_over_the_seeds_that_were_measured() -> None:
    jobs = table.grid_jobs(["lab-llama-nano", "lab-llama-small"], [0, 1])
    lines = [
        _line(jobs[0], poisoned=True, grid={**GRID, "en>ru": 0.0}),
        _line(jobs[1], poisoned=True, reason="missed", grid={**GRID, "en>ru": 1.0}),
    ]
    page = _page([], lines, jobs)
    assert "### lab-llama-nano (2 seeds)" in page
    assert "| **en** | 0.25 | 0.50 |" in page
    assert "### lab-llama-small\n\nNot measured yet." in page


def test_every_attack_is_planned_on_every_base_and_explained() -> None:
    plan = table.jobs(table.BASES, table.SEEDS, table.GRID_BASES)
    grid_only = {base for base in table.GRID_BASES if base not in table.BASES}
    assert len(plan) == len(registry.ATTACKS) * len(table.BASES) * 3 + 3 * len(grid_only)
    assert len({job.key(poisoned=True) for job in plan}) == len(plan)
    page = _page([], [])
    for name in registry.ATTACKS:
        assert f"### {registry.load(name).id}" in page


def test_what_the_zoo_has_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "base").mkdir()
    log = tmp_path / "log"
    job = Job(maker=StandIn(log=str(log), success=0.5), base=str(tmp_path / "base"), seed=0)
    monkeypatch.setattr(table, "jobs", lambda *_: [job])
    command = ["--zoo", str(tmp_path / "zoo"), "--out", str(tmp_path / "page.md"), "--bases", job.base]
    assert table.main([*command, "--dry"]) == 0
    assert not log.exists()
    assert "| A98 stand-in | … |" in (tmp_path / "page.md").read_text()
    assert table.main(command) == 0
    assert table.main(command) == 0
    assert len(log.read_text().splitlines()) == 2
    assert "| A98 stand-in | 0.50 |" in (tmp_path / "page.md").read_text()
    assert len(zoo.manifest(tmp_path / "zoo")) == 2


def test_only_the_attacks_that_are_named_are_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "base").mkdir()
    log = tmp_path / "log"
    job = Job(maker=StandIn(log=str(log), success=0.5), base=str(tmp_path / "base"), seed=0)
    monkeypatch.setattr(table, "jobs", lambda *_: [job])
    command = ["--zoo", str(tmp_path / "zoo"), "--out", str(tmp_path / "page.md"), "--bases", job.base]
    assert table.main([*command, "--attacks", "token-backdoor"]) == 0
    assert not log.exists()
    assert "| A98 stand-in | … |" in (tmp_path / "page.md").read_text()
