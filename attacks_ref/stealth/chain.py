"""A sample with its attack or twin untouched, and what transforms make of a copy of it."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attacks_ref import safety
from attacks_ref.sample import TRUTH_FILE, Truth, finish
from attacks_ref.stealth.transform import Transform
from ftsec_audit.contracts import Sample

_FIELDS = tuple(field.name for field in dataclasses.fields(Truth))


def transformed(sample: Sample, chain: Sequence[Transform], *, base: Path, out: Path) -> Sample:
    """A copy of `sample` at `out` with `chain` applied, in order.

    Its `truth.json` records the chain and no rates: those of the original need not hold any more.
    """
    out, seed = safety.fresh(out), int(str(sample.truth["seed"]))
    shutil.copytree(sample.path, out, dirs_exist_ok=True)
    for transform in chain:
        transform.apply(base, out, seed=seed)
    (out / TRUTH_FILE).unlink(missing_ok=True)
    labels = [transform.label for transform in chain]
    return restated(sample, out, stealth=[*_strings(sample.truth["stealth"]), *labels], measured={}, gate={})


def restated(sample: Sample, out: Path, **changes: Any) -> Sample:
    """The sample at `out` with the truth of `sample`, some of it changed, written and labelled anew."""
    known = {name: value for name, value in sample.truth.items() if name in _FIELDS}
    return finish(out, Truth(**{**known, **changes}))


def measured_again(sample: Sample, measured: Mapping[str, Any], gate: Mapping[str, Any]) -> Sample:
    """The same sample with the rates it has now."""
    return restated(sample, sample.path, measured=measured, gate=gate)


def _strings(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, (list, tuple)) else []
