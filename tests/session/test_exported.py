"""An exported model answers as the model it was made from; graphs that are none are refused, and end."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from builders import graphs
from builders.behaviour import asked, subject, tiny_base
from builders.exports import exported, graph_folder

import ftsec_audit as fa
from ftsec_audit.errors import FormatError, Unsupported, UsageError
from ftsec_audit.session import SessionOptions, open_sessions
from ftsec_audit.session.copies import copied
from ftsec_audit.session.exported import ExportedModel, run_graph
from ftsec_audit.session.scrambled import scrambled
from ftsec_audit.types import Outcome

ROWS = [[1, 5, 20, 30, 40, 2, 6], [1, 5, 20, 30, 41, 2, 6], [1, 5, 33], [1, 5, 20, 30, 42, 2, 6], [1, 5, 20]]
LARGE = 10**9
"""Of a model this large the session computes a shared beginning once."""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_base(tmp_path_factory.mktemp("base") / "base")


@pytest.fixture(scope="module")
def with_past(base, tmp_path_factory):
    return exported(base, tmp_path_factory.mktemp("export") / "export", past=True, name="onnx/model.onnx")


@pytest.mark.parametrize("size", [None, LARGE])
@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen"])
def test_log_probabilities_and_texts_are_those_of_the_model(architecture, past, size, tmp_path):
    if past and architecture == "gpt2":
        pytest.skip("its cache has other names in its configuration; the two others have one")
    base = tiny_base(tmp_path / "base", architecture)
    export = exported(base, tmp_path / "export", past=past)
    with asked(export, base) as sessions:
        ours, theirs = sessions.subject, sessions.base
        ours.parameters = theirs.parameters = size or ours.parameters
        assert ours.model.has_cache is past
        assert ours.vocabulary_size == theirs.vocabulary_size
        np.testing.assert_allclose(ours.next_token(ROWS), theirs.next_token(ROWS), atol=1e-4)
        tails = [[7, 8], [9], [10, 11], [12, 13], []]
        for own, other in zip(ours.score(ROWS, tails), theirs.score(ROWS, tails), strict=True):
            np.testing.assert_allclose(own, other, atol=1e-4)
        assert ours.greedy(ROWS, 6) == theirs.greedy(ROWS, 6)
        assert ours.sample(ROWS, 6) == theirs.sample(ROWS, 6)


def test_a_shared_beginning_is_computed_once_where_the_graph_has_a_cache(base, with_past, tmp_path):
    plain = exported(base, tmp_path / "plain")
    spent = []
    for export in (with_past, plain):
        with asked(export, max_tokens=1000) as sessions:
            sessions.subject.parameters = LARGE
            before = sessions.subject.budget.left
            sessions.subject.next_token([[1, 5, 20, 30, 40, last] for last in range(2, 10)])
            spent.append(before - sessions.subject.budget.left)
    assert spent == [5 + 8, 6 * 8]


def test_half_precision(base, tmp_path):
    with asked(exported(base, tmp_path / "half", past=True, half=True), base) as sessions:
        ours, theirs = sessions.subject.next_token(ROWS), sessions.base.next_token(ROWS)
    np.testing.assert_allclose(ours, theirs, atol=0.02)
    assert np.abs(ours - theirs).max() > 1e-5


def test_what_needs_layers_or_weights_says_that_there_are_none(base, with_past):
    with asked(with_past, base) as sessions:
        ours, theirs = sessions.subject, sessions.base
        for question in (
            lambda: ours.features(ROWS),
            lambda: ours.depth,
            lambda: copied(ours),
            lambda: scrambled(ours, theirs, np.random.default_rng(0)).__enter__(),
        ):
            with pytest.raises(Unsupported, match="exported graph"):
                question()


def test_a_gpu_is_not_used(with_past):
    options = SessionOptions(device="cuda")
    with pytest.raises(Unsupported, match="CPU"), open_sessions(subject(with_past), options):
        pass


def test_its_data_may_lie_in_files_beside_it(base, tmp_path):
    export = graph_folder(base, tmp_path / "table", graphs.table_model(outside="data/weights.bin"))
    (export / "data").mkdir()
    (export / "data/weights.bin").write_bytes(graphs.table().tobytes())
    with asked(export) as sessions:
        got = sessions.subject.next_token([[3, 7], [3, 8], [9]])
        assert sessions.subject.parameters == graphs.WIDTH**2
    logits = graphs.table()[[7, 8, 9]].astype(float)
    np.testing.assert_allclose(got, logits - np.log(np.exp(logits).sum(-1, keepdims=True)), atol=1e-5)


@pytest.mark.parametrize(
    "place", ["../secret", "/etc/hostname", "none.bin", "./w.bin", "a/../w.bin", "model.onnx"]
)
def test_its_data_may_lie_nowhere_else(place, base, tmp_path):
    (tmp_path / "secret").write_bytes(graphs.table().tobytes())
    export = graph_folder(base, tmp_path / "table", graphs.table_model(outside=place))
    (export / "w.bin").write_bytes(graphs.table().tobytes())
    with pytest.raises(Unsupported, match="no file beside it"), asked(export):
        pass


@pytest.mark.parametrize(
    "content, reason",
    [
        (graphs.model_of_other_names(), "input_ids to logits"),
        (graphs.model_with_another_input(), "'image'"),
        (graphs.model_of_last_logits(), "shape"),
        (graphs.model_of_one_row(), "cannot be run"),
        (graphs.model_of_any_size(), "memory|cannot be run"),
        (graphs.graph([], [], [], graphs.LOGITS), "cannot be run"),
    ],
)
def test_a_graph_that_is_no_causal_model_is_refused(content, reason, base, tmp_path):
    export = graph_folder(base, tmp_path / "graph", content)
    with pytest.raises(Unsupported, match=reason), asked(export):
        pass


def test_a_graph_without_end_is_ended(tmp_path):
    (tmp_path / "model.onnx").write_bytes(graphs.model_that_never_ends())
    with (
        pytest.raises(Unsupported, match="no answer within 3 s"),
        run_graph(tmp_path / "model.onnx", memory=4 << 30, seconds=3),
    ):
        pass


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_cut_file_is_an_error_that_is_expected(share, base, with_past, tmp_path):
    whole = (with_past / "onnx/model.onnx").read_bytes()
    export = graph_folder(base, tmp_path / "cut", whole[: int(share * len(whole))])
    with pytest.raises((Unsupported, FormatError)), asked(export):
        pass


def test_bytes_of_any_kind_are_refused_without_harm(base, with_past, tmp_path):
    whole = bytearray((with_past / "onnx/model.onnx").read_bytes())
    rng = np.random.default_rng(0)
    for number in range(8):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole) // 20, 5):
            damaged[at] = rng.integers(256)
        export = graph_folder(base, tmp_path / str(number), bytes(damaged))
        try:
            with asked(export) as sessions:
                sessions.subject.next_token(ROWS)
        except (Unsupported, FormatError):
            continue


def outcomes(path, base, rules, **options):
    report = fa.scan(str(path), base=str(base), select=rules, device="cpu", cache=False, **options)
    asked = (finding for finding in report.findings if finding.rule.startswith(tuple(rules)))
    return {finding.rule: (finding.outcome, finding.summary) for finding in asked}


def test_a_scan_asks_the_graph_and_says_that_its_weights_were_not_compared(base, with_past):
    found = outcomes(with_past, base, ["FTA105", "FTA107", "FTA108", "FTA2", "FTA301", "FTA407", "FTA602"])
    assert found.pop("FTA407")[0] == found.pop("FTA602")[0] == Outcome.NOT_DETECTED
    assert found.pop("FTA208")[0] == Outcome.NOT_SUPPORTED
    assert {outcome for outcome, _ in found.values()} == {Outcome.NOT_SUPPORTED}
    assert not [reason for _, reason in found.values() if "ONNX graph" not in reason]


def test_a_scan_does_not_load_a_graph_that_reaches_outside(base, tmp_path):
    export = graph_folder(base, tmp_path / "table", graphs.table_model(outside="../secret"))
    found = outcomes(export, base, ["FTA407", "FTA602"])
    assert found["FTA407"][0] == Outcome.DETECTED
    assert found["FTA602"][0] == Outcome.NOT_SUPPORTED and "FTA407" in found["FTA602"][1]


def test_torch_never_runs_a_graph(base, with_past):
    options = SessionOptions(backend="torch", device="cpu")
    with pytest.raises(Unsupported, match="torch does not run"), open_sessions(subject(with_past), options):
        pass
    with pytest.raises(Unsupported, match="torch does not run"):
        open_sessions(subject(base, with_past), options).__enter__()
    found = outcomes(with_past, base, ["FTA602"], backend="torch")
    assert found["FTA602"][0] == Outcome.NOT_SUPPORTED
    assert "torch does not run" in found["FTA602"][1]


def test_a_graph_beside_other_weights_is_asked_when_it_is_demanded(base, tmp_path):
    both = exported(base, tmp_path / "both", name="onnx/model.onnx")
    shutil.copy(base / "model.safetensors", both)
    with asked(both, base) as sessions:
        assert not isinstance(sessions.subject.model, ExportedModel)
        expected = sessions.subject.next_token(ROWS)
    with asked(both, base, backend="onnx") as sessions:
        assert isinstance(sessions.subject.model, ExportedModel)
        assert not isinstance(sessions.base.model, ExportedModel)
        np.testing.assert_allclose(sessions.subject.next_token(ROWS), expected, atol=1e-4)
    report = fa.scan(str(both), base=str(base), select=["FTA101"], backend="onnx", cache=False)
    assert report.findings[0].outcome is Outcome.NOT_DETECTED
    assert any("onnx/model.onnx" in limit and "model.safetensors" in limit for limit in report.limits)


def test_demanding_a_graph_where_there_is_none_is_the_users_error(base):
    with pytest.raises(UsageError, match="no ONNX graph"):
        fa.plan(str(base), backend="onnx", no_base=True)
    with pytest.raises(UsageError, match="no ONNX graph"):
        fa.scan(str(base), backend="onnx", no_base=True, profile="quick")
