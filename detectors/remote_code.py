"""FTA421 remote-code: does loading the model run code that the repository brought along?

**Question.** Does a configuration name Python code to be imported from this repository or another one
(`auto_map`, `custom_pipelines`, a custom attention kernel, `trust_remote_code`, a module of
sentence-transformers), or is there a file that a serving program runs by its name (`handler.py`,
`custom_generate/generate.py`)?

**Why an attacker causes it.** Such code runs with the rights of whoever loads the model. The switch
`trust_remote_code` is the only guard, and it has failed (CVE-2025-66448: vLLM followed `auto_map`
although it was off); a reference to *another* repository can change after every review of this one.

**How it is measured.** All JSON configurations are read (bounded), every key that a loader turns into
an import is compared with the form it should have; Python files are parsed, never imported, and
searched for calls that start programs, open connections or run text as code. Such a call counts where
importing the file makes it, or where a loader takes the file by its name. JSON above `json_bytes`
(vocabularies, shard lists) is parsed only where one of the keys occurs in it, or letters written as
escapes; what cannot be read, or is larger than the bounds, leaves the verdict open.

**Known false positives.** Honest architectures that live outside `transformers` need `auto_map`; the
finding says so by its severity HIGH instead of CRITICAL. Pin the revision and suppress it once reviewed.
**Known evasions.** Code reached through an installed package that the loader trusts.
**Cost.** Reads JSON and Python files once.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from ftsec_audit.contracts import ArtifactDetector, Subject
from ftsec_audit.errors import BudgetExceeded, FormatError, FtsecError
from ftsec_audit.files import ArtifactFile, blocks
from ftsec_audit.formats import bounded_json
from ftsec_audit.types import Confidence, Evidence, Location, NotLookedAt, Observation, Rule, Severity

RULE = Rule(
    id="FTA421",
    name="remote-code",
    question="Does loading or serving the model run code from a repository?",
    severity=Severity.HIGH,
    remediation="Read the code, pin the revision, or use the architecture built into the library.",
)

_ENTRY_FILES = re.compile(r"(^|/)(handler\.py|custom_generate/[^/]+\.py|pipeline\.py)$")
_LOADED_FILES = re.compile(
    r"(^|/)(modeling|configuration|tokenization|processing|image_processing)_[^/]*\.py$"
)
"""Names under which loaders look for an architecture's code."""
_TRUSTED_MODULES = ("sentence_transformers.", "transformers.", "torch.nn.")
_DANGEROUS_CALLS = re.compile(
    r"^(os\.(system|popen|exec\w*|spawn\w*|remove|unlink)|subprocess\.\w+|pty\.\w+|socket\.\w+|ctypes\.\w+|"
    r"eval|exec|compile|__import__|importlib\.import_module|marshal\.loads|pickle\.loads?|"
    r"urllib\.request\.\w+|requests\.(get|post|put)|http\.client\.\w+|shutil\.rmtree|builtins\.\w+)$"
)
_TELLTALE = re.compile(
    rb"auto_map|custom_pipelines|trust_remote_code|attn_implementation|custom_generate|\"path\"|\\u00[4-7]"
)
"""What large JSON must contain to be of interest: a key that `_imports` knows, or letters as escapes."""
_LONGEST_TELLTALE = 32
_JSON = bounded_json.JsonLimits(size=64 << 20, values=6_000_000)


@dataclass(frozen=True, kw_only=True)
class RemoteCode(ArtifactDetector):
    """Reads configurations for imports and Python files for what they would do."""

    rules: ClassVar[tuple[Rule, ...]] = (RULE,)

    json_bytes: int = 4 << 20
    python_bytes: int = 2 << 20
    depth: int = 6
    """How deep inside a configuration keys are looked at."""

    def inspect(self, subject: Subject) -> Iterator[Observation]:
        flagged, gaps = False, 0
        names = {file.path for file in subject.artifact.files}
        for file in subject.artifact.files:
            try:
                evidence = list(self._judge(file, names))
            except FtsecError as error:
                gaps += 1
                yield NotLookedAt(what=file.path, reason=str(error), incomplete=True)
                continue
            if evidence:
                flagged = True
                critical = any(item.details.get("critical") for item in evidence)
                yield RULE.detected(
                    f"{file.path}: {evidence[0].message}",
                    confidence=Confidence.HIGH,
                    severity=Severity.CRITICAL if critical else Severity.HIGH,
                    evidence=evidence,
                )
        if not flagged and gaps:
            yield RULE.not_supported(f"{gaps} files could not be searched for code")
        elif not flagged:
            yield RULE.not_detected("no configuration names code to import and no file is run by its name")

    def _judge(self, file: ArtifactFile, names: set[str]) -> Iterator[Evidence]:
        """What is wrong with one file; raises FtsecError when it cannot be told."""
        if file.link_target is not None:
            return
        if file.suffix == ".json":
            if file.size <= self.json_bytes or _mentions_code(file):
                content = bounded_json.read(file, limits=_JSON).value
                facts = _imports(content, names, self.depth)
                yield from (_evidence(Location(file=file.path), *fact) for fact in facts)
        elif file.suffix == ".py":
            yield from self._judge_python(file)

    def _judge_python(self, file: ArtifactFile) -> Iterator[Evidence]:
        if file.size > self.python_bytes:
            limit = f"the limit is {self.python_bytes:,}"
            raise BudgetExceeded(f"{file.size:,} bytes of Python, {limit}", where=file.path)
        is_entry = bool(_ENTRY_FILES.search(file.path))
        is_loaded = is_entry or bool(_LOADED_FILES.search(file.path))
        source = file.read(self.python_bytes)
        if is_loaded and _parsed(source) is None:
            raise FormatError("a loader takes it as Python, and it cannot be parsed", where=file.path)
        calls = dangerous_calls(source)
        if is_entry:
            yield _evidence(
                Location(file=file.path),
                "a serving program runs this file by its name",
                file.name,
                bool(calls),
            )
        for call in calls:
            # A function of a script that nothing loads runs only if somebody decides to run it.
            if call.at_import or is_loaded:
                yield _evidence(
                    Location(file=file.path, line=call.line), f"calls {call.name}", call.name, True
                )


