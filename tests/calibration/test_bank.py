"""Who is compared with whom: strata, fallbacks, exclusion of the subject's own repository, pack files."""

from __future__ import annotations

import gzip
import json
from types import SimpleNamespace

import pytest

from ftsec_audit.calibration.bank import Calibration
from ftsec_audit.calibration.pack import Entry, Pack, Provenance
from ftsec_audit.calibration.recipe import Recipe, base_family, rank_bucket
from ftsec_audit.errors import UsageError

SET = "spectra/1"
LLAMA = Recipe(family="llama", method="lora", rank="r 5-8", targets="attention", objective="causal_lm")
QWEN = Recipe(family="qwen", method="lora", rank="r 5-8", targets="attention", objective="causal_lm")


def entry(repository: str, recipe: Recipe = LLAMA, sha256: str = "", **features: float) -> Entry:
    return Entry(
        provenance=Provenance(repository=repository, sha256=sha256),
        recipe=recipe,
        features={SET: features or {"a": float(len(repository)), "b": 1.0}},
    )


def pack(*entries: Entry) -> Pack:
    return Pack(name="test", version="1", entries=entries, detectors={SET: "Spectra@1:0"})


def population(
    calibration: Calibration, recipe: Recipe = LLAMA, *, subject=None, enough=2, **features: float
):
    return calibration.population(
        SET, recipe, features or {"a": 0.5, "b": 0.5}, subject=subject, enough=enough
    )


def test_the_narrowest_sufficient_stratum_is_used():
    calibration = Calibration(packs=(pack(entry("a/1"), entry("b/2"), entry("c/3", QWEN)),))
    bank = population(calibration)
    assert (bank.stratum.level, bank.n, bank.id) == (0, 2, "test@1")
    assert "llama · lora · r 5-8 · attention · causal_lm" in bank.label


def test_a_thin_stratum_falls_back_to_a_wider_one():
    calibration = Calibration(packs=(pack(entry("a/1"), entry("b/2", QWEN), entry("c/3", QWEN)),))
    bank = population(calibration, enough=3)
    assert bank.stratum.level > 0
    assert bank.n_groups == 3


def test_ranks_and_methods_are_never_mixed():
    other = Recipe(family="llama", method="lora", rank="r 33-64", targets="attention", objective="causal_lm")
    assert population(Calibration(packs=(pack(entry("a/1"), entry("b/2")),)), other) is None


def test_checkpoints_of_one_repository_do_not_make_a_stratum_sufficient():
    many = [entry("a/1", a=float(i), b=1.0) for i in range(2, 30)]
    calibration = Calibration(packs=(pack(*many, entry("b/2", QWEN)),))
    bank = population(calibration)
    assert bank.n_groups == 2
    assert bank.stratum.level > 0


def test_excluded_repositories_are_forgotten_whatever_their_case():
    calibration = Calibration(packs=(pack(entry("Org/A"), entry("b/2"), entry("c/3")),))
    bank = population(calibration.excluding(["org/a"]))
    assert set(bank.groups) == {"b/2", "c/3"}
    assert calibration.n == 3  # the original is unchanged


@pytest.mark.parametrize(
    ("reference", "left"),
    [
        ("hf://org/model@abc/sub", {"b/2"}),
        ("org/model", {"b/2"}),
        ("org/model-2", {"org/model", "b/2"}),
        ("/data/org/model", {"b/2"}),
        ("elsewhere", {"org/model", "b/2"}),
    ],
)
def test_the_subjects_own_repository_takes_no_part(reference, left):
    artifact = SimpleNamespace(reference=reference, resolved=reference, weight_files=())
    calibration = Calibration(packs=(pack(entry("Org/Model"), entry("b/2")),))
    bank = population(calibration, subject=SimpleNamespace(artifact=artifact), enough=1)
    assert {group.lower() for group in bank.groups} == left


