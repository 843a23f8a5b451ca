"""A million artifacts on a hundred workers, simulated with what real scans took. Writes docs/scale.md.

    python benchmarks/scale.py --record DATA             CPU seconds of real adapters → recorded_scans.csv
    python benchmarks/scale.py [--out docs/scale.md]     the simulation, and an index with a million rows

The scheduler is the one that batches use. Sizes and times are drawn from pairs that were recorded; how
artifacts spread over bases, and how long a base takes to load, are assumptions that the page states.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import heapq
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftsec_audit.batch.costs import Costs
from ftsec_audit.batch.index import Filter, Index
from ftsec_audit.batch.job import Detected, FailureKind, Job, Row
from ftsec_audit.batch.schedule import Schedule
from ftsec_audit.types import Profile, Severity, Verdict

RECORDED = Path(__file__).with_name("recorded_scans.csv")
BASE_BYTES = (0.5e9, 1.0e9, 2.5e9, 3.1e9, 6.4e9, 14.5e9, 16.1e9, 16.1e9, 27.5e9)
"""Checkpoints of 0.25 to 14 billion parameters in 16 bits, the sizes that adapters are mostly made for."""
LOAD_RATE = 1.0e9
PROBING = 30.0


@dataclass(frozen=True)
class Setting:
    """What is simulated."""

    name: str
    probes: float
    """Seconds of probing added to each static scan."""
    load_rate: float
    """Bytes of a base per second; infinite where no base is loaded."""

    @property
    def loads(self) -> bool:
        return self.load_rate < float("inf")


SETTINGS = (
    Setting("static: no base is loaded", 0.0, float("inf")),
    Setting(f"probed: {PROBING:.0f} s of probes each, bases at {LOAD_RATE / 1e9:g} GB/s", PROBING, LOAD_RATE),
)


def record(data: Path) -> None:
    """Scan every adapter below `data` with the quick profile, nothing cached, and keep size and seconds."""
    import ftsec_audit as fa

    folders = sorted(path.parent for path in data.rglob("adapter_config.json"))
    fa.scan(str(folders[0]), profile="quick", cache=False)  # imports
    with RECORDED.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(("bytes", "cpu_seconds"))
        for folder in folders:
            started = time.process_time()
            fa.scan(str(folder), profile="quick", cache=False)
            seconds = time.process_time() - started
            out.writerow((sum(p.stat().st_size for p in folder.iterdir() if p.is_file()), f"{seconds:.4f}"))


def recorded() -> list[tuple[int, float]]:
    with RECORDED.open(encoding="utf-8") as file:
        return [(int(row["bytes"]), float(row["cpu_seconds"])) for row in csv.DictReader(file)]


@dataclass(frozen=True)
class Work:
    """Jobs and how long each really takes, which the scheduler does not know."""

    jobs: list[Job]
    seconds: dict[str, float]
    setting: Setting

    def load(self, job: Job) -> float:
        return job.base_size / self.setting.load_rate

    @property
    def bases(self) -> dict[str, int]:
        return {job.base: job.base_size for job in self.jobs if job.base}

    def costs(self, pairs: Sequence[tuple[int, float]]) -> Costs:
        """What a batch would know beforehand: a line through earlier scans."""
        fitted = Costs(load_per_byte=1 / self.setting.load_rate).fitted(pairs)
        fixed = fitted.fixed + self.setting.probes
        return Costs(fixed=fixed, per_byte=fitted.per_byte, load_per_byte=fitted.load_per_byte)


def artifacts(count: int, bases: int, pairs: Sequence[tuple[int, float]], setting: Setting) -> Work:
    """Drawn with replacement; the popularity of bases falls as 1/rank (Zipf)."""
    draw = random.Random(0)
    sizes = [int(draw.choice(BASE_BYTES)) for _ in range(bases)]
    chosen = draw.choices(range(bases), weights=[1 / (rank + 1) for rank in range(bases)], k=count)
    seconds = {}
    jobs = []
    for number, base in enumerate(chosen):
        size, static = draw.choice(pairs)
        key = str(number)
        seconds[key] = static + setting.probes * draw.uniform(0.5, 1.5)
        name = f"b{base}" if setting.loads else ""
        jobs.append(Job(key=key, reference=key, base=name, base_size=sizes[base], size=size))
    jobs.sort(key=lambda job: (job.base, -job.size))
    return Work(jobs, seconds, setting)


@dataclass(frozen=True)
class Outcome:
    """What a simulated run came to."""

    span: float
    loads: int
    busy: float
    """Seconds of scanning and loading, over all workers."""


def scheduled(work: Work, costs: Costs, workers: int) -> Outcome:
    """As the batch does it: whoever is free takes what the schedule gives."""
    schedule = Schedule(work.jobs, costs)
    return _simulated(work, workers, schedule.take)


def in_turn(work: Work, workers: int) -> Outcome:
    """For comparison: one queue in random order, whatever base anybody holds."""
    order = iter(random.Random(1).sample(work.jobs, len(work.jobs)))
    return _simulated(work, workers, lambda _: next(order, None))


def sharded(work: Work, workers: int) -> Outcome:
    """For comparison: `--shard i/n` on n workers that know nothing of each other."""
    shares: list[list[Job]] = [[] for _ in range(workers)]
    for job in work.jobs:
        shares[int.from_bytes(hashlib.sha256(job.key.encode()).digest()[:8]) % workers].append(job)
    queues = [iter(share) for share in shares]
    return _simulated(work, workers, lambda worker: next(queues[worker], None))


def _simulated(work: Work, workers: int, take: Callable[[int], Job | None]) -> Outcome:
    free = [(0.0, worker) for worker in range(workers)]
    held: dict[int, str] = {}
    loads, busy, last = 0, 0.0, 0.0
    while free:
        now, worker = heapq.heappop(free)
        job = take(worker)
        if job is None:
            continue  # nothing that this worker should do; the others finish theirs
        seconds = work.seconds[job.key]
        if held.get(worker, "") != job.base:
            held[worker] = job.base
            seconds += work.load(job)
            loads += 1
        busy += seconds
        last = max(now + seconds, last)
        heapq.heappush(free, (now + seconds, worker))
    return Outcome(last, loads, busy)


def simulation(count: int, workers: int, bases: int) -> Iterator[str]:
    pairs = recorded()
    for setting in SETTINGS:
        work = artifacts(count, bases, pairs, setting)
        least_loads = len(work.bases)
        total = sum(work.seconds.values()) + sum(size / setting.load_rate for size in work.bases.values())
        longest = max(work.seconds.values())
        ideal = max(total / workers, longest)
        yield f"### {setting.name[0].upper()}{setting.name[1:]}\n"
        yield "| order | make-span | × ideal | base loads | × minimum |"
        yield "|---|---|---|---|---|"
        yield f"| ideal | {_clock(ideal)} | 1 | {least_loads:,} | 1 |"
        started = time.process_time()
        ours = scheduled(work, work.costs(pairs), workers)
        spent = time.process_time() - started
        for name, outcome in (
            ("the scheduler of a batch", ours),
            ("`--shard i/n`, one worker each", sharded(work, workers)),
            ("one queue in random order", in_turn(work, workers)),
        ):
            yield (
                f"| {name} | {_clock(outcome.span)} | {outcome.span / ideal:.3f} "
                f"| {outcome.loads:,} | {outcome.loads / least_loads if least_loads else 1:.2f} |"
            )
        yield ""
        yield (
            f"The scheduler itself took {spent:.0f} s of CPU for all {count:,} artifacts "
            f"(simulation included), {spent / ours.busy:.1e} of the time of the scans.\n"
        )


def rows(count: int) -> Iterator[Row]:
    """Documents as a large run leaves them: most pass, a few fail, some have no report."""
    draw = random.Random(0)
    rules = [f"FTA{family}0{number}" for family in range(1, 8) for number in range(1, 6)]
    for number in range(count):
        key = hashlib.sha256(str(number).encode()).hexdigest()
        found = draw.choices(rules, k=draw.choice((0, 0, 0, 0, 0, 0, 0, 1, 1, 3)))
        failed = number % 200 == 0
        common = {"key": key, "reference": f"hf://organisation-{number % 5000}/model-{number}@{key[:40]}"}
        stamp = f"2026-{1 + number % 12:02}-{1 + number % 28:02}T{number % 24:02}:00:00Z"
        if failed:
            yield Row(
                name=f"{key}.failed-1",
                **common,
                failure=FailureKind.SOURCE,
                reason="no such repository",
                scanned_at=stamp,
            )
            continue
        yield Row(
            name=key,
            **common,
            base="hf://org/base@0123456789abcdef0123456789abcdef01234567",
            resolved=common["reference"].removeprefix("hf://"),
            digest=f"sha256:{key}",
            description="LoRA r=16 (q_proj,v_proj)",
            profile=Profile.STANDARD,
            verdict=Verdict.FAIL if len(found) > 2 else Verdict.PASS,
            suspicion=draw.random(),
            size=draw.randrange(10**6, 10**9),
            seconds=draw.random(),
            scanned_at=stamp,
            tool_version="0.1",
            detected=tuple(
                Detected(
                    rule=rule, severity=Severity.MEDIUM, confidence="low", summary="a statistic stands out"
                )
                for rule in found
            ),
        )


QUERIES = (
    ("`--verdict fail --limit 50`", Filter(verdict=Verdict.FAIL, limit=50)),
    ("`--rule FTA301 --limit 50`", Filter(rule="FTA301", limit=50)),
    ("`--rule FTA3 --limit 50`", Filter(rule="FTA3", limit=50)),
    ("`--since 2026-12-28 --limit 50`", Filter(since="2026-12-28", limit=50)),
    ("`--failed --limit 50`", Filter(failed=True, limit=50)),
    ("`--failed --since 2026-09-20`", Filter(failed=True, since="2026-09-20")),
    ("`--failed --since 2026-05-01`", Filter(failed=True, since="2026-05-01")),
)
PAGES = (
    ("first page", Filter(limit=100)),
    ("first page, latest first", Filter(limit=100, latest_first=True)),
    ("page 100", Filter(limit=100, offset=9_900)),
    ("verdict FAIL", Filter(verdict=Verdict.FAIL, limit=100)),
    ("without a report", Filter(failed=True, limit=100)),
    ("text `model-77`", Filter(text="model-77", limit=100)),
    ("text `model`", Filter(text="model", limit=100)),
    ("text `model-77`, verdict FAIL", Filter(text="model-77", verdict=Verdict.FAIL, limit=100)),
    ("one repository", Filter(repository="organisation-77/model-77", limit=100)),
)
ENTERED = 50_000
"""Documents that are entered as a batch enters them; all others are copied from these."""


def index(count: int) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "index.sqlite"
        yield from entered(path, min(count, ENTERED))
        copies = max(1, count // ENTERED)
        multiply(path, copies)
        held = min(count, ENTERED) * copies
        size = sum(each.stat().st_size for each in Path(name).iterdir())
        yield (
            f"With {held:,} documents the file has **{size / 1e6:,.0f} MB**, {size / held:,.0f} bytes a "
            "document. (All but the first were copied from those in the database, with keys, names and "
            "suspicions of their own.)\n"
        )
        yield from timed(Index(f"sqlite:///{path}"), held)


def entered(path: Path, count: int) -> Iterator[str]:
    """As a batch does it, through the program."""
    database = Index(f"sqlite:///{path}")
    wall, cpu, pending = time.monotonic(), time.process_time(), []
    for row in rows(count):
        pending.append(row)
        if len(pending) == 200:
            _added(database, pending)
    _added(database, pending)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    database.close()
    yield (
        f"{count:,} documents were entered, 200 at a time, in {cpu:,.0f} s of CPU ({wall:,.0f} s by the "
        f"clock), {cpu / count * 1e3:.2f} ms each, making of the rows included.\n"
    )


_DETECTED = "position, rule, severity, confidence, summary"


def multiply(path: Path, times: int) -> None:
    """Each document `times` times. A key is a digest, and so is what it becomes when its digits rotate."""
    database = sqlite3.connect(path)
    for setting in ("cache_size = -2000000", "synchronous = OFF", "journal_mode = OFF"):
        database.execute(f"PRAGMA {setting}")
    indexes = database.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql <> ''"
    ).fetchall()
    for name, _ in indexes:
        database.execute(f"DROP INDEX {name}")  # and made again from all rows, which takes less time
    columns = [column for _, column, *_ in database.execute("PRAGMA table_info(ftsec_documents)")]
    other = [column for column in columns if column not in ("name", "key")]
    with database:
        database.execute("CREATE TEMP TABLE original AS SELECT * FROM ftsec_documents")
        database.execute("CREATE TEMP TABLE detection AS SELECT * FROM ftsec_detections")
        for copy in range(1, times):
            rotated = f"substr({{0}}, {copy * 3 + 1}, {64 - copy * 3}) || substr({{0}}, 1, {copy * 3})"
            changed = dict.fromkeys(("reference", "resolved", "repository", "searched"))
            values = [f"replace({c}, '/model-', '/model-{copy}-')" if c in changed else c for c in other]
            drawn = f"((rowid * 7919 + {copy} * 104729) % 1000003) / 1000003.0"
            values = [drawn if v in ("suspicion", "rank") else v for v in values]
            database.execute(
                f"INSERT INTO ftsec_documents (name, key, {', '.join(other)}) SELECT "
                f"{rotated.format('name')} || substr(name, 65), {rotated.format('key')}, {', '.join(values)} "
                "FROM original"
            )
            database.execute(
                f"INSERT INTO ftsec_detections (name, {_DETECTED}) SELECT "
                f"{rotated.format('name')} || substr(name, 65), {_DETECTED} FROM detection"
            )
    for _, made in indexes:
        database.execute(made)
    database.close()


def timed(database: Index, held: int) -> Iterator[str]:
    yield "| `report --store …` | rows | CPU, first time | again |"
    yield "|---|---|---|---|"
    for text, wanted in QUERIES:
        found, first, again = _twice(lambda wanted=wanted: sum(1 for _ in database.rows(wanted)))
        yield f"| {text} | {found:,} | {first:.3f} s | {again:.3f} s |"
    yield ""
    yield "| list of the dashboard | rows of | CPU, first time | again |"
    yield "|---|---|---|---|"
    for text, wanted in PAGES:
        found, first, again = _twice(
            lambda wanted=wanted: (len(list(database.rows(wanted))), database.count(wanted))[1]
        )
        yield f"| {text} | {found:,} | {first:.3f} s | {again:.3f} s |"
    without = Filter(failed=True)
    _, first, again = _twice(lambda: sum(database.verdicts().values()) + database.count(without))
    yield f"| numbers above the list | {held:,} | {first:.3f} s | {again:.3f} s |"
    yield ""
    yield (
        "CPU seconds, with the file in the memory of the system; a list is a page of up to 100 rows and the "
        "number of all that match. For a text every name, base and kind is read. Nobody else used the index."
    )


def _twice(query: Callable[[], int]) -> tuple[int, float, float]:
    """What it gives, and the CPU seconds of both times, which other programs disturb little."""
    times, found = [], 0
    for _ in range(2):
        started = time.process_time()
        found = query()
        times.append(time.process_time() - started)
    return found, times[0], times[1]


def _added(database: Index, pending: list[Row]) -> None:
    if problem := database.add(pending):
        raise SystemExit(problem)
    pending.clear()


def _clock(seconds: float) -> str:
    return f"{seconds / 3600:,.2f} h"


INTRO = """# Past one machine

