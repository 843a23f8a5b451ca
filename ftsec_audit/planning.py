"""What a scan would do, from metadata alone: the artifact and its base resolved, detectors chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from ftsec_audit import stacks
from ftsec_audit.contracts import Detector, Subject
from ftsec_audit.errors import UsageError
from ftsec_audit.sources import resolve
from ftsec_audit.types import Profile, Rule

if TYPE_CHECKING:
    from detectors.registry import Entry
    from ftsec_audit.artifact import Artifact
    from ftsec_audit.scan_options import ScanOptions
    from ftsec_audit.sources.transfer import Transfer


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which rules are asked, by prefix: everything, or only `select`, without `ignore`."""

    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def deselected(self, ids: Sequence[str]) -> frozenset[str]:
        """The rules of `ids` that are left out; raises UsageError for a prefix that names no rule."""
        for prefix in (*self.select, *self.ignore):
            if not prefix or not any(id.startswith(prefix) for id in ids):
                raise UsageError(f"{prefix!r} names no rule", hint="ftsec-audit rules lists them")
        return frozenset(
            id
            for id in ids
            if (self.select and not id.startswith(self.select))
            or (self.ignore and id.startswith(self.ignore))
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a scan would do; made from metadata alone."""

    subject: Subject
    detectors: tuple[Detector, ...]
    deselected: frozenset[str]
    profile: Profile
    beyond: Mapping[str, Profile]
    """Rules whose detectors were not even imported: the smallest profile in which each is asked."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules that will be asked."""
        run = (detector for detector in self.detectors if type(detector).profile <= self.profile)
        asked = (rule for detector in run for rule in detector.rules)
        return tuple(rule for rule in asked if rule.id not in self.deselected)


def plan(
    reference: str, options: ScanOptions, entries: Sequence[Entry], transfer: Transfer | None = None
) -> Plan:
    """Resolve, and choose among the detectors of `entries`; raises as `api.plan` does."""
    _check(options)
    profile = Profile(options.profile)
    every_rule = [rule for entry in entries for rule in entry.rules]
    selection = Selection(select=tuple(options.select), ignore=tuple(options.ignore))
    deselected = selection.deselected(every_rule)
    # What is left out of a rule that was deselected is a finding, which takes the rule's own words.
    wanted = [one for one in entries if one.profile <= profile or not deselected.isdisjoint(one.rules)]
    subject = _subject(reference, options, profile, transfer)
    if options.backend == "onnx" and subject.artifact.exported() is None:
        raise UsageError(
            "holds no ONNX graph of a model to be asked",
            where=reference,
            hint="model.onnx or onnx/model.onnx beside config.json; without --backend onnx torch asks it",
        )
    return Plan(
        subject=subject,
        detectors=tuple(entry.load()() for entry in wanted),
        deselected=deselected,
        profile=profile,
        beyond={rule: one.profile for one in entries if one not in wanted for rule in one.rules},
    )


def _check(options: ScanOptions) -> None:
    """Raises UsageError for what cannot be meant; the command line lets no such value through."""
    if options.base and options.no_base:
        raise UsageError("a base and no base are asked for at once", hint="keep one of --base, --no-base")
    if options.profile not in tuple(Profile):
        raise UsageError(f"{options.profile!r} is no profile", hint=f"one of {', '.join(Profile)}")
    if options.backend != "auto":
        from ftsec_audit.session import Backend

        if options.backend not in get_args(Backend):
            raise UsageError(
                f"{options.backend!r} is no backend", hint=f"one of {', '.join(get_args(Backend))}"
            )


def _subject(reference: str, options: ScanOptions, profile: Profile, transfer: Transfer | None) -> Subject:
    access: dict[str, Any] = {
        "token": options.token,
        "offline": options.offline,
        "progress": options.progress,
        "transfer": transfer,
    }
    artifact = _artifact(reference, options, access)
    if profile is Profile.QUICK and not options.base:
        base, reason = None, "the quick profile does not fetch the base"
    else:
        from ftsec_audit.sources.base import resolve_base

        base, reason = resolve_base(artifact, options.base, options.no_base, **access)
    parent = resolve(options.parent, **access) if options.parent else None
    return Subject(artifact=artifact, base=base, base_reason=reason, parent=parent)


def _artifact(reference: str, options: ScanOptions, access: Mapping[str, Any]) -> Artifact:
    """What is audited: with a stack, or of a folder that describes one, its adapters put together."""
    artifact = resolve(reference, **access)
    if not artifact.files:
        raise UsageError("holds no files", where=reference)
    parts = stacks.described(artifact) or (stacks.Part(artifact),)
    further = [stacks.Part(resolve(one.reference, **access), one.scale) for one in options.stack]
    if further or parts[0].artifact is not artifact:
        return stacks.composed([*parts, *further])
    return artifact