def _mentions_code(file: ArtifactFile) -> bool:
    reader, tail = file.open(), b""
    for block in blocks(reader):
        if _TELLTALE.search(tail + block):
            return True
        tail = block[-_LONGEST_TELLTALE:]
    return False


@dataclass(frozen=True)
class DangerousCall:
    """A call in Python source that starts a program, connects, or runs text as code."""

    name: str
    line: int
    at_import: bool
    """Whether importing the file is enough to make the call."""


def dangerous_calls(source: bytes) -> list[DangerousCall]:
    """The dangerous calls of a file, parsed and never imported; nothing for what is not Python."""
    tree = _parsed(source)
    if tree is None:
        return []
    calls = list(_calls(tree))
    functions = {node.name for node in ast.walk(tree) if isinstance(node, _FUNCTIONS)}
    # Which function calls which is not followed: one of them called on import stands for all.
    runs_functions = any(at_import and _dotted(node.func) in functions for node, at_import in calls)
    found = [
        DangerousCall(name, node.lineno, at_import or runs_functions)
        for node, at_import in calls
        if _DANGEROUS_CALLS.match(name := _dotted(node.func))
    ]
    return sorted(found, key=lambda call: call.line)[:20]


def _parsed(source: bytes) -> ast.Module | None:
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def _calls(tree: ast.Module) -> Iterator[tuple[ast.Call, bool]]:
    """Every call, and whether it stands where importing the module executes it."""
    stack: list[tuple[ast.AST, bool]] = [(tree, True)]
    while stack:
        node, at_import = stack.pop()
        if isinstance(node, ast.Call):
            yield node, at_import
        is_guard = isinstance(node, ast.If) and "__name__" in ast.dump(node.test)
        body = node.body if isinstance(node, (*_FUNCTIONS, ast.If)) else []
        deferred = set(map(id, body if is_guard or isinstance(node, _FUNCTIONS) else []))
        for child in ast.iter_child_nodes(node):
            stack.append((child, at_import and id(child) not in deferred))


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return ""


def _evidence(where: Location, message: str, excerpt: str, critical: bool) -> Evidence:
    return Evidence(message=message, location=where, excerpt=excerpt[:200], details={"critical": critical})


def _imports(content: object, names: set[str], depth: int) -> Iterator[tuple[str, str, bool]]:
    """(message, excerpt, critical) for every value that a loader would turn into an import."""
    if depth == 0:
        return
    if isinstance(content, list):
        for item in content:
            yield from _imports(item, names, depth - 1)
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        if key in ("auto_map", "custom_pipelines"):
            for reference in _strings(value):
                yield _class_reference(str(key), reference, names)
        elif key == "trust_remote_code" and value is True:
            yield "asks the loader to trust remote code", "trust_remote_code: true", True
        elif key in ("attn_implementation", "_attn_implementation") and "/" in str(value):
            yield "loads an attention kernel, compiled code, from another repository", str(value), True
        elif key == "custom_generate" and isinstance(value, str):
            yield "names a generation loop to be downloaded and run", value, True
        elif key == "type" and "path" in content and _is_foreign_module(value):
            yield "names a module class outside the library", str(value), False
        else:
            yield from _imports(value, names, depth - 1)


def _is_foreign_module(value: object) -> bool:
    return isinstance(value, str) and "." in value and not value.startswith(_TRUSTED_MODULES)


def _class_reference(key: str, reference: str, names: set[str]) -> tuple[str, str, bool]:
    repository, _, local = reference.rpartition("--")
    if ".." in reference or reference.startswith(("/", "\\")) or "://" in reference:
        return f"{key} leaves the repository", reference, True
    if repository:
        return f"{key} imports code from another repository", reference, True
    module = local.rsplit(".", 1)[0].replace(".", "/") + ".py"
    state = "which is here" if module in names else "which is not among the files"
    return f"{key} imports {module}, {state}", reference, False


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
