"""The public face on real artifacts: a verdict for each, and no error for bad input that is not named."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from builders.adapters import write_adapter, write_checkpoint

import ftsec_audit as fa
from ftsec_audit import api
from ftsec_audit.errors import SourceError, UsageError
from ftsec_audit.measurement_cache import MeasurementCache
from ftsec_audit.types import Outcome, Severity, Verdict


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FTSEC_AUDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("models") / "adapter", base_model_name_or_path="org/base")


def outcomes(report: fa.Report) -> dict[str, Outcome]:
    return {finding.rule: finding.outcome for finding in report.findings}


def detected(report: fa.Report) -> set[str]:
    return {finding.rule for finding in report.detected()}


def test_a_clean_adapter_with_its_base_passes(adapter: Path, base: Path) -> None:
    report = fa.scan(str(adapter), base=str(base))
    assert report.verdict is Verdict.PASS, report.decision.reasons
    assert report.base is not None
    assert report.artifact.digest.startswith("sha256:")
    assert report.measurements
    assert all(finding.detector for finding in report.findings)


def test_every_rule_is_answered_or_listed_as_not_looked_at(adapter: Path, base: Path) -> None:
    for options in ({"profile": "quick"}, {"base": str(base)}, {"no_base": True}):
        report = fa.scan(str(adapter), **options)
        told = set(outcomes(report)) | {entry.what for entry in report.not_looked_at}
        assert {rule.id for rule in fa.rules()} <= told


def test_equal_input_gives_an_equal_report_measured_or_cached(adapter: Path, base: Path) -> None:
    first = fa.scan(str(adapter), base=str(base))
    assert fa.scan(str(adapter), base=str(base)) == first
    assert fa.scan(str(adapter), base=str(base), cache=False) == first


def test_the_cache_is_used_and_a_damaged_one_is_not(adapter: Path, own_cache: Path) -> None:
    first = fa.scan(str(adapter), profile="quick")
    assert MeasurementCache(own_cache).contents().entries > 0
    for entry in own_cache.iterdir():
        entry.write_bytes(entry.read_bytes()[:-7])
    assert fa.scan(str(adapter), profile="quick") == first


def test_without_a_base_the_standard_profile_is_inconclusive_and_says_what_to_do(adapter: Path) -> None:
    left_out = fa.scan(str(adapter), no_base=True)
    assert left_out.verdict is Verdict.INCONCLUSIVE
    offline = fa.scan(str(adapter), offline=True)
    assert offline.verdict is Verdict.INCONCLUSIVE
    assert any("org/base" in reason for reason in offline.decision.reasons)


def test_a_quick_scan_imports_the_detectors_it_runs_and_no_other(adapter: Path) -> None:
    code = (
        "import sys, ftsec_audit as fa; report = fa.scan(sys.argv[1], profile='quick', cache=False);"
        "print(*(m for m in sys.modules if m.startswith('detectors.')), 'transformers' in sys.modules);"
        "print(*(rule.id for rule in report.rules)); print(*(one.what for one in report.not_looked_at))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(adapter)], capture_output=True, text=True, check=True
    )
    modules, asked, skipped = (line.split() for line in done.stdout.splitlines())
    assert {"detectors.pickle_code", "detectors.spectral_signature", "False"} <= set(modules)
    assert {"detectors.trigger", "detectors.woken", "detectors.weight_edit"}.isdisjoint(modules)
    assert {"FTA501", "FTA505", "FTA204"} <= set(skipped)
    assert {rule.id for rule in fa.rules()} <= {*asked, *skipped}
    assert "FTA501" not in asked


def test_the_quick_profile_needs_no_base(adapter: Path) -> None:
    report = fa.scan(str(adapter), profile="quick")
    assert report.verdict is Verdict.PASS, report.decision.reasons
    assert report.base is None


def test_a_declared_base_never_makes_a_local_path_be_read(tmp_path: Path, base: Path, monkeypatch) -> None:
    monkeypatch.chdir(base.parent)
    for declared in (str(base), "./base", "base", "C:\\models\\base", "file:///etc"):
        path = write_adapter(tmp_path / "adapter", base_model_name_or_path=declared)
        assert fa.scan(str(path), offline=True).base is None


def test_an_edited_embedding_row_fails_with_its_row(tmp_path: Path, base: Path) -> None:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.embed_tokens.weight"][7] += 1.0

    subject = write_checkpoint(tmp_path / "subject", edit=edit)
    report = fa.scan(str(subject), base=str(base))
    assert report.verdict is Verdict.FAIL
    assert "FTA301" in detected(report)


def test_select_and_ignore_leave_rules_unanswered(adapter: Path) -> None:
    report = fa.scan(str(adapter), profile="quick", select=["FTA4"], ignore=["FTA411"])
    assert outcomes(report)["FTA412"].is_answer
    assert outcomes(report)["FTA411"] is Outcome.NOT_SUPPORTED
    assert report.verdict is Verdict.INCONCLUSIVE, "what the policy requires cannot be waved away by a flag"
    assert "FTA411" not in {rule.id for rule in report.rules}
    with pytest.raises(UsageError, match="FTA99"):
        fa.scan(str(adapter), select=["FTA99"])


def test_a_base_and_no_base_contradict_each_other(adapter: Path, base: Path) -> None:
    with pytest.raises(UsageError):
        fa.scan(str(adapter), base=str(base), no_base=True)


@pytest.mark.parametrize("wrong", [{"profile": "fast"}, {"backend": "ONNX"}])
def test_a_value_that_means_nothing_is_an_error(adapter: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(wrong.values()))!r} is no {next(iter(wrong))}"):
        fa.scan(str(adapter), **wrong)


def test_a_base_that_was_named_and_is_not_there_is_an_error(adapter: Path) -> None:
    with pytest.raises(SourceError):
        fa.scan(str(adapter), base="./absent")


def test_there_must_be_something_to_scan(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        fa.scan(str(tmp_path / "absent"))
    with pytest.raises(UsageError, match="holds no files"):
        fa.scan(str(tmp_path))


def test_a_folder_without_a_model_is_inconclusive_and_a_single_file_is_itself(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# nothing")
    folder = fa.scan(str(tmp_path), profile="quick")
    assert folder.verdict is Verdict.INCONCLUSIVE
    assert any("no adapter and no checkpoint" in reason for reason in folder.decision.reasons)
    (tmp_path / "chat_template.jinja").write_text(
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    assert fa.scan(str(tmp_path / "chat_template.jinja"), profile="quick").verdict is Verdict.PASS


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


BROKEN = {
    "truncated": lambda folder: truncate(folder / "adapter_model.safetensors"),
    "cut to nothing": lambda folder: (folder / "adapter_model.safetensors").write_bytes(b""),
    "header lies": lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"\xff" * 8 + b"{}"),
    "no weights": lambda folder: (folder / "adapter_model.safetensors").unlink(),
    "weights are text": lambda folder: (folder / "adapter_model.safetensors").write_text("hello"),
}


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN.keys())
def test_damaged_weights_never_pass(tmp_path: Path, damage) -> None:
    folder = write_adapter(tmp_path / "adapter")
    damage(folder)
    report = fa.scan(str(folder), profile="quick")
    assert report.verdict is not Verdict.PASS


@pytest.mark.parametrize("config", ["", "{", "[]", "null", '{"r": "sixteen"}', "\x00\xff"])
def test_a_wrong_configuration_never_crashes(tmp_path: Path, config: str) -> None:
    folder = write_adapter(tmp_path / "adapter")
    (folder / "adapter_config.json").write_text(config)
    report = fa.scan(str(folder), profile="quick")
    assert Outcome.ERROR not in outcomes(report).values()


def test_values_that_are_no_numbers_are_found(tmp_path: Path) -> None:
    def edit(tensors: dict[str, torch.Tensor]) -> None:
        for tensor in tensors.values():
            tensor.fill_(float("nan"))

    report = fa.scan(str(write_adapter(tmp_path / "adapter", edit=edit)), profile="quick")
    assert report.verdict is Verdict.FAIL
    assert "FTA103" in detected(report)
    assert json.loads(fa.render(report, "json"))["verdict"] == "fail"


def test_an_adapter_for_another_base_is_told(tmp_path: Path, adapter: Path) -> None:
    other = write_checkpoint(tmp_path / "other", width=64)
    report = fa.scan(str(adapter), base=str(other))
    assert report.verdict is not Verdict.PASS


def test_a_byte_budget_bounds_what_is_read_and_never_passes(adapter: Path, base: Path) -> None:
    report = fa.scan(str(adapter), base=str(base), max_bytes=2_000, cache=False)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert any("budget of 2,000 bytes" in finding.summary for finding in report.findings)
    generous = fa.scan(str(adapter), base=str(base), max_bytes=10**9)
    assert generous.findings == fa.scan(str(adapter), base=str(base)).findings
    assert generous.artifact.digest == "", "hashing reads everything"


def test_a_time_budget_never_passes(adapter: Path) -> None:
    report = fa.scan(str(adapter), profile="quick", max_seconds=0.0)
    assert report.verdict is Verdict.INCONCLUSIVE
    assert any("time budget" in reason for reason in report.decision.reasons)


def test_a_plan_reads_no_tensor(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ftsec_audit.artifact import Artifact

    monkeypatch.setattr(Artifact, "tensors", lambda self: pytest.fail("a tensor index was asked for"))
    planned = fa.plan(str(adapter), profile="quick", ignore=["FTA2"])
    assert planned.subject.artifact.weight_files
    assert all(not rule.id.startswith("FTA2") for rule in planned.rules)


def test_many_targets_are_scanned_in_order(adapter: Path, base: Path) -> None:
    reports = fa.scan_many([str(adapter), str(base)], profile="quick")
    assert [report.artifact.kind for report in reports] == ["adapter", "checkpoint"]


def test_a_stored_report_can_be_judged_again(adapter: Path) -> None:
    report = fa.scan(str(adapter), no_base=True, policy=fa.Policy(version=1))
    assert report.verdict is Verdict.PASS
    strict = fa.judged(report, fa.Policy.load("strict"))
    assert strict.verdict is Verdict.FAIL
    assert replace(strict, decision=report.decision) == report


def test_every_public_name_exists_and_every_rule_is_explained() -> None:
    for name in fa.__all__:
        assert getattr(fa, name) is not None
        assert name in dir(fa)
    with pytest.raises(AttributeError):
        fa.no_such_name  # noqa: B018
    for rule in fa.rules():
        page = fa.explain(rule.id)
        assert rule.id in page.page
        assert page.references
        assert rule.severity >= Severity.LOW or "never a verdict" in page.page


def test_selection_by_prefix() -> None:
    rules = [rule.id for rule in fa.rules()]
    everything = api.Selection().deselected(rules)
    assert everything == frozenset()
    only = api.Selection(select=("FTA1",), ignore=("FTA103",)).deselected(rules)
    assert "FTA103" in only
    assert "FTA101" not in only
    assert "FTA401" in only or "FTA411" in only


def test_options_made_once_are_the_keywords(adapter: Path) -> None:
    quick = fa.ScanOptions(profile="quick", ignore=["FTA2"])
    assert fa.scan(str(adapter), quick) == fa.scan(str(adapter), profile="quick", ignore=["FTA2"])
    assert fa.scan(str(adapter), quick, ignore=["FTA4"]).rules != fa.scan(str(adapter), quick).rules
    assert set(fa.plan(str(adapter), quick).rules) == set(fa.scan(str(adapter), quick).rules)
    with pytest.raises(TypeError, match="profil"):
        fa.scan(str(adapter), profil="quick")
    assert {"base", "profile", "seed"} < set(inspect.signature(fa.scan).parameters)
