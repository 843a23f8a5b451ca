"""FTA441 tokenizer-tampering: does the tokenizer hand the model other words than the user wrote?

**Question.** Does the tokenizer rewrite words, steal a word of the vocabulary for an added token, give
two tokens one id, make an ordinary word a control token, insert words of its own, or, against the
base's tokenizer, swap ids, change merges or change its rules?

**Why an attacker causes it.** Swapping the ids of "allow" and "deny", or normalising one name into
another, changes what a model does without touching a weight. Checksums of the weights stay the same.

**How it is measured.** `tokenizer.json`, or else `vocab.json` with `merges.txt` or `vocab.txt`, and the
special tokens of `tokenizer_config.json` are read as data. Exact facts only: rewriting rules between words,
ids that occur twice, added tokens whose text the vocabulary already has under another id, and the
difference to the base's tokenizer, id by id.

**Known false positives.** Vocabulary that was extended on purpose appears as new tokens and is not
reported. A tokenizer from another model family differs from the base everywhere: that is reported as
what it is. **Known evasions.** A new vocabulary trained together with a new base. Tokenizers in other forms
(SentencePiece, tiktoken) are not read: the question stays open where there is no other.
**Cost.** Parses `tokenizer.json` (0.1 s for 50k tokens), twice with a base.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from detectors.file_facts import Trait, described
from ftsec_audit.artifact import Artifact
from ftsec_audit.contracts import ArtifactDetector, Subject
from ftsec_audit.errors import FtsecError
from ftsec_audit.files import ArtifactFile
from ftsec_audit.formats import tokenizer_json
from ftsec_audit.formats.tokenizer_json import Tokenizer
from ftsec_audit.types import NotLookedAt, Observation, Rule, Severity

RULE = Rule(
    id="FTA441",
    name="tokenizer-tampering",
    question="Does the tokenizer turn the user's words into other words?",
    severity=Severity.HIGH,
    remediation="Use the tokenizer of the base model.",
)

_OTHER_FORMS = re.compile(r"(tokenizer|spiece|sentencepiece(\.bpe)?)\.model|tekken\.json|.*\.tiktoken")
_READ_FORMS = ("tokenizer.json", "vocab.json", "vocab.txt")
_SPACE_MARKS = ("▁", "Ġ", " ")


@dataclass(frozen=True, kw_only=True)
class TokenizerTampering(ArtifactDetector):
    """Reads the tokenizer as data, alone and against the base's."""

    rules: ClassVar[tuple[Rule, ...]] = (RULE,)

    examples: int = 5
    few_ids: int = 64
    """At most that many moved ids count as a swap; more is another tokenizer altogether."""

    def inspect(self, subject: Subject) -> Iterator[Observation]:
        traits: list[Trait] = []
        gaps = list(_not_read(subject.artifact))
        tokenizer = None
        try:
            tokenizer = tokenizer_json.read(subject.artifact)
            if tokenizer is not None:
                traits += _own_facts(tokenizer)
                traits += self._differences(tokenizer, subject.base)
        except FtsecError as error:
            gaps.append(NotLookedAt(what="tokenizer", reason=str(error), incomplete=True))
        for file in _special_files(subject.artifact):
            try:
                traits += _special_facts(file, tokenizer)
            except FtsecError as error:
                gaps.append(NotLookedAt(what=file.path, reason=str(error), incomplete=True))
        yield from gaps
        unread = [gap for gap in gaps if gap.incomplete]
        if traits:
            place = tokenizer.file if tokenizer else "tokenizer_config.json"
            yield described(RULE, "the tokenizer", place, traits)
        elif unread:
            yield RULE.not_supported(f"cannot be read: {unread[0].what}: {unread[0].reason}")
        elif tokenizer is None:
            yield RULE.not_applicable("the artifact has no tokenizer")
        else:
            against = (
                "and differs from the base's in nothing" if subject.base else "(no base tokenizer to compare)"
            )
            yield RULE.not_detected(f"{len(tokenizer.vocabulary):,} tokens, consistent {against}")

    def _differences(self, tokenizer: Tokenizer, base: Artifact | None) -> Iterator[Trait]:
        reference = tokenizer_json.read(base) if base is not None else None
        if reference is None:
            return
        shared = tokenizer.vocabulary.keys() & reference.vocabulary.keys()
        moved = [text for text in shared if tokenizer.vocabulary[text] != reference.vocabulary[text]]
        if moved:
            shown = ", ".join(
                f"{text!r}: {reference.vocabulary[text]} → {tokenizer.vocabulary[text]}"
                for text in sorted(moved)[: self.examples]
            )
            exact = len(moved) <= self.few_ids
            message = "gives tokens of the base other ids" if exact else "is another one than the base's"
            yield f"{message} ({len(moved):,} tokens)", shown, Severity.HIGH if exact else Severity.MEDIUM
            if not exact:
                return
        gone = sorted(reference.vocabulary.keys() - tokenizer.vocabulary.keys())
        if gone:
            yield f"lacks {len(gone):,} tokens of the base", repr(gone[: self.examples]), Severity.HIGH
        if tokenizer.merges != reference.merges:
            changed = set(tokenizer.merges) ^ set(reference.merges)
            what = repr(sorted(changed)[: self.examples]) if changed else "their order"
            yield "joins letters in other ways than the base's (merges)", what, Severity.HIGH
        for part, value in tokenizer.pipeline.items():
            if value != reference.pipeline.get(part):
                severity = Severity.MEDIUM if part == "post_processor" else Severity.HIGH
                yield f"has another {part} than the base's", repr(value)[:200], severity


