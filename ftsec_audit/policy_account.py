"""A policy clause by clause: what each says, on which line of its file, and what it made of a report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from ftsec_audit import user_yaml
from ftsec_audit.policy import Policy
from ftsec_audit.types import Decision, Rule

Location = tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True)
class ClauseAccount:
    """One clause of a policy, or one of the laws that hold in every policy."""

    clause: str
    """As reasons name it, `fail[0]`; or `incomplete` and `no clause`, which no file needs to say."""
    says: str
    location: Location = ()
    rules: tuple[str, ...] = field(default=())
    """The rule prefixes it names, if it names any."""


def clauses(policy: Policy) -> Iterator[ClauseAccount]:
    """What the policy says, in the order in which it is judged."""
    for number, clause in enumerate(policy.fail):
        yield ClauseAccount(
            clause=f"fail[{number}]",
            says=f"a finding with {clause} makes the verdict FAIL",
            location=("fail", number),
            rules=clause.rules,
        )
    yield from _provenance(policy)
    yield from _requirements(policy)
    for number, clause in enumerate(policy.warn):
        yield ClauseAccount(
            clause=f"warn[{number}]",
            says=f"a finding with {clause} is a warning, and passes",
            location=("warn", number),
            rules=clause.rules,
        )
    for number, override in enumerate(policy.overrides):
        yield ClauseAccount(
            clause=f"overrides[{number}]",
            says=f"{override.rule} counts as {override.severity}: {override.reason}",
            location=("overrides", number),
            rules=(override.rule,),
        )
    for number, waiver in enumerate(policy.waivers):
        where = "" if waiver.artifact == "*" else f" in {waiver.artifact}"
        yield ClauseAccount(
            clause=f"waivers[{number}]",
            says=f"{waiver.id}{where} is accepted until {waiver.expired_at}: {waiver.statement}",
            location=("waivers", number),
            rules=(waiver.id,),
        )
    yield ClauseAccount(clause="no clause", says="any other finding passes without a warning")


def _provenance(policy: Policy) -> Iterator[ClauseAccount]:
    if policy.provenance.allowed_formats:
        names = ", ".join(policy.provenance.allowed_formats)
        yield ClauseAccount(
            clause="provenance.allowed_formats",
            says=f"weights that are not {names} make the verdict FAIL",
            location=("provenance", "allowed_formats"),
        )
    if policy.provenance.pinned_revision:
        yield ClauseAccount(
            clause="provenance.pinned_revision",
            says="a remote reference without a full commit makes the verdict FAIL",
            location=("provenance", "pinned_revision"),
        )


def _requirements(policy: Policy) -> Iterator[ClauseAccount]:
    verdict = policy.on_inconclusive.upper()
    for number, requirement in enumerate(policy.require):
        when = f" {requirement.when}" if requirement.when else ""
        yield ClauseAccount(
            clause=f"require[{number}]",
            says=f"a rule of {requirement.rules} without an answer{when} makes the verdict {verdict}",
            location=("require", number),
            rules=(requirement.rules,),
        )
    yield ClauseAccount(
        clause="incomplete", says=f"what could not be read whole makes the verdict {verdict}; always so"
    )


def made_of(account: ClauseAccount, decision: Decision) -> tuple[str, ...]:
    """What a clause made of a report: the reasons of the decision that name it, without its name."""
    found = []
    for reason in decision.reasons:
        name, _, text = reason.partition(": ")
        if name == account.clause or name.startswith(f"{account.clause} ("):
            found.append(text)
    return tuple(found)


def lines(source: str | Path) -> dict[str, int]:
    """The line of each clause in the file of a policy, by the clause's name."""
    path = Policy.path_of(source)
    text = user_yaml.text_of(path)
    accounts = clauses(Policy.load(source))
    return {a.clause: user_yaml.line_of(text, a.location) for a in accounts if a.location}


def unknown_rules(policy: Policy, known: Iterable[Rule]) -> Iterator[ClauseAccount]:
    """The clauses that name a rule which no detector has: they would never match, or never be answered."""
    ids = [rule.id for rule in known]
    for account in clauses(policy):
        if any(not any(id.startswith(prefix) for id in ids) for prefix in account.rules):
            yield account


def expired(policy: Policy, today: date) -> Iterator[str]:
    """The names of the waivers that have no effect any more."""
    return (f"waivers[{n}]" for n, waiver in enumerate(policy.waivers) if not waiver.holds(today))
