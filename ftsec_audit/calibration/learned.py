"""A score that was fitted to labelled samples: a small ONNX graph, and a card that says what it is worth.

Two files, `NAME.onnx` and `NAME.json`, of which nothing is unpickled. The graph takes `features` (n, p) and
gives `score` (n, 1) in 0..1, float64. The card holds the samples it was fitted on, each with the score of a
fit that had seen nothing of the sample's recipe, so that everything that is said of the score can be
computed again from the card.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ftsec_audit.calibration import conformal
from ftsec_audit.errors import FtsecError, UsageError
from ftsec_audit.files import MemoryBytes
from ftsec_audit.formats import onnx

SCHEMA = 1
_MOST_GRAPH = 1 << 20
_MOST_CARD = 16 << 20
_MOST_OPERATORS = 64
_SAME = 2e-3
"""Relative difference up to which a feature is the same: records keep four digits."""


@dataclass(frozen=True, kw_only=True)
class Performance:
    """How well the score separates samples of which it has seen nothing alike."""

    left_out: str
    """`recipe` or `attack`: what was kept from choice and fit together with the sample."""
    groups: int
    """How many of these there are."""
    auroc: float
    auroc_interval: tuple[float, float]
    tpr: float
    """At 1 % of the benign samples above; with fewer than 100 of them, above them all."""
    tpr_interval: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Member:
    """One sample the score was fitted on."""

    job: str
    """Shared by a sample, its twin and the disguised copies of both: the unit of independence."""
    poisoned: bool
    score: float
    """By a choice and a fit without the sample's recipe."""
    features: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class LearnedScore:
    """A fitted score, its population and what it is worth."""

    name: str
    version: str
    columns: tuple[str, ...]
    """Features in the order in which the graph takes them."""
    choice: str
    """What was selected, in words."""
    records: str
    """SHA-256 of the labelled records."""
    families: tuple[str, ...]
    """Of the bases, as in the strata of calibration packs."""
    bases: tuple[str, ...]
    performance: tuple[Performance, ...]
    members: tuple[Member, ...]
    graph: bytes

    @property
    def id(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def digest(self) -> str:
        """SHA-256 of the graph."""
        return hashlib.sha256(self.graph).hexdigest()

    @property
    def fingerprint(self) -> str:
        """Of graph and card: equal ones judge alike."""
        return hashlib.sha256(repr(self).encode()).hexdigest()

    @property
    def bad(self) -> int:
        return sum(member.poisoned for member in self.members)

    @property
    def benign(self) -> tuple[Member, ...]:
        return tuple(member for member in self.members if not member.poisoned)

    @property
    def benign_jobs(self) -> int:
        return len({member.job for member in self.benign})

    def left_out(self, kind: str) -> Performance:
        return next(one for one in self.performance if one.left_out == kind)

    def missing(self, features: Mapping[str, float]) -> list[str]:
        return [column for column in self.columns if column not in features]

    def is_member(self, features: Mapping[str, float]) -> bool:
        """Whether these are the features of a sample it was fitted on, to within the digits of a record."""
        subject = [features[column] for column in self.columns]
        return any(
            all(
                abs(own - x) <= _SAME * max(abs(own), 1e-6)
                for own, x in zip(m.features, subject, strict=True)
            )
            for m in self.members
        )

    def outside(self, features: Mapping[str, float]) -> list[tuple[str, float, float, float]]:
        """(feature, value, least, most) of every feature beyond all samples of the population."""
        found = []
        for place, column in enumerate(self.columns):
            known = [member.features[place] for member in self.members]
            if not min(known) <= features[column] <= max(known):
                found.append((column, features[column], min(known), max(known)))
        return found

    def score(self, features: Mapping[str, float]) -> float:
        """0..1, larger is more like the known-bad samples; not a probability of anything."""
        import numpy as np

        row = np.array([[features[column] for column in self.columns]])  # (1, p)
        (value,) = self._session.run(["score"], {"features": row})
        return float(value[0, 0])

    def p_value(self, score: float) -> float:
        """Against the benign samples, each scored without its recipe; a job has one vote."""
        benign = self.benign
        return conformal.p_value(score, [m.score for m in benign], [m.job for m in benign])

    @cached_property
    def _session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        return onnxruntime.InferenceSession(self.graph, options, providers=["CPUExecutionProvider"])

    @classmethod
    def load(cls, path: Path) -> LearnedScore:
        """The score of an `.onnx` file and the `.json` beside it. Raises UsageError naming what is wrong."""
        try:
            graph = _bounded(path, _MOST_GRAPH)
            document = json.loads(_bounded(path.with_suffix(".json"), _MOST_CARD))
            _check(graph, document)
            return cls(graph=graph, **_fields(document))
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
            FtsecError,
        ) as error:
            raise UsageError(
                f"is not a learned score ({type(error).__name__}: {error})",
                where=str(path),
                hint="`ftsec-audit learn` writes an .onnx file and a .json file beside it",
            ) from error

    def save(self, path: Path) -> None:
        """Write both files; equal scores give equal bytes."""
        card = {key: value for key, value in asdict(self).items() if key not in ("graph", "members")}
        card = {"schema": SCHEMA, "sha256": self.digest} | card
        card["members"] = [[m.job, m.poisoned, m.score, *m.features] for m in self.members]
        lines = json.dumps(card, ensure_ascii=False, allow_nan=False).replace("], [", "],\n[")
        path.write_bytes(self.graph)
        path.with_suffix(".json").write_text(lines + "\n", encoding="utf-8")


