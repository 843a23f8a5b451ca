"""What a scan tells an MLflow registry: tags on the version, and an alias that only a PASS may have."""

from __future__ import annotations

from ftsec_audit.cli import clock, terminal
from ftsec_audit.errors import UsageError
from ftsec_audit.types import Report, Verdict


def check(target: str) -> None:
    """Raises UsageError for a target that no registry knows, before anything is scanned."""
    from ftsec_audit.sources.references import MlflowReference, parse

    if not isinstance(parse(target), MlflowReference):
        raise UsageError(
            "is no version in a registry, it has no tags and no alias",
            where=target,
            hint="write models:/name/3, or leave out --mlflow-tags and --mlflow-alias",
        )


def record(report: Report, alias: str | None) -> None:
    """Tag the scanned version, then move the alias to it if the policy passed; raises SourceError."""
    from ftsec_audit.report.mlflow_tags import tags
    from ftsec_audit.sources.mlflow_registry import ModelVersion, Registry
    from ftsec_audit.sources.references import MlflowReference, parse

    scanned = parse(report.artifact.resolved)
    assert isinstance(scanned, MlflowReference)
    registry = Registry.from_environment()
    version = ModelVersion(name=scanned.name, version=scanned.version)
    registry.tag(version, tags(report, at=clock.now()))
    if alias is None:
        return
    if report.verdict is Verdict.PASS:
        registry.point(alias, version)
        terminal.remark(f"{version}: {alias} now means this version")
    elif alias in registry.aliases(version):
        terminal.complain(f"{version}: did not pass, and {alias} means this version already")
    else:
        terminal.remark(f"{version}: {alias} was not moved, the verdict is {report.verdict.upper()}")
