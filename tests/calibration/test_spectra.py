"""The band of benign spectra: what is kept of an artifact, who is compared with whom, and what files hold."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders.adapters import write_adapter

from detectors.spectral_signature import SpectralSignature
from ftsec_audit.calibration.bank import Calibration
from ftsec_audit.calibration.build import build_pack, measure
from ftsec_audit.calibration.pack import Entry, Pack, Provenance
from ftsec_audit.calibration.recipe import Recipe
from ftsec_audit.calibration.spectra import LEVELS, Shape, bands, energy_shares, shapes
from ftsec_audit.contracts import Measurements, Subject
from ftsec_audit.errors import UsageError
from ftsec_audit.sources import resolve
from ftsec_audit.types import ModuleMeasurement, SpectrumBand
from ftsec_audit.weights.stream import deltas


def module(values: list[float], role: str = "q_proj", layer: int = 0) -> ModuleMeasurement:
    return ModuleMeasurement(
        name=f"layers.{layer}.self_attn.{role}",
        role=role,
        layer=layer,
        shape=(8, 8),
        values={"singular_values": values},
    )


def table(path: Path) -> Measurements:
    subject = Subject(artifact=resolve(str(path)), base=None)
    return measure(subject, [SpectralSignature()], deltas)


@pytest.fixture(scope="module")
def benign(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """Six adapters of six repositories."""
    root = tmp_path_factory.mktemp("benign")
    artifacts = [
        (resolve(str(write_adapter(root / f"a{i}", seed=i))), Provenance(repository=f"org/r{i}"))
        for i in range(6)
    ]
    return build_pack(artifacts, [SpectralSignature()], stream=deltas, name="own", version="1").pack


def band(pack: Pack, subject: Path, role: str = "q_proj") -> SpectrumBand:
    [found] = [one for one in bands(Calibration(packs=(pack,)), table(subject)) if one.role == role]
    return found


def test_shares_are_those_of_the_energy() -> None:
    assert energy_shares([3.0, 1.0]) == pytest.approx([0.9, 0.1])
    assert math.fsum(energy_shares([1e200, 1e199, 1e-200])) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "values", [[], [0.0, 0.0], [math.nan, 1.0], [1.0, math.nan], [math.inf], [1.0, -0.1]]
)
def test_what_is_no_spectrum_has_no_shape(values: list[float]) -> None:
    assert energy_shares(values) == []
    assert shapes([module(values)]) == ()


def test_a_shape_holds_quantiles_over_the_modules_of_a_type_and_rank() -> None:
    spectra = np.sort(np.random.default_rng(0).random((7, 40)), axis=1)[:, ::-1]
    modules = [module(list(map(float, row)), layer=i) for i, row in enumerate(spectra)]
    found = shapes([*modules, module([2.0, 1.0]), module([1.0], role="v_proj")])
    assert [(s.kind, s.modules) for s in found] == [
        (("q_proj", "attention", 40), 7),
        (("q_proj", "attention", 2), 1),
        (("v_proj", "attention", 1), 1),
    ]
    shares = spectra**2 / (spectra**2).sum(axis=1, keepdims=True)
    assert np.asarray(found[0].shares) == pytest.approx(np.quantile(shares[:, :32], LEVELS, axis=0))


def test_the_band_is_that_of_comparable_adapters_without_the_subjects_own(
    benign: Pack, tmp_path: Path
) -> None:
    subject = write_adapter(tmp_path / "subject", seed=9)
    found = band(benign, subject)
    assert (found.population.n, found.repositories, found.missing) == (6, 6, "")
    assert (found.population.id, found.population.stratum) == (
        "own@1",
        "llama · lora · r 1-4 · attention · causal_lm",
    )
    assert all(
        0 < low <= middle <= high < 1
        for low, middle, high in zip(found.low, found.median, found.high, strict=True)
    )
    copy = write_adapter(tmp_path / "copy", seed=3)
    assert band(benign, copy).repositories == 5


def test_with_too_few_repositories_there_is_no_band_and_a_reason(benign: Pack, tmp_path: Path) -> None:
    subject = write_adapter(tmp_path / "subject", seed=9)
    few = replace(benign, entries=benign.entries[:4])
    found = band(few, subject)
    assert (found.low, found.median, found.high) == ((), (), ())
    assert found.missing == "4 comparable repositories, 5 needed"
    other_rank = write_adapter(tmp_path / "other", rank=3, seed=9)
    assert band(benign, other_rank).missing.startswith("0 comparable repositories"), "ranks are never mixed"
    other_block = write_adapter(tmp_path / "block", targets=("up_proj",), seed=9)
    assert band(benign, other_block, "up_proj").missing.startswith("0 comparable repositories")


def test_a_type_that_few_have_is_compared_with_its_block_and_it_is_said(benign: Pack, tmp_path: Path) -> None:
    found = band(benign, write_adapter(tmp_path / "type", targets=("o_proj",), seed=9), "o_proj")
    assert found.population.stratum == "llama · lora · r 1-4 · attention · causal_lm · any attention module"
    assert (found.population.n, found.repositories, len(found.median)) == (6, 6, 4)


def test_every_repository_weighs_the_same(benign: Pack, tmp_path: Path) -> None:
    """A hundred checkpoints of one run do not move the median away from five other repositories."""
    subject = write_adapter(tmp_path / "subject", seed=9)
    first = benign.entries[0]
    [odd] = [shape for shape in first.spectra if shape.role == "q_proj"]
    odd = replace(odd, shares=tuple((0.25,) * 4 for _ in LEVELS))
    many = tuple(replace(first, spectra=(odd,)) for _ in range(100))
    crowded = band(replace(benign, entries=many + benign.entries[1:]), subject)
    assert (crowded.population.n, crowded.repositories) == (105, 6)
    alone = band(replace(benign, entries=many[:1] + benign.entries[1:]), subject)
    assert crowded.median == pytest.approx(alone.median)


def test_a_pack_without_spectra_still_loads_and_is_said_to_hold_none(benign: Pack, tmp_path: Path) -> None:
    benign.save(tmp_path / "new.json")
    document = json.loads((tmp_path / "new.json").read_text())
    for entry in document["entries"]:
        del entry["spectra"]
    (tmp_path / "old.json").write_text(json.dumps(document))
    found = band(Pack.load(tmp_path / "old.json"), write_adapter(tmp_path / "subject", seed=9))
    assert found.missing == "the calibration was written before packs kept spectra"
    assert found.low == ()


def test_spectra_survive_the_disk_to_four_digits(benign: Pack, tmp_path: Path) -> None:
    benign.save(tmp_path / "pack.json.gz")
    loaded = Pack.load(tmp_path / "pack.json.gz")
    for before, after in zip(benign.entries, loaded.entries, strict=True):
        assert [(s.kind, s.modules) for s in after.spectra] == [(s.kind, s.modules) for s in before.spectra]
        for one, other in zip(before.spectra, after.spectra, strict=True):
            assert np.asarray(other.shares) == pytest.approx(np.asarray(one.shares), rel=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"shares": [[0.5, 0.5]]},
        {"shares": [[0.5]] * 5},
        {"shares": [[2.0, 0.5]] * 5},
        {"shares": [[math.nan, 0.5]] * 5},
        {"rank": -1},
        {"rank": "many"},
    ],
)
def test_a_spectrum_that_cannot_be_one_is_refused(wrong: dict[str, object], tmp_path: Path) -> None:
    shape = Shape(role="q_proj", block="attention", rank=2, modules=1, shares=((0.9, 0.1),) * 5)
    recipe = Recipe(family="llama", method="lora", rank="r 1-4", targets="attention", objective="causal_lm")
    entry = Entry(provenance=Provenance(repository="a/b"), recipe=recipe, features={}, spectra=(shape,))
    Pack(name="x", version="1", entries=(entry,)).save(tmp_path / "pack.json")
    document = json.loads((tmp_path / "pack.json").read_text())
    Pack.load(tmp_path / "pack.json")
    document["entries"][0]["spectra"][0].update(wrong)
    (tmp_path / "pack.json").write_text(json.dumps(document))
    with pytest.raises(UsageError, match="is not a calibration pack"):
        Pack.load(tmp_path / "pack.json")
