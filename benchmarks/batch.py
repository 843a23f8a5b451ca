"""A thousand adapters on a Hub of this machine, scanned by the local pool and by a real Ray.

    python benchmarks/batch.py [--adapters 1000] [--workers 2] [--out docs/batch.md]

Adapters have the shapes of a 135M model (30 layers, 576 wide), rank 4, bf16. Each run has caches of its
own. Prints whether both gave the same results, what planning and indexing cost beside the scans, how busy
the workers were, what an artifact costs beside a second worker, and how memory went.

Other programs on the machine disturb what a clock says. So efficiency is given as the product of two
ratios that they disturb little: how much of their time workers spent scanning, and the CPU seconds of the
same artifacts with one worker and with all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
ROOT = Path(__file__).parents[1]

import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from ftsec_audit.batch import memory  # noqa: E402
from ftsec_audit.batch.drive import Batch  # noqa: E402
from ftsec_audit.batch.events import Observer  # noqa: E402
from ftsec_audit.batch.executor import Executor  # noqa: E402
from ftsec_audit.batch.index import Index  # noqa: E402
from ftsec_audit.batch.job import Done, Job  # noqa: E402
from ftsec_audit.batch.plan import BatchPlan, Questions, plan  # noqa: E402
from ftsec_audit.batch.pool import LocalPool  # noqa: E402
from ftsec_audit.batch.ray import RayExecutor  # noqa: E402
from ftsec_audit.batch.store import Store  # noqa: E402
from ftsec_audit.batch.summary import Summary  # noqa: E402
from ftsec_audit.batch.work import ScanWork  # noqa: E402
from ftsec_audit.models_list import Model  # noqa: E402
from ftsec_audit.types import Profile, Report, Verdict  # noqa: E402

LAYERS, WIDTH, VALUES, RANK = 30, 576, 192, 4
QUESTIONS = Questions(profile=Profile.QUICK)


def write_adapters(folder: Path, count: int) -> None:
    """As peft saves them; in every fiftieth one module has a direction that stands out."""
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        tensors = {}
        for layer in range(LAYERS):
            for module, rows in (("q_proj", WIDTH), ("v_proj", VALUES)):
                name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
                scale = 30.0 if number % 50 == 0 and layer == 7 else 1.0
                down = torch.randn(RANK, WIDTH, generator=generator) / WIDTH**0.5
                up = torch.randn(rows, RANK, generator=generator) * 1e-2
                up[:, :1] *= scale
                tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = down, up
        path = folder / "org" / f"adapter-{number:04}"
        path.mkdir(parents=True)
        save_file({n: t.bfloat16() for n, t in tensors.items()}, path / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "r": RANK, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
        named = {"base_model_name_or_path": "HuggingFaceTB/SmolLM-135M", "task_type": "CAUSAL_LM"}
        (path / "adapter_config.json").write_text(json.dumps(config | named))


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Work that leaves a line for each artifact: when it began and ended, CPU seconds, process."""

    work: ScanWork
    log: Path

    def prepare(self) -> None:
        self.work.prepare()

    def __call__(self, job: Job) -> Done:
        began, cpu = time.time(), time.process_time()
        done = self.work(job)
        cpu = time.process_time() - cpu
        line = json.dumps([job.key, began, time.time(), cpu, os.getpid(), memory.held("self")])
        with self.log.open("a") as log:
            log.write(line + "\n")
        return done

    def verdict(self, report: Report) -> Verdict:
        return self.work.verdict(report)


class Timed(Index):
    """An index that knows what it cost."""

    seconds = 0.0

    def add(self, rows: Sequence[Any]) -> str:
        started = time.process_time()
        problem = super().add(rows)
        self.seconds += time.process_time() - started
        return problem


