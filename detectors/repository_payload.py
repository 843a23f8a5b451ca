"""FTA422 repository-payload: does the repository hold something that has no place in a model?

**Question.** Is there a file that is run without being asked for (`.pth` start-up lines, `sitecustomize`,
editor tasks, git hooks), a native executable or script, a link or a path that leaves the repository,
or a configuration with two answers for one key?

**Why an attacker causes it.** Weights in safetensors are trusted, so the payload travels beside them:
in a hidden folder, under a link to a secret of the host, or in the second of two `"architectures"` of
which a reviewer reads the first and the loader the last.

**How it is measured.** Names, link targets and the first bytes of every file; `weight_map` entries;
JSON keys, with duplicates kept.

**Known false positives.** Shell scripts that a training run left behind are reported as LOW.
**Known evasions.** A payload in a format that nothing runs by itself is out of scope here.
**Cost.** 64 bytes of every file, whole JSON configurations.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from detectors.file_facts import Trait, described
from ftsec_audit.contracts import ArtifactDetector, Subject
from ftsec_audit.errors import FtsecError
from ftsec_audit.files import ArtifactFile
from ftsec_audit.formats import bounded_json
from ftsec_audit.types import NotLookedAt, Observation, Rule, Severity

RULE = Rule(
    id="FTA422",
    name="repository-payload",
    question="Does the repository hold programs, start-up hooks, escaping links or ambiguous settings?",
    severity=Severity.HIGH,
    remediation="Remove the file; a model needs weights, configurations and a tokenizer, nothing that runs.",
)

_EXECUTABLE_MAGIC = {
    b"\x7fELF": "a native Linux program or library",
    b"MZ": "a native Windows program or library",
    b"\xcf\xfa\xed\xfe": "a native macOS program or library",
    b"\xca\xfe\xba\xbe": "a Java class or universal macOS binary",
    b"\x00asm": "a WebAssembly module",
    b"dex\n": "Android bytecode",
}
_RUN_BY_NAME = re.compile(
    r"(^|/)(sitecustomize\.py|usercustomize\.py|\.envrc|\.vscode/tasks\.json|"
    r"\.git/hooks/(?!.*\.sample$)[^/]+|\.devcontainer/[^/]+\.json|\.bashrc|\.profile|\.ssh/[^/]+|"
    r"autorun\.inf)$"
)
_NATIVE_SUFFIXES = frozenset(
    [".exe", ".dll", ".so", ".dylib", ".pyd", ".pyc", ".jar", ".msi", ".scr", ".com", ".lnk"]
)
_SCRIPT_SUFFIXES = frozenset(
    [".sh", ".bash", ".bat", ".cmd", ".ps1", ".vbs", ".hta", ".wsf", ".js", ".applescript"]
)
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")

_JSON = bounded_json.JsonLimits(size=64 << 20, values=6_000_000)
"""The largest tokenizers have some two million values in 35 MB."""


@dataclass(frozen=True, kw_only=True)
class RepositoryPayload(ArtifactDetector):
    """Looks at every file's name, link target and first bytes."""

    rules: ClassVar[tuple[Rule, ...]] = (RULE,)

    head_bytes: int = 4096

    def inspect(self, subject: Subject) -> Iterator[Observation]:
        flagged = False
        for file in subject.artifact.files:
            facts = list(_path_facts(file))
            try:
                facts.extend(self._content_facts(file))
            except FtsecError as error:
                yield NotLookedAt(what=file.path, reason=str(error), incomplete=True)
            if facts:
                flagged = True
                yield described(RULE, file.path, file.path, facts)
        if not flagged:
            yield RULE.not_detected(
                f"{len(subject.artifact.files)} files, none of which runs, escapes or is ambiguous"
            )

    def _content_facts(self, file: ArtifactFile) -> Iterator[Trait]:
        if file.link_target is not None:
            return
        head = file.read(self.head_bytes)
        for magic, what in _EXECUTABLE_MAGIC.items():
            if head.startswith(magic) and (
                magic != b"MZ" or b"PE\0\0" in head or file.suffix in _NATIVE_SUFFIXES
            ):
                yield f"is {what}", head[:16].hex(" "), Severity.HIGH
        if head.startswith(b"#!") and file.suffix != ".py":
            yield "is a script", head[:80].decode("utf-8", "replace"), Severity.LOW
        if file.suffix == ".pth" and (line := _startup_line(head)):
            yield "holds a line that Python runs at every start", line, Severity.CRITICAL
        if file.suffix == ".json":
            yield from _json_facts(file)


def _path_facts(file: ArtifactFile) -> Iterator[Trait]:
    parts = file.path.split("/")
    if file.path.startswith("/") or ".." in parts or "\\" in file.path or re.match(r"[A-Za-z]:", file.path):
        yield "has a path that leaves the repository", file.path, Severity.CRITICAL
    if _UNPRINTABLE.search(file.path):
        yield "has a name with invisible or control characters", file.path, Severity.HIGH
    if file.link_target is not None and _escapes(file.path, file.link_target):
        yield "is a link that leaves the repository", file.link_target, Severity.CRITICAL
    if _RUN_BY_NAME.search(file.path):
        yield "is run by other programs because of its name", file.path, Severity.HIGH
    if file.suffix in _NATIVE_SUFFIXES:
        yield "has the name of a program or library", file.path, Severity.HIGH
    if file.suffix in _SCRIPT_SUFFIXES:
        hidden = any(part.startswith(".") for part in parts)
        yield "is a script", file.path, Severity.HIGH if hidden else Severity.LOW


def _escapes(path: str, target: str) -> bool:
    if target.startswith("/") or re.match(r"[A-Za-z]:|\\\\", target):
        return True
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), target)).startswith("..")


def _startup_line(head: bytes) -> str | None:
    if b"\0" in head:
        return None  # a torch checkpoint with the same suffix
    lines = head.decode("utf-8", "replace").splitlines()
    return next((line for line in lines if line.startswith(("import ", "import\t"))), None)


def _json_facts(file: ArtifactFile) -> Iterator[Trait]:
    document = bounded_json.read(file, limits=_JSON)
    for key in document.repeated[:5]:
        yield "answers one key twice: readers differ in which value they take", key, Severity.HIGH
    content = document.value
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if isinstance(weight_map, dict):
        bad = [name for name in map(str, weight_map.values()) if _leaves(name)]
        for name in list(dict.fromkeys(bad))[:5]:
            yield "names a weight file outside the repository", name, Severity.CRITICAL


def _leaves(name: str) -> bool:
    return name.startswith(("/", "\\", "~")) or ".." in re.split(r"[/\\]", name) or ":" in name
