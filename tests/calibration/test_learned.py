"""The two files of a learned score: read as they were written, refused where they do not belong together."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from builders import graphs
from corpus.assemble import field

from ftsec_audit.calibration.bank import SHIPPED_SCORE, Calibration
from ftsec_audit.calibration.learned import LearnedScore, Member, Performance
from ftsec_audit.errors import UsageError
from ftsec_audit.validate.linear_graph import linear_graph

GRAPH = linear_graph(np.array([1.0, 0.0]), np.array([2.0, 1.0]), np.array([3.0, 0.0]), -0.5)


def member(job: str, score: float, *, poisoned: bool = False, x: float = 0.0) -> Member:
    return Member(job=job, poisoned=poisoned, score=score, features=(x, x))


SCORE = LearnedScore(
    name="ours",
    version="3",
    columns=("a", "b"),
    choice="two numbers",
    records="digest",
    families=("llama",),
    bases=("some-llama",),
    performance=tuple(
        Performance(
            left_out=kind, groups=4, auroc=0.8, auroc_interval=(0.7, 0.9), tpr=0.1, tpr_interval=(0.0, 0.3)
        )
        for kind in ("recipe", "attack")
    ),
    members=(
        member("1", 0.9, poisoned=True, x=4.0),
        member("1", 0.1, x=-1.0),
        member("2", 0.2),
        member("2", 0.6, x=1.0),
        member("3", 0.3, x=2.0),
    ),
    graph=GRAPH,
)


@pytest.fixture
def saved(tmp_path):
    SCORE.save(tmp_path / "ours.onnx")
    return tmp_path / "ours.onnx"


def rewritten(path, **changes):
    card = path.with_suffix(".json")
    card.write_text(json.dumps(json.loads(card.read_text()) | changes))
    return path


def test_what_is_read_is_what_was_written(saved):
    assert LearnedScore.load(saved) == SCORE


def test_the_score_is_that_of_the_formula():
    assert SCORE.score({"a": 2.0, "b": 9.0, "c": 5.0}) == pytest.approx(1 / (1 + np.exp(-(3 * 0.5 - 0.5))))


def test_a_job_has_one_vote_in_the_p_value():
    assert SCORE.p_value(0.95) == pytest.approx(1 / 4)
    assert SCORE.p_value(0.5) == pytest.approx((1 + 0.5) / 4)
    assert SCORE.p_value(0.0) == 1.0


def test_what_lies_beyond_the_population_is_told():
    assert SCORE.outside({"a": 1.0, "b": 4.0}) == []
    assert SCORE.outside({"a": 1.0, "b": 5.0}) == [("b", 5.0, -1.0, 4.0)]
    assert SCORE.outside({"a": float("nan"), "b": 0.0})
    assert SCORE.missing({"a": 1.0}) == ["b"]


def test_a_sample_it_was_fitted_on_is_recognised_through_four_digits():
    assert SCORE.is_member({"a": 1.0004, "b": 0.9996})
    assert not SCORE.is_member({"a": 1.01, "b": 1.0})


@pytest.mark.parametrize(
    "graph",
    [
        GRAPH[:-1] + b"\x0e",
        graphs.table_model(outside="/etc/passwd"),
        graphs.graph([graphs.node("Gather", ["a"], ["b"]) + field(7, "evil")], [], [], b""),
        graphs.graph([graphs.node("Neg", ["a"], ["b"])] * 65, [], [], b""),
        b"\xff" * 40,
        b"",
    ],
    ids=["changed", "reads a file", "other operators", "large", "no protobuf", "empty"],
)
def test_a_graph_that_is_not_the_card_s_or_reaches_out_is_refused(saved, graph):
    import hashlib

    changed = graph == GRAPH[:-1] + b"\x0e"
    saved.write_bytes(graph)
    rewritten(saved, **({} if changed else {"sha256": hashlib.sha256(graph).hexdigest()}))
    with pytest.raises(UsageError, match=r"ours\.onnx"):
        LearnedScore.load(saved)


@pytest.mark.parametrize(
    "changes",
    [
        {"schema": 2},
        {"members": []},
        {"columns": ["a"]},
        {"performance": [{}]},
        {"performance": []},
        {"members": [["1", True, 0.5, 0.0, 0.0]]},
        {"members": [["1", True, "x"]]},
    ],
)
def test_a_card_that_is_none_is_refused(saved, changes):
    with pytest.raises(UsageError, match=r"ours\.onnx"):
        LearnedScore.load(rewritten(saved, **changes))


def test_a_card_that_is_nested_without_end_is_refused(saved):
    saved.with_suffix(".json").write_text("[" * 100_000)
    with pytest.raises(UsageError, match=r"ours\.onnx"):
        LearnedScore.load(saved)


def test_a_score_takes_the_place_of_the_shipped_one_and_leaves_the_packs(saved):
    ours, shipped = Calibration.load([saved]), Calibration.load()
    assert ours.learned == SCORE
    assert ours.packs == shipped.packs
    with pytest.raises(UsageError, match="one learned score"):
        Calibration.load([saved, saved])


def test_the_shipped_score_is_small_and_says_what_it_is_worth():
    shipped = LearnedScore.load(SHIPPED_SCORE)
    assert sum(path.stat().st_size for path in SHIPPED_SCORE.parent.iterdir()) < 100_000
    assert {one.left_out for one in shipped.performance} == {"recipe", "attack"}
    assert shipped.benign_jobs >= 50
    for one in shipped.performance:
        assert one.auroc_interval[0] <= one.auroc <= one.auroc_interval[1]


def test_the_card_of_the_shipped_score_agrees_with_its_own_samples():
    from ftsec_audit.validate import curves

    shipped = LearnedScore.load(SHIPPED_SCORE)
    bad = [member.score for member in shipped.members if member.poisoned]
    area = curves.auroc(bad, [member.score for member in shipped.benign])
    assert area == pytest.approx(shipped.left_out("recipe").auroc, abs=1e-4)


def test_scores_with_other_members_are_other_scores():
    assert replace(SCORE, members=SCORE.members[:2]) != SCORE


def test_a_card_that_says_otherwise_judges_otherwise(saved):
    loaded = LearnedScore.load(saved)
    assert loaded.fingerprint == LearnedScore.load(saved).fingerprint == SCORE.fingerprint
    assert replace(loaded, members=loaded.members[:-1]).fingerprint != loaded.fingerprint
    assert replace(loaded, graph=b"other").fingerprint != loaded.fingerprint
