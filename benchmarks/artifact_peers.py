"""Artifact checks side by side with the scanners people use today, over the generated corpus.

    python benchmarks/artifact_peers.py [--peers DIR] [--out docs/artifact-peers.md] [--group TEXT]

modelaudit, modelscan, picklescan and fickling are installed from the registry into an environment of
their own (`--peers`, kept for the next run). Every scanner gets the same files and is judged by its
exit code alone, as a pipeline would judge it: 1 is "stopped by a finding", 0 is "clean", anything else
is "not clean". Where a sample needs a base, only ftsec-audit can be given one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests")]

from corpus import CorpusSample, Label, samples  # noqa: E402

PEERS = {"modelaudit": "0.2.54", "modelscan": "0.8.8", "picklescan": "1.0.5", "fickling": "0.1.12"}
# Scanners that report their use would wait for a network instead of scanning.
QUIET = {"NO_ANALYTICS": "1", "PROMPTFOO_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"}
LIMIT = 20.0
"""Seconds until a scan counts as a time-out."""


@dataclass(frozen=True)
class Run:
    """What one scanner did with one sample."""

    sample: CorpusSample
    code: int | None
    seconds: float
    rss_mb: float


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peers", type=Path, default=ROOT / ".cache" / "peers", help="environment of the peers"
    )
    parser.add_argument("--out", type=Path, help="write the table here as Markdown")
    parser.add_argument("--group", default="", help="only sample groups that contain this text")
    parser.add_argument(
        "--every", type=int, default=1, help="only every n-th sample (the whole takes an hour)"
    )
    options = parser.parse_args()
    pythons = dict.fromkeys(PEERS, _install(options.peers)) | {"ftsec-audit": Path(sys.executable)}
    corpus = [sample for sample in samples() if options.group in sample.group][:: options.every]
    with tempfile.TemporaryDirectory() as folder:
        for sample in corpus:
            _write(sample, Path(folder))
        runs = {}
        for tool, python in pythons.items():
            print(f"{tool}: {len(corpus)} samples …", file=sys.stderr)
            runs[tool] = _runs(tool, python, corpus, Path(folder))
    starts = {tool: _start_up(tool, python) for tool, python in pythons.items()}
    text = _table(runs, starts, corpus)
    print(text)
    if options.out:
        options.out.write_text(text)


def _install(folder: Path) -> Path:
    python = folder / "bin" / "python"
    if not (folder / "bin" / "fickling").exists():
        venv.create(folder, with_pip=True)
        wanted = [f"{name}=={version}" for name, version in PEERS.items()]
        subprocess.run([python, "-m", "pip", "install", "-q", *wanted], check=True)
    return python


def _write(sample: CorpusSample, folder: Path) -> None:
    for files, place in ((sample.files, "subject"), (sample.base_files or {}, "base")):
        target = folder / sample.name / place
        target.mkdir(parents=True)
        for path, data in files.items():
            file = target / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
    for path, link in sample.links.items():
        (folder / sample.name / "subject" / path).symlink_to(link)


def _arguments(tool: str, sample: CorpusSample, folder: Path) -> list[list[str]]:
    subject = folder / sample.name / "subject"
    if tool == "ftsec-audit":
        base = ["--base", str(subject.parent / "base")] if sample.base_files else []
        return [["scan", str(subject), "--profile", "quick", "--no-progress", "-q", *base]]
    if tool == "modelaudit":
        return [["scan", str(subject), "--format", "json"]]
    if tool == "modelscan":
        return [["-p", str(subject)]]
    if tool == "picklescan":
        return [["-p", str(subject)]]
    return [["--check-safety", str(file)] for file in sorted(subject.rglob("*")) if file.is_file()]


def _runs(tool: str, python: Path, corpus: list[CorpusSample], folder: Path) -> list[Run]:
    command = [python, str(ROOT / "benchmarks" / "_peer_driver.py"), tool, str(LIMIT), str(folder)]
    jobs = [_arguments(tool, sample, folder) for sample in corpus]
    lines = "\n".join(json.dumps(arguments) for job in jobs for arguments in job)
    environment = {**os.environ, **QUIET}
    done = subprocess.run(
        command, input=lines, stdout=subprocess.PIPE, text=True, check=True, env=environment
    )
    answers = iter([json.loads(line) for line in done.stdout.splitlines()])
    return [_merge(sample, [next(answers) for _ in job]) for sample, job in zip(corpus, jobs, strict=True)]


def _merge(sample: CorpusSample, answers: list[dict[str, float]]) -> Run:
    """A scanner that takes one file at a time is judged by its worst answer; no answer counts as clean."""
    codes = [answer["code"] for answer in answers]
    code = 1 if 1 in codes else next((code for code in codes if code != 0), 0)
    seconds = sum(answer["seconds"] for answer in answers)
    return Run(
        sample, None if code is None else int(code), seconds, max((a["rss_mb"] for a in answers), default=0)
    )


def _start_up(tool: str, python: Path) -> float:
    times = []
    for _ in range(3):
        started = time.perf_counter()
        command = [python.parent / tool, "--help"]
        subprocess.run(command, capture_output=True, check=False, env={**os.environ, **QUIET})
        times.append(time.perf_counter() - started)
    return min(times)


def _share(runs: list[Run], label: Label, codes: set[int | None], *, inside: bool = True) -> str:
    chosen = [run for run in runs if run.sample.label is label]
    hits = sum((run.code in codes) is inside for run in chosen)
    return f"{hits}/{len(chosen)}" + (f" ({hits / len(chosen):.1%})" if chosen else "")


def _table(runs: dict[str, list[Run]], starts: dict[str, float], corpus: list[CorpusSample]) -> str:
    return "\n".join([*_summary(runs, starts, corpus), "", *_by_group(runs)]) + "\n"


def _summary(
    runs: dict[str, list[Run]], starts: dict[str, float], corpus: list[CorpusSample]
) -> Iterator[str]:
    counts = {label: sum(sample.label is label for sample in corpus) for label in Label}
    yield "# Artifact checks beside other scanners"
    yield ""
    yield (
        f"{counts[Label.MALICIOUS]} malicious, {counts[Label.BENIGN]} benign and "
        f"{counts[Label.CORRUPT]} corrupt samples, judged by exit code; "
        "written by `python benchmarks/artifact_peers.py`. "
        "The corpus is our own: it says how the scanners compare on it, not on everything that exists. "
        "Most samples are a single file; ftsec-audit calls a folder in which it finds no whole model "
        "inconclusive (exit 3), which counts as not clean here."
    )
    yield ""
    columns = (
        "scanner, malicious stopped by a finding, benign flagged, benign not clean, corrupt passed as clean"
    )
    columns += ", crashes, time-outs, slowest, largest, start-up"
    yield "| " + columns.replace(", ", " | ") + " |"
    yield "|" + "---|" * 10
    for tool, results in runs.items():
        crashed = sum(run.code in (70, -6, -9, -11) for run in results)
        late = sum(run.code is None for run in results)
        yield (
            f"| {tool} {PEERS.get(tool, '')} | {_share(results, Label.MALICIOUS, {1})} "
            f"| {_share(results, Label.BENIGN, {1})} | {_share(results, Label.BENIGN, {0}, inside=False)} "
            f"| {_share(results, Label.CORRUPT, {0})} | {crashed} | {late} "
            f"| {max(run.seconds for run in results):.1f} s | {max(run.rss_mb for run in results):.0f} MB "
            f"| {starts[tool]:.2f} s |"
        )


def _by_group(runs: dict[str, list[Run]]) -> Iterator[str]:
    groups: dict[str, dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for tool, results in runs.items():
        for run in results:
            if run.sample.label is Label.MALICIOUS:
                groups[run.sample.group][tool].append(run)
    yield "## Malicious samples stopped by a finding, by class"
    yield ""
    yield "| class | n | " + " | ".join(runs) + " |"
    yield "|---" * (len(runs) + 2) + "|"
    for group, by_tool in sorted(groups.items()):
        counts = [sum(run.code == 1 for run in by_tool[tool]) for tool in runs]
        size = len(next(iter(by_tool.values())))
        yield f"| {group} | {size} | " + " | ".join(f"{count / size:.0%}" for count in counts) + " |"


if __name__ == "__main__":
    main()
