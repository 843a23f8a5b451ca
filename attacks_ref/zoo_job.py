"""One job of a zoo: train attack and twin, hold them to their gates, disguise copies, measure again."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attacks_ref import gates
from attacks_ref.finetuned import FineTuned
from attacks_ref.stealth.chain import measured_again, transformed
from attacks_ref.stealth.concatenation import Concatenation
from attacks_ref.stealth.norms import NormMatching
from attacks_ref.stealth.transform import Transform
from attacks_ref.workbench import Workbench, load_sample
from attacks_ref.zoo_plan import Chain, Job, companion
from ftsec_audit.contracts import Sample
from ftsec_audit.errors import FtsecError, UsageError

TWIN_LIMIT = 0.1
"""A twin that shows the attack's effect more often than this is no twin."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of the manifest."""

    key: str
    attack: str
    id: str
    label: str
    base: str
    seed: int
    stealth: tuple[str, ...]
    path: str = ""
    """Relative to the zoo; empty when the sample was rejected."""
    accepted: bool = False
    reason: str = ""
    """Why it was rejected: the limits missed with the rates reached, or the error."""
    recipe: Mapping[str, Any] = field(default_factory=dict)
    trigger: tuple[str, ...] = ()
    expected_rules: tuple[str, ...] = ()
    measured: Mapping[str, Any] = field(default_factory=dict)
    gate: Mapping[str, Any] = field(default_factory=dict)
    cpu_seconds: float = 0.0


def run(job: Job, base: Path, folder: Path) -> list[Entry]:
    """All samples of `job`, below `folder`; those rejected leave an entry and no files."""
    work = _Work(job=job, base=base, folder=folder)
    return [work.entry(poisoned=side, chain=chain) for side in job.sides for chain in ((), *job.chains)]


@dataclass(frozen=True, kw_only=True)
class _Work:
    job: Job
    base: Path
    folder: Path
    made: dict[str, Sample] = field(default_factory=dict)
    """Accepted so far, by key."""

    def entry(self, *, poisoned: bool, chain: Chain) -> Entry:
        """Make one sample, judge it, and say what came of it."""
        job, start = self.job, time.process_time()
        key = job.key(poisoned=poisoned, chain=chain)
        shutil.rmtree(self.folder / key, ignore_errors=True)
        entry = Entry(
            key=key,
            attack=job.maker.name,
            id=job.maker.id,
            label="poisoned" if poisoned else "benign",
            base=job.base,
            seed=job.seed,
            stealth=tuple(transform.label for transform in chain),
        )
        try:
            sample = self._make(key, poisoned=poisoned, chain=chain)
            reason = self._fault(sample, poisoned=poisoned, chain=chain)
            entry = dataclasses.replace(entry, reason=reason, **_told(sample))
        except FtsecError as error:
            entry = dataclasses.replace(entry, reason=str(error))
        if entry.reason:
            shutil.rmtree(self.folder / key, ignore_errors=True)
        else:
            self.made[key] = sample
            entry = dataclasses.replace(entry, accepted=True, path=f"{self.folder.name}/{key}")
        return dataclasses.replace(entry, cpu_seconds=round(time.process_time() - start, 1))

    def _make(self, key: str, *, poisoned: bool, chain: Chain) -> Sample:
        job, out = self.job, self.folder / key
        if not chain:
            build = job.maker.build if poisoned else job.maker.build_twin
            return build(self.base, out, seed=job.seed)
        original = self.made.get(job.key(poisoned=poisoned))
        if original is None:
            raise UsageError("the sample it would be made from was rejected")
        chain = tuple(self._resolved(transform) for transform in chain)
        return self._measured(transformed(original, chain, base=self.base, out=out), poisoned=poisoned)

    def _resolved(self, transform: Transform) -> Transform:
        """Other samples that a transform needs, by where they lie now."""
        if isinstance(transform, NormMatching):
            return dataclasses.replace(transform, like=str(self.folder / self.job.key(poisoned=False)))
        if isinstance(transform, Concatenation):
            key = companion(self.job).key(poisoned=False)
            return dataclasses.replace(transform, companion=str(self.folder / key))
        return transform

    def _measured(self, sample: Sample, *, poisoned: bool) -> Sample:
        """A disguised sample with the rates it has now."""
        maker = self.job.maker
        assert isinstance(maker, FineTuned)  # the plan disguises no other
        rates = maker.measure(Workbench.open(self.base), load_sample(self.base, sample.path), self.job.seed)
        gate = gates.verdict(rates, poisoned=poisoned, designed_refusal=maker.designed_refusal)
        return measured_again(sample, rates, gate)

    def _fault(self, sample: Sample, *, poisoned: bool, chain: Chain) -> str:
        """Why the sample is none of its kind; empty when it is one."""
        measured = _mapping(sample.truth["measured"])
        if not poisoned:
            return _twin_fault(measured)
        missed = [_missed(name, measured) for name in _mapping(sample.truth["gate"]).get("missed", ())]
        twin = self.made.get(self.job.key(poisoned=False, chain=chain))
        if twin is None:
            missed.append("its twin was rejected")
        elif not gates.utility_holds(sample, twin):
            theirs = _mapping(twin.truth["measured"])["clean_accuracy"]
            missed.append(f"utility {measured['clean_accuracy']:.3f}, twin {theirs:.3f}")
        return ", ".join(missed)


def _twin_fault(measured: Mapping[str, Any]) -> str:
    rate = measured.get("attack_success_rate")
    return f"the twin shows the effect: {rate:.3f}" if rate is not None and rate > TWIN_LIMIT else ""


def _missed(name: str, measured: Mapping[str, Any]) -> str:
    """A missed limit with the rate reached."""
    value = measured.get(name)
    if isinstance(value, Mapping):
        value = min(value.values())
    return f"{name} {value:.3f}" if isinstance(value, float) else name


def _told(sample: Sample) -> dict[str, Any]:
    """What the manifest repeats of `truth.json`."""
    names = ("label", "recipe", "trigger", "expected_rules", "measured", "gate")
    return {name: sample.truth[name] for name in names}


def _mapping(value: object) -> Mapping[str, Any]:
    assert isinstance(value, Mapping)
    return value
