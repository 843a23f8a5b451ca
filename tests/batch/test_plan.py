"""Planning by metadata: what is pinned, merged, ordered, and what a key depends on."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from builders.adapters import write_adapter
from hub_server import Fault, HubServer

from ftsec_audit.batch.plan import BatchPlan, Questions, plan
from ftsec_audit.batch.store import Store
from ftsec_audit.batch.work import ScanWork
from ftsec_audit.errors import UsageError
from ftsec_audit.models_list import Model
from ftsec_audit.scan_options import ScanOptions
from ftsec_audit.sources.connection import Connection
from ftsec_audit.sources.search import HubQuery, search
from ftsec_audit.types import Profile


def planned(*references: str, questions: Questions | None = None) -> BatchPlan:
    return plan([Model(model=reference) for reference in references], questions or Questions())


def test_jobs_are_pinned_and_those_of_one_base_stand_together(hub: HubServer) -> None:
    jobs = planned("org/a0", "org/a1", "org/a2", "org/a3").jobs
    bases = [job.base.partition("@")[0] for job in jobs]
    assert bases == ["hf://org/base-0"] * 2 + ["hf://org/base-1"] * 2
    for job in jobs:
        commit = hub.repositories[job.names[0]].refs["main"].sha
        assert job.reference == f"hf://{job.names[0]}@{commit}"
    assert sum(1 for request in hub.log.of("org/base-0") if "/api/" in request.path) == 1


def test_nothing_but_metadata_is_fetched(hub: HubServer) -> None:
    plan = planned("org/a0", "org/a1")
    assert not [request.path for request in hub.log if "safetensors" in request.path and request.sent]
    weights = sum(Path(f"../a{n}/adapter_model.safetensors").stat().st_size for n in range(2))
    assert plan.bytes > weights


def test_without_a_declared_base_to_look_for_a_plan_costs_one_request_each(hub: HubServer) -> None:
    quick = planned("org/a0", "org/a1", questions=Questions(profile=Profile.QUICK))
    assert len(hub.log) == 2
    commit = hub.repositories["org/a1"].refs["main"].sha
    assert f"hf://org/a1@{commit}" in {job.reference for job in quick.jobs}
    full = planned("org/a0", "org/a1")
    assert {job.size for job in full.jobs} == {job.size for job in quick.jobs}
    single = planned("hf://org/a1@main/adapter_config.json", questions=Questions(profile=Profile.QUICK))
    assert single.jobs[0].reference == f"hf://org/a1@{commit}/adapter_config.json"


def test_what_the_hub_said_travels_to_the_worker_and_is_not_asked_again(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.rename("org/a1", "new/a1")
    quick = Questions(profile=Profile.QUICK)
    jobs = planned("org/a0", "mirror/a0", "org/a1", questions=quick).jobs
    assert not (tmp_path / "hf").exists(), "planning a thousand artifacts writes no thousand files"
    hub.log.clear()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "elsewhere"))  # as on another machine
    work = ScanWork(store=str(tmp_path / "store"), scan=replace(quick.for_scan(), select=("FTA4",)))
    for job in pickle.loads(pickle.dumps(jobs)):
        assert work(job).verdict is not None
    assert not [request.path for request in hub.log if "/api/" in request.path]
    offline = plan([Model(model=name) for name in ("org/a0", "mirror/a0", "org/a1")], quick, offline=True)
    assert {job.key for job in offline.jobs} == {job.key for job in jobs}


def test_the_same_content_is_scanned_once_under_all_its_names(hub: HubServer) -> None:
    commit = hub.repositories["org/a0"].refs["main"].sha
    plan = planned("org/a0", f"org/a0@{commit}", "mirror/a0", "org/a0")
    (job,) = plan.jobs
    assert job.names == ("org/a0", f"org/a0@{commit}", "mirror/a0")
    assert (plan.references, plan.duplicates) == (3, 2)


def test_local_folders_are_known_by_content_wherever_they_lie(tmp_path: Path) -> None:
    first = write_adapter(tmp_path / "one")
    shutil.copytree(first, tmp_path / "two")
    write_adapter(tmp_path / "three", seed=1)
    quick = Questions(profile=Profile.QUICK)
    plan = planned(*(str(tmp_path / name) for name in ("one", "two", "three")), questions=quick)
    assert len(plan.jobs) == 2
    before = {job.names: job.key for job in plan.jobs}
    weights = tmp_path / "three" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    (changed,) = planned(str(tmp_path / "three"), questions=quick).jobs
    assert changed.key != before[(str(tmp_path / "three"),)]


def stack(hub: HubServer, folder: Path, *, scale: float) -> None:
    """`org/stack`: `org/a1` and another adapter of the same base, loaded together."""
    write_adapter(folder / "other", rank=2, seed=7, base_model_name_or_path="org/base-1")
    paths = {"first": folder / "a1", "second": folder / "other"}
    files = {f"{name}/{path.name}": path for name, part in paths.items() for path in part.iterdir()}
    listed = [{"path": "first"}, {"path": "second", "scale": scale}]
    (folder / "stack.json").write_text(json.dumps({"adapters": listed}))
    hub.add("org/stack", {"stack.json": folder / "stack.json", **files})


def test_a_stack_is_one_item_beside_the_adapters_of_its_base(hub: HubServer, tmp_path: Path) -> None:
    stack(hub, tmp_path, scale=0.5)
    jobs = planned("org/a0", "org/stack", "org/a1").jobs
    assert [job.base.partition("@")[0] for job in jobs] == ["hf://org/base-0"] + ["hf://org/base-1"] * 2
    (job,) = (job for job in jobs if job.names == ("org/stack",))
    work = ScanWork(store=str(tmp_path / "store"), scan=ScanOptions(select=("FTA2",)))
    assert work(job).failure is None
    record = Store(work.store).get(job.key)
    assert record is not None
    assert record.report is not None
    assert record.report.artifact.reference.endswith("second × 0.5")
    assert record.report.base is not None
    stack(hub, tmp_path, scale=0.25)
    (changed,) = planned("org/stack").jobs
    assert changed.key != job.key


def test_what_cannot_be_had_does_not_stop_the_plan(hub: HubServer) -> None:
    plan = planned("org/a0", "org/none", "s3://bucket/key", "org/a1@nowhere")
    assert [job.names for job in plan.jobs] == [("org/a0",)]
    assert [one.reference for one in plan.unresolved] == ["org/none", "s3://bucket/key", "org/a1@nowhere"]
    assert "no such repository" in plan.unresolved[0].reason


def test_a_key_changes_with_content_base_and_questions_alone(hub: HubServer, tmp_path: Path) -> None:
    ask = Questions()
    (job,) = planned("org/a0", questions=ask).jobs
    assert planned("org/a0", "org/a1").jobs[0].key == job.key
    others = [
        replace(ask, profile=Profile.QUICK),
        replace(ask, select=("FTA1",)),
        replace(ask, ignore=("FTA1",)),
        replace(ask, no_base=True),
        replace(ask, base="org/base-1"),
        replace(ask, further={"seed": 1}),
    ]
    keys = {planned("org/a0", questions=other).jobs[0].key for other in others} | {job.key}
    assert len(keys) == len(others) + 1
    hub.repositories["org/base-0"].commit({"config.json": b"{}"})
    assert planned("org/a0").jobs[0].key not in keys


def test_a_declared_base_that_is_gone_is_left_to_the_scan_to_explain(hub: HubServer) -> None:
    hub.faults.append(Fault(path="*org/base-0*", status=404))
    assert planned("org/a0").jobs[0].base == ""
    assert planned("org/a0", questions=Questions(base="org/base-0")).jobs[0].base == "org/base-0"


def test_a_base_of_the_reference_lab_is_taken_from_where_the_lab_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTSEC_AUDIT_CACHE", str(tmp_path / "cache"))
    kept = tmp_path / "cache" / "lab" / "lab-test-0123456789ab"
    kept.mkdir(parents=True)
    (kept / "config.json").write_text("{}")
    (kept / "lab.json").write_text("{}")
    sample = write_adapter(tmp_path / "sample", base_model_name_or_path="ftsec-lab/lab-test")
    assert [job.base for job in planned(str(sample)).jobs] == [str(kept)]


def test_questions_that_name_no_rule_are_refused_before_anything_is_asked(hub: HubServer) -> None:
    with pytest.raises(UsageError, match="names no rule"):
        planned("org/a0", questions=Questions(select=("FTB",)))
    assert len(hub.log) == 0


def found(query: HubQuery) -> list[str]:
    return [reference.split("@")[0] for reference in search(Connection.from_environment(), query)]


def test_the_hub_is_searched_by_author_tag_base_and_date(hub: HubServer) -> None:
    hub.models_per_page = 2  # so that pages have to be turned
    tagged = HubQuery(author="org", filters=("peft",))
    assert found(tagged) == ["hf://org/a3", "hf://org/a2", "hf://org/a1", "hf://org/a0"]
    assert found(replace(tagged, limit=3)) == ["hf://org/a3", "hf://org/a2", "hf://org/a1"]
    assert found(HubQuery(base_model="org/base-1")) == ["hf://org/a3", "hf://org/a1"]
    assert found(HubQuery(author="mirror")) == ["hf://mirror/a0"]
    from ftsec_audit.cli.options import day

    assert found(replace(tagged, since=day("2026-02-03"))) == ["hf://org/a3", "hf://org/a2"]


def test_what_a_search_finds_is_pinned_to_what_was_listed(hub: HubServer) -> None:
    (reference,) = search(Connection.from_environment(), HubQuery(author="mirror"))
    assert reference == f"hf://mirror/a0@{hub.repositories['mirror/a0'].refs['main'].sha}"