@dataclass(frozen=True, kw_only=True)
class Run:
    """One batch and what it took."""

    store: Path
    summary: Summary
    planning: float
    """CPU seconds, as all of the driver's."""
    indexing: float
    driving: float
    scans: list[Any]
    """Lines of the log, in the order in which artifacts were begun."""

    @property
    def scan_cpu(self) -> float:
        return sum(line[3] for line in self.scans)

    def cpu_of(self, keys: set[str]) -> float:
        return sum(line[3] for line in self.scans if line[0] in keys)

    def busy(self, workers: int) -> float:
        """Share of the workers' time between the first scan and the last that went into scans."""
        span = max(line[2] for line in self.scans) - min(line[1] for line in self.scans)
        return float(sum(line[2] - line[1] for line in self.scans) / (span * workers))

    def memory(self) -> tuple[float, float]:
        """Median of what workers held, in MB, over the second and over the last tenth of the scans."""
        tenth = max(1, len(self.scans) // 10)
        held = [line[5] / 1e6 for line in self.scans]
        return statistics.median(held[tenth : 2 * tenth]), statistics.median(held[-tenth:])


def first_use(folder: Path, reference: str) -> float:
    """CPU seconds of the first plan of a process: the modules of the rules and of the Hub's client."""
    os.environ["HF_HOME"], os.environ["FTSEC_AUDIT_CACHE"] = str(folder / "hf"), str(folder / "cache")
    began = time.process_time()
    plan([Model(model=reference)], QUESTIONS)
    return time.process_time() - began


def run(folder: Path, references: list[str], executor: Executor) -> Run:
    """A whole batch with caches below `folder`."""
    os.environ["HF_HOME"], os.environ["FTSEC_AUDIT_CACHE"] = str(folder / "hf"), str(folder / "cache")
    store, log = folder / "store", folder / "log"
    store.mkdir(parents=True)
    began = time.process_time()
    planned: BatchPlan = plan([Model(model=reference) for reference in references], QUESTIONS)
    planning = time.process_time() - began
    index = Timed(f"sqlite:///{store / 'index.sqlite'}")
    work = Measured(work=ScanWork(store=str(store), scan=QUESTIONS.for_scan()), log=log)
    began = time.process_time()
    with (folder / "events.jsonl").open("w") as events:
        summary = Batch(
            plan=planned,
            store=Store(str(store)),
            work=work,  # type: ignore[arg-type]  # it does what ScanWork does
            executor=executor,
            index=index,
            observer=Observer(events=events),
        ).run()
    driving = time.process_time() - began
    scans = sorted((json.loads(line) for line in log.read_text().splitlines()), key=lambda line: line[1])
    return Run(
        store=store,
        summary=summary,
        planning=planning,
        indexing=index.seconds,
        driving=driving - index.seconds,
        scans=scans,
    )


def results(store: Path) -> dict[str, Any]:
    """Key → report, of every document."""
    documents = (json.loads(path.read_bytes()) for path in store.glob("*/*.json"))
    return {document["key"]: document["report"] or document["failure"] for document in documents}


def lines(name: str, run: Run, workers: int, alone: Run | None) -> list[str]:
    count = len(run.scans)
    first, last = run.memory()
    share = (run.planning + run.indexing) / run.scan_cpu
    text = [
        f"| **{name}** | |",
        f"| artifacts, verdicts | {count:,}: {dict(run.summary.verdicts)}, {dict(run.summary.failures)} |",
        f"| CPU of the scans | {run.scan_cpu:,.1f} s, {run.scan_cpu / count * 1e3:,.0f} ms each |",
        f"| planning + indexing | {run.planning:.2f} + {run.indexing:.2f} s of CPU, {share:.2%} of scans |",
        f"| the rest of the driver | {run.driving:.2f} s of CPU, {run.driving / run.scan_cpu:.2%} |",
        f"| workers scanning | {run.busy(workers):.1%} of the time from the first scan to the last |",
        f"| memory of workers | {first:,.0f} MB at first, {last:,.0f} MB at the end |",
        f"| elapsed | {run.summary.seconds:,.0f} s, start of the workers included |",
    ]
    if alone is not None:
        keys = {line[0] for line in alone.scans} & {line[0] for line in run.scans}
        ratio = alone.cpu_of(keys) / run.cpu_of(keys)
        efficiency = ratio * run.busy(workers)
        text.append(f"| CPU of {len(keys):,} artifacts alone / beside others | {ratio:.3f} |")
        text.append(f"| **parallel efficiency** (busy × CPU ratio) | {efficiency:.1%} |")
    return [line.replace("Verdict.", "").replace("<", "").replace(">", "") for line in text]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--adapters", type=int, default=1000)
    options.add_argument("--alone", type=int, default=100, help="artifacts of the run with one worker")
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--without-ray", action="store_true")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_adapters(folder / "hub", given.adapters)
        size = sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
        paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
        os.environ["PYTHONPATH"] = paths
        command = [sys.executable, "-m", "hub_server", str(folder / "hub")]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        os.environ["HF_ENDPOINT"] = server.stdout.readline().strip()
        references = [f"org/adapter-{number:04}" for number in range(given.adapters)]
        print(f"{given.adapters:,} adapters, {size / 1e6:,.0f} MB; load average {os.getloadavg()}\n")
        print("| | |\n|---|---|")
        try:
            loading = first_use(folder / "first", references[0])
            print(f"| what a driver loads once | {loading:.2f} s of CPU, in no share below |")
            alone = run(folder / "alone", references[: given.alone], LocalPool(1))
            print("\n".join(lines("local pool, 1 worker", alone, 1, None)), flush=True)
            local = run(folder / "local", references, LocalPool(given.workers))
            print("\n".join(lines(f"local pool, {given.workers} workers", local, given.workers, alone)))
            print(f"| memory of the driver | {memory.held('self') / 1e6:,.0f} MB |", flush=True)
            if given.without_ray:
                return
            ray = run(folder / "ray", references, RayExecutor(given.workers, address="local"))
            print("\n".join(lines(f"Ray, {given.workers} actors", ray, given.workers, alone)))
            ours, theirs = results(local.store), results(ray.store)
            same = sum(theirs.get(key) == value for key, value in ours.items())
            print(f"| **same results** | {same:,} of {len(ours):,} (Ray: {len(theirs):,}) |")
        finally:
            server.kill()
            server.wait()
        print(f"\nload average at the end {os.getloadavg()}")


if __name__ == "__main__":
    main()
