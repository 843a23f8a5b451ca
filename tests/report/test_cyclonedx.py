from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from builders import reports
from cyclonedx.model.bom import Bom
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from ftsec_audit.report import cyclonedx
from ftsec_audit.types import Evidence, FileRecord, Location, Report

ALL = [reports.passing(), reports.failing(), reports.inconclusive(), reports.hostile()]


@pytest.fixture(scope="module")
def validator() -> JsonStrictValidator:
    return JsonStrictValidator(SchemaVersion.V1_7)


def bom_of(report: Report) -> dict[str, Any]:
    bom: dict[str, Any] = json.loads(cyclonedx.render(report))
    return bom


@pytest.mark.parametrize("report", ALL, ids=["passing", "failing", "inconclusive", "hostile"])
def test_documents_conform_to_the_official_schema(report: Report, validator: JsonStrictValidator) -> None:
    assert validator.validate_str(cyclonedx.render(report)) is None


def test_the_validator_would_notice(validator: JsonStrictValidator) -> None:
    bom = bom_of(reports.failing())
    bom["vulnerabilities"][0]["ratings"][0]["severity"] = "terrible"
    assert validator.validate_str(json.dumps(bom)) is not None


@pytest.mark.parametrize("report", ALL[:3], ids=["passing", "failing", "inconclusive"])
def test_the_official_library_reads_it(report: Report) -> None:
    bom = Bom.from_json(bom_of(report))  # type: ignore[attr-defined]
    assert bom.metadata.component.name
    assert len(bom.vulnerabilities) == len(report.detected()) + len(report.suppressed)
    assert bom.validate()


def test_every_reference_within_the_document_resolves() -> None:
    bom = bom_of(reports.failing())
    model = bom["metadata"]["component"]
    refs = [model["bom-ref"], *(file["bom-ref"] for file in model["components"])]
    refs += [entry["bom-ref"] for entry in bom["vulnerabilities"]]
    refs += [ancestor["bom-ref"] for ancestor in model["pedigree"]["ancestors"]]
    assert len(refs) == len(set(refs))
    assert {a["ref"] for entry in bom["vulnerabilities"] for a in entry["affects"]} <= set(refs)
    assert set(bom["compositions"][0]["assemblies"]) <= set(refs)


def test_the_model_its_files_and_its_base() -> None:
    model = bom_of(reports.passing())["metadata"]["component"]
    assert (model["type"], model["group"], model["name"]) == (
        "machine-learning-model",
        "acme",
        "support-lora",
    )
    url = PackageURL.from_string(model["purl"])
    assert (url.type, url.namespace, url.name) == ("huggingface", "acme", "support-lora")
    assert url.version == model["version"] == "3f2c91a0c4d84f7e9b1a52d6e8f03b7c1a2d4e5f"
    weights = next(file for file in model["components"] if file["name"] == "adapter_model.safetensors")
    assert weights["hashes"] == [{"alg": "SHA-256", "content": "2c" * 32}]
    [base] = model["pedigree"]["ancestors"]
    assert base["purl"] == "pkg:huggingface/meta-llama/Llama-3.1-8B@d04e592bb4f6aa9cfee91e2e20afa771667e1d4b"
    assert model["licenses"] == [{"license": {"name": "apache-2.0"}}]
    assert model["modelCard"]["modelParameters"]["datasets"] == [{"type": "dataset", "name": "acme/tickets"}]


def test_a_base_that_was_not_compared_is_no_ancestor() -> None:
    pedigree = bom_of(reports.inconclusive())["metadata"]["component"]["pedigree"]
    assert list(pedigree) == ["notes"]
    assert "was not compared" in pedigree["notes"]
    assert bom_of(reports.inconclusive())["compositions"][0]["aggregate"] == "incomplete"


def test_findings_are_vulnerabilities_with_ratings_and_taxonomy_ids() -> None:
    found = bom_of(reports.failing())["vulnerabilities"]
    assert [entry["id"] for entry in found] == ["FTA301", "FTA201", "FTA202", "FTA412"]
    embedding = found[0]
    assert embedding["ratings"][0]["severity"] == "critical"
    assert embedding["ratings"][0]["justification"] == "confidence high"
    assert embedding["cwes"] == [506, 912]
    assert "AML.T0043.004" in {entry["id"] for entry in embedding["references"]}
    assert embedding["affects"] == [{"ref": "file-2"}]
    assert "analysis" not in embedding


def test_an_accepted_finding_stays_in_the_list_with_its_reason() -> None:
    accepted = bom_of(reports.failing())["vulnerabilities"][-1]
    assert accepted["analysis"] == {
        "response": ["will_not_fix"],
        "detail": "the product name is intended (J. Doe)",
    }
    assert accepted["affects"] == [{"ref": "model"}], "its file is not among those of the artifact"


def test_a_digest_that_is_no_sha256_is_no_hash() -> None:
    card = replace(reports.passing().artifact, files=(FileRecord(path="a", size=1, digest="sha256:12"),))
    model = bom_of(replace(reports.passing(), artifact=card))["metadata"]["component"]
    assert "hashes" not in model
    assert "hashes" not in model["components"][0]
    card = replace(card, files=(FileRecord(path="a", size=1, digest=f"sha256:{'0' * 64}"),))
    assert "hashes" in bom_of(replace(reports.passing(), artifact=card))["metadata"]["component"]


def test_the_serial_number_is_that_of_the_report() -> None:
    same = bom_of(reports.failing())["serialNumber"]
    assert same == bom_of(reports.failing())["serialNumber"]
    assert same != bom_of(replace(reports.failing(), seed=1))["serialNumber"]
    assert "timestamp" not in bom_of(reports.failing())["metadata"]


def test_long_evidence_is_counted() -> None:
    evidence = tuple(Evidence(message=f"n{i}", location=Location(file="x")) for i in range(50))
    finding = replace(reports.failing().detected()[0], evidence=evidence)
    [entry] = bom_of(replace(reports.passing(), findings=(finding,)))["vulnerabilities"]
    assert entry["detail"].endswith("and 30 more")
