"""FTA431 peft-config-trap: does `adapter_config.json` make the loader do more than load an adapter?

**Question.** Does the adapter's configuration import a module, read a pickle, fetch a tokenizer or a
base from a place of its own choosing, hang the loader on a regular expression, or ask for absurd sizes?

**Why an attacker causes it.** `PeftModel.from_pretrained` trusts this file: `auto_mapping.parent_library`
and `megatron_core` go to `importlib`, `cache_file` of the initialisation methods to `torch.load`,
`tokenizer_kwargs` to a tokenizer loader with `trust_remote_code`, `target_modules` to `re.fullmatch`
against every module of the base.

**How it is measured.** Every key that PEFT turns into an action is compared with the form it has in
honest adapters. Regular expressions are tried, on strings derived from them, in a child process with a
CPU limit.

**Known false positives.** A base named by a path of the author's machine is common and LOW.
**Known evasions.** Keys of PEFT releases that do not exist yet.
**Cost.** One small file; a child process only for patterns that repeat a repetition.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from detectors.file_facts import Trait, described
from ftsec_audit.contracts import ArtifactDetector, Subject
from ftsec_audit.errors import FtsecError
from ftsec_audit.formats import bounded_json
from ftsec_audit.types import NotLookedAt, Observation, Rule, Severity

RULE = Rule(
    id="FTA431",
    name="peft-config-trap",
    question="Does the adapter's configuration make the loader import, fetch, unpickle or hang?",
    severity=Severity.HIGH,
    remediation="Reset the key to its default; load the adapter with a configuration you wrote yourself.",
)

_TRUSTED_LIBRARIES = re.compile(
    r"^(transformers(?!_modules)(\.models\.\w+\.\w+|\.\w+)*|peft(\.\w+)*|diffusers(\.\w+)*|torch\.nn(\.\w+)*|"
    r"sentence_transformers(\.\w+)*|unsloth(\.\w+)*|trl(\.\w+)*|__main__)$"
)
_PICKLE_KEYS = frozenset(["cache_file", "covariance_file", "checkpoint_path", "init_weights_file"])
_PATTERN_KEYS = ("target_modules", "exclude_modules", "layers_pattern", "target_parameters")
_PATTERN_MAPS = ("rank_pattern", "alpha_pattern")
_SIZE_KEYS = {"r": 1 << 16, "num_virtual_tokens": 1 << 20, "num_layers": 1 << 16, "token_dim": 1 << 24}
_REPLICAS = 10_000


@dataclass(frozen=True, kw_only=True)
class PeftConfigTrap(ArtifactDetector):
    """Reads every `adapter_config.json` of the artifact."""

    rules: ClassVar[tuple[Rule, ...]] = (RULE,)

    def inspect(self, subject: Subject) -> Iterator[Observation]:
        files = [file for file in subject.artifact.files if file.name == "adapter_config.json"]
        if not files:
            yield RULE.not_applicable("the artifact has no adapter_config.json")
            return
        flagged = False
        for file in files:
            try:
                content = bounded_json.read(file).value
            except FtsecError as error:
                yield NotLookedAt(what=file.path, reason=str(error), incomplete=True)
                continue
            facts = list(_facts(content))
            if facts:
                flagged = True
                yield described(RULE, file.path, file.path, facts)
        if not flagged:
            yield RULE.not_detected("no key of the adapter's configuration does more than describe it")


def _facts(content: object) -> Iterator[Trait]:
    if not isinstance(content, dict):
        yield "is not a JSON object", type(content).__name__, Severity.MEDIUM
        return
    yield from _imports(content)
    yield from _fetches(content)
    yield from _sizes(content)
    yield from _patterns(content)


def _imports(content: dict[str, object]) -> Iterator[Trait]:
    mapping = content.get("auto_mapping")
    library = mapping.get("parent_library") if isinstance(mapping, dict) else None
    if library is not None and not _TRUSTED_LIBRARIES.match(str(library)):
        yield "has the loader import a module by name", f"parent_library: {library}", Severity.CRITICAL
    core = content.get("megatron_core")
    if core is not None and not re.fullmatch(r"megatron(\.\w+)*", str(core)):
        yield "has the loader import a module by name", f"megatron_core: {core}", Severity.CRITICAL


def _fetches(content: dict[str, object]) -> Iterator[Trait]:
    for key, value in _items(content):
        if key in _PICKLE_KEYS and isinstance(value, str) and value:
            yield "has the loader unpickle a file", f"{key}: {value}", Severity.CRITICAL
        if key == "trust_remote_code" and value is True:
            yield "asks the loader to trust remote code", "trust_remote_code: true", Severity.CRITICAL
    base = content.get("base_model_name_or_path")
    for key, value in (("base_model_name_or_path", base), ("tokenizer_name_or_path", None)):
        name = content.get(key) if value is None else value
        if isinstance(name, str) and (place := _place(name)):
            yield f"names {place[0]} in {key}", name, place[1]
    tokenizer = content.get("tokenizer_name_or_path")
    if isinstance(tokenizer, str) and tokenizer and isinstance(base, str) and tokenizer != base:
        yield "takes its tokenizer from another repository than its base", tokenizer, Severity.MEDIUM


def _place(name: str) -> tuple[str, Severity] | None:
    if re.match(r"[A-Za-z][\w+.-]+://", name) or name.startswith(("\\\\", "//")):
        return "a network address", Severity.HIGH
    if ".." in re.split(r"[/\\]", name):
        return "a path that climbs out of its folder", Severity.HIGH
    if re.match(r"[A-Za-z]:[/\\]|[/\\~]|\./", name) or "\\" in name:
        return "a path of the author's machine", Severity.LOW
    return None


def _items(content: object, depth: int = 6) -> Iterator[tuple[str, object]]:
    if isinstance(content, dict) and depth:
        for key, value in content.items():
            yield str(key), value
            yield from _items(value, depth - 1)


def _sizes(content: dict[str, object]) -> Iterator[Trait]:
    for key, limit in _SIZE_KEYS.items():
        value = content.get(key)
        if isinstance(value, (int, float)) and value > limit:
            yield "asks for a size that can only exhaust memory", f"{key}: {value:g}", Severity.HIGH
    replication = content.get("layer_replication")
    if isinstance(replication, list):
        spans = [pair for pair in replication if isinstance(pair, list) and len(pair) == 2]
        total = sum(abs(b - a) for a, b in spans if isinstance(a, int) and isinstance(b, int))
        if total > _REPLICAS:
            yield "replicates layers without end", f"layer_replication: {total} layers", Severity.HIGH


def _patterns(content: dict[str, object]) -> Iterator[Trait]:
    from ftsec_audit.formats.regex_cost import catastrophic

    patterns = [(key, content.get(key)) for key in _PATTERN_KEYS]
    for key in _PATTERN_MAPS:
        if isinstance(by_pattern := content.get(key), dict):
            patterns.extend((key, pattern) for pattern in by_pattern)
    for key, pattern in patterns:
        if isinstance(pattern, str) and (culprit := catastrophic(pattern)):
            yield (
                f"has a regular expression in {key} that hangs or fails: {culprit!r:.80}",
                pattern,
                Severity.HIGH,
            )