def _bounded(path: Path, most: int) -> bytes:
    if path.stat().st_size > most:
        raise ValueError(f"{path.name} is larger than {most} bytes")
    return path.read_bytes()


def _check(graph: bytes, document: Mapping[str, Any]) -> None:
    """Raises ValueError where the graph is not the card's, or reaches outside itself."""
    if document["schema"] != SCHEMA:
        raise ValueError(f"schema {document['schema']!r}, expected {SCHEMA}")
    if hashlib.sha256(graph).hexdigest() != document["sha256"]:
        raise ValueError("the card states another digest of the graph")
    model = onnx.read(MemoryBytes(graph), fields=10_000)
    if model.external or model.functions or model.python_operators or model.domains - {"", "ai.onnx"}:
        raise ValueError("the graph uses more than its own numbers and standard operators")
    if not model.has_graph or model.operators > _MOST_OPERATORS:
        raise ValueError(f"a graph of 1 to {_MOST_OPERATORS} operators is expected, not of {model.operators}")


def _fields(document: Mapping[str, Any]) -> dict[str, Any]:
    columns = tuple(map(str, document["columns"]))
    members = tuple(
        Member(
            job=str(job), poisoned=bool(poisoned), score=float(score), features=tuple(map(float, features))
        )
        for job, poisoned, score, *features in document["members"]
    )
    if not members or any(len(member.features) != len(columns) for member in members):
        raise ValueError("the card has no samples, or samples of other features")
    if {member.poisoned for member in members} != {True, False}:
        raise ValueError("the card has samples of one label only")
    performance = tuple(_performance(one) for one in document["performance"])
    if not any(one.left_out == "recipe" for one in performance):
        raise ValueError("the card does not say what the score is worth on left-out recipes")
    return {
        **{key: str(document[key]) for key in ("name", "version", "choice", "records")},
        **{key: tuple(map(str, document[key])) for key in ("families", "bases")},
        "columns": columns,
        "members": members,
        "performance": performance,
    }


def _performance(raw: Mapping[str, Any]) -> Performance:
    low, high = map(float, raw["auroc_interval"])
    least, most = map(float, raw["tpr_interval"])
    return Performance(
        left_out=str(raw["left_out"]),
        groups=int(raw["groups"]),
        auroc=float(raw["auroc"]),
        auroc_interval=(low, high),
        tpr=float(raw["tpr"]),
        tpr_interval=(least, most),
    )