def test_a_copy_is_recognised_by_its_digest_and_by_its_features():
    copied = entry("org/original", sha256="ab12", a=3.0, b=4.0)
    sibling = entry("org/original", a=7.0, b=8.0)
    calibration = Calibration(packs=(pack(copied, sibling, entry("b/2")),))
    file = SimpleNamespace(digest="sha256:ab12")
    artifact = SimpleNamespace(reference="./x", resolved="./x", weight_files=(file,))
    by_digest = population(calibration, subject=SimpleNamespace(artifact=artifact), enough=1)
    by_features = population(calibration, enough=1, a=3.0000001, b=4.0)
    assert set(by_digest.groups) == set(by_features.groups) == {"b/2"}


def test_only_shared_columns_are_compared_and_odd_members_dropped():
    members = [entry(f"r/{i}", a=float(i), b=1.0, c=2.0) for i in range(20)]
    calibration = Calibration(packs=(pack(*members, entry("odd/1", a=1.0)),))
    bank = population(calibration, a=0.5, b=0.5, z=1.0)
    assert bank.columns == ("a", "b")
    assert "odd/1" not in bank.groups


def test_nothing_to_compare_with():
    assert population(Calibration.empty()) is None
    assert population(Calibration(packs=(pack(entry("a/1")),)), z=1.0) is None


@pytest.mark.parametrize("name", ["pack.json", "pack.json.gz"])
def test_a_pack_survives_the_disk(tmp_path, name):
    original = pack(entry("a/1", a=1.23456789, b=float("nan")), entry("b/2", QWEN, "ff", a=-1e-9))
    original.save(tmp_path / name)
    loaded = Pack.load(tmp_path / name)
    assert loaded.entries[0].features[SET] == {"a": 1.23457}  # six digits; NaN is a missing value
    assert loaded.entries[1].recipe == QWEN
    assert loaded.detectors == original.detectors
    loaded.save(tmp_path / ("again-" + name))
    assert (tmp_path / ("again-" + name)).read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[1]",
        b"not json",
        b"\x1f\x8b broken",
        b"\xff\xfe",
        b'{"schema": 99}',
        b'{"schema":1,"columns":{}}',
    ],
)
def test_what_is_not_a_pack_is_refused_with_its_name(tmp_path, content):
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"bad\.json"):
        Calibration.load([path])


def test_a_row_of_the_wrong_length_is_refused(tmp_path):
    pack(entry("a/1")).save(tmp_path / "p.json")
    document = json.loads((tmp_path / "p.json").read_text())
    document["entries"][0]["features"][SET].append(1.0)
    (tmp_path / "p.json.gz").write_bytes(gzip.compress(json.dumps(document).encode()))
    with pytest.raises(UsageError):
        Pack.load(tmp_path / "p.json.gz")


def test_merging_replaces_entries_of_the_same_file():
    old = pack(entry("a/1", sha256="11", a=1.0), entry("b/2", a=2.0))
    new = pack(entry("a/1", sha256="11", a=9.0))
    merged = old.merged_with(new, version="2")
    assert [e.features[SET]["a"] for e in merged.entries] == [2.0, 9.0]
    assert merged.id == "test@2"


@pytest.mark.parametrize(
    ("base", "family"),
    [
        ("meta-llama/Llama-3.1-8B", "llama"),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "llama"),
        ("distilbert-base-uncased", "distilbert"),
        ("roberta-base", "roberta"),
        ("openai-community/gpt2", "gpt2"),
        ("EleutherAI/gpt-neo-125M", "gptneo"),
        (r"C:\models\Qwen2.5-0.5B", "qwen"),
        ("bigscience/mt0-large", "t5"),
        ("", ""),
        ("acme/secret", "secret"),
    ],
)
def test_families_are_read_off_base_names(base, family):
    assert base_family(base) == family


def test_an_unnamed_base_falls_back_to_its_model_type():
    assert base_family("./local/model", {"model_type": "gemma3_text"}) == "gemma"


@pytest.mark.parametrize(
    ("rank", "bucket"), [(None, ""), (1, "r 1-4"), (8, "r 5-8"), (9, "r 9-16"), (512, "r 65+")]
)
def test_rank_buckets(rank, bucket):
    assert rank_bucket(rank) == bucket