def _own_facts(tokenizer: Tokenizer) -> Iterator[Trait]:
    for part in ("normalizer", "decoder"):
        for step in tokenizer.steps(part):
            if rewriting := _rewrites_words(step):
                yield f"rewrites words in its {part}", rewriting, Severity.HIGH
    yield from _shared_ids(tokenizer)
    yield from _shadowed(tokenizer)
    yield from _inserted(tokenizer)


def _rewrites_words(step: object) -> str | None:
    """`old → new` when a step replaces or prepends something with letters, None for blanks and quotes."""
    if not isinstance(step, dict):
        return None
    content = step.get("content", step.get("prepend"))
    if step.get("type") == "Prepend" and isinstance(content, str) and re.search(r"\w{2}", content.strip("▁")):
        return f"prepends {content!r}"
    if step.get("type") != "Replace" or not isinstance(content, str):
        return None
    pattern = step.get("pattern")
    old = next((v for v in pattern.values() if isinstance(v, str)), "") if isinstance(pattern, dict) else ""
    letters = re.sub(r"\\.", "", old)  # escapes of a regular expression are classes, not letters
    if re.search(r"[^\W_]{2}", letters) or re.search(r"[^\W_]", content):
        return f"{old!r} → {content!r}"
    return None


def _shared_ids(tokenizer: Tokenizer) -> Iterator[Trait]:
    counts = Counter(tokenizer.vocabulary.values())
    twice = [number for number, count in counts.items() if count > 1]
    for number in sorted(twice)[:5]:
        texts = [text for text, value in tokenizer.vocabulary.items() if value == number]
        yield "gives two tokens one id", f"{number}: {texts!r}", Severity.HIGH
    for added in tokenizer.added:
        own = tokenizer.vocabulary.get(added.content)
        if own is None and added.id in counts:
            taken = tokenizer.string_of_model(added.id)
            yield (
                "puts an added token on the id of another",
                f"{added.id}: {taken!r}, {added.content!r}",
                Severity.HIGH,
            )


def _shadowed(tokenizer: Tokenizer) -> Iterator[Trait]:
    """Added tokens that take a word away from the vocabulary."""
    for added in tokenizer.added:
        word = added.content.strip(" ▁Ġ")
        if not re.fullmatch(r"[^\W\d_]{2,}", word):
            continue
        known = {tokenizer.vocabulary.get(mark + word) for mark in ("", *_SPACE_MARKS)} - {None}
        if known and added.id not in known:
            yield "takes a word away from the vocabulary", f"{added.content!r} is {added.id}", Severity.HIGH


def _inserted(tokenizer: Tokenizer) -> Iterator[Trait]:
    special = {added.content for added in tokenizer.added}
    for step in tokenizer.steps("post_processor"):
        table = step.get("special_tokens")
        for key in table if isinstance(table, dict) else ():
            if key not in special and re.fullmatch(r"[▁Ġ ]?[^\W_]{2,}", str(key)):
                yield "inserts a word into every text", str(key), Severity.HIGH


def _not_read(artifact: Artifact) -> Iterator[NotLookedAt]:
    """Tokenizers in other forms, and those of further folders: they count where there is no other."""
    has_own = any(file.name in _READ_FORMS for file in artifact.files)
    for file in artifact.files:
        if _OTHER_FORMS.fullmatch(file.name):
            reason = "a tokenizer in a form that is not read"
            reason += ", beside one that loaders prefer" if has_own else ""
            yield NotLookedAt(what=file.path, reason=reason, incomplete=not has_own)
    for file in tokenizer_json.further(artifact):
        yield NotLookedAt(what=file.path, reason="a further tokenizer; the uppermost one was judged")


def _special_files(artifact: Artifact) -> Iterator[ArtifactFile]:
    for file in artifact.files:
        if file.name in ("tokenizer_config.json", "special_tokens_map.json") and not file.link_target:
            yield file


def _special_facts(file: ArtifactFile, tokenizer: Tokenizer | None) -> Iterator[Trait]:
    for role, text in tokenizer_json.special_tokens(file).items():
        in_vocabulary = tokenizer is not None and text in tokenizer.vocabulary
        if in_vocabulary and re.fullmatch(r"[▁Ġ ]?[^\W\d_]{2,}", text):
            yield f"makes an ordinary word its {role}", repr(text), Severity.HIGH
    if tokenizer is not None:
        yield from _contradictions(tokenizer, tokenizer_json.declared_tokens(file))


def _contradictions(tokenizer: Tokenizer, declared: dict[int, str]) -> Iterator[Trait]:
    added = {entry.id: entry.content for entry in tokenizer.added}
    for number, text in sorted(declared.items()):
        if number in added and added[number] != text:
            what = f"{number}: {added[number]!r} against {text!r}"
            yield "contradicts tokenizer_config.json about an added token", what, Severity.HIGH