What a batch does with {count:,} artifacts on {workers} workers: a simulation, because no such cluster was
at hand. Written by `python benchmarks/scale.py`; not edited by hand.

The scheduler is the code that batches run with (`ftsec_audit/batch/schedule.py`), and knows of each artifact
what a batch knows: its size, its base, and a line through the times of earlier scans. Which pair of size
and time an artifact has is drawn from {pairs} scans that were recorded (`benchmarks/recorded_scans.csv`:
real adapters of {least:.0f} kB to {largest:.1f} MB, quick profile, nothing cached, {median:.2f} CPU seconds
at the median, {slowest:.2f} at most).

**Assumed, not measured:** {bases:,} bases whose popularity falls as 1/rank; their sizes, 0.5 to 27.5 GB;
{rate:g} GB/s to load one; {probing:.0f} s of probes on average; no worker is lost; the store and the network
keep up.

*Ideal* is all work and one load of each base, spread evenly over the workers; *minimum* is one load of each
base. The ideal cannot be reached: a base that more than one worker needs is loaded more than once.

"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--record", type=Path, metavar="DATA")
    options.add_argument("--artifacts", type=int, default=1_000_000)
    options.add_argument("--workers", type=int, default=100)
    options.add_argument("--bases", type=int, default=5_000)
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--remark", default="", help="about the machine, to stand at the end of the page")
    options.add_argument("--out", type=Path)
    options.add_argument("--only-index", action="store_true", help="leave the rest of --out as it is")
    given = options.parse_args()
    if given.record:
        record(given.record)
        return
    heading = "## The index: "
    about = [f"{heading}{given.rows:,} documents in SQLite\n", *index(given.rows)]
    about += [f"\n{given.remark}"] if given.remark else []
    if given.only_index:
        kept = given.out.read_text(encoding="utf-8").partition(heading)[0]
        given.out.write_text(kept + "\n".join(about) + "\n", encoding="utf-8")
        return
    pairs = recorded()
    sizes, times = sorted(size for size, _ in pairs), sorted(seconds for _, seconds in pairs)
    intro = INTRO.format(
        count=given.artifacts,
        workers=given.workers,
        bases=given.bases,
        pairs=len(pairs),
        least=sizes[0] / 1e3,
        largest=sizes[-1] / 1e6,
        median=times[len(times) // 2],
        slowest=times[-1],
        rate=LOAD_RATE / 1e9,
        probing=PROBING,
    )
    lines = ["## Order and base loads\n", *simulation(given.artifacts, given.workers, given.bases)]
    text = intro + "\n".join([*lines, *about]) + "\n"
    if given.out:
        given.out.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
