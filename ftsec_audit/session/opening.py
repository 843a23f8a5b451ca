"""Subject and base of an audit, opened in one process and closed again."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ftsec_audit import probes
from ftsec_audit.artifact import Artifact, ArtifactKind
from ftsec_audit.contracts import Progress, Subject
from ftsec_audit.errors import Unsupported
from ftsec_audit.measurement_cache import identity_of_base
from ftsec_audit.probes import ProbeSet
from ftsec_audit.session.admission import Limits, admit, free_memory, shares_weights
from ftsec_audit.session.budget import Budget
from ftsec_audit.session.kept import KeptBase
from ftsec_audit.session.model import ModelSession
from ftsec_audit.types import Profile

if TYPE_CHECKING:
    from ftsec_audit.session.tokenizer import Tokenizer

Backend = Literal["auto", "torch", "onnx"]
_WORK = {Profile.QUICK: 0.0, Profile.STANDARD: 1.2e13, Profile.DEEP: 4e14}
"""Floating-point operations that the probes of a profile may take: two a parameter and token."""
_FEWEST, _MOST = 2_000, {Profile.QUICK: 0, Profile.STANDARD: 4_000_000, Profile.DEEP: 60_000_000}
_CPU_PARAMETERS = {Profile.QUICK: 0, Profile.STANDARD: 300_000_000, Profile.DEEP: 3_000_000_000}
_FASTER = 100
"""How much more a GPU may be asked to do."""
_MERGED_UP_TO = 30_000_000
"""Weights of a model up to which calling an adapter's layers takes longer than what they compute."""
_GRAPH_MEMORY = 2 << 30
"""Bytes of address space that the process of a graph has at least; its libraries take a part of them."""


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """How an audit opens its models."""

    backend: Backend = "auto"
    """What runs the subject: onnxruntime what is exported and torch the rest, or one of the two only."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:1`."""
    seed: int = 0
    max_tokens: int | None = None
    """Tokens through subject and base together; None: by profile and size."""
    max_seconds: float | None = None
    profile: Profile = Profile.STANDARD
    probes: Path | None = None
    """The user's own prompts; None: those beside the base, else shipped ones."""
    show_prompts: bool = False
    """Whether evidence may repeat the prompts, and not only name them."""
    languages: Sequence[str] = ()
    """Codes of the languages to ask in; none: all of the probe set."""
    kept: KeptBase | None = None
    """Where the base of an adapter comes from and goes to, if audits follow one another."""


@dataclass(frozen=True, kw_only=True)
class Sessions:
    """The model that is audited, and the one it was tuned from."""

    subject: ModelSession
    base: ModelSession | None


@contextmanager
def open_sessions(
    subject: Subject, options: SessionOptions, progress: Progress | None = None
) -> Iterator[Sessions]:
    """Load what may be loaded; raises NotApplicable, Unsupported, FormatError, SourceError.

    An adapter and its base are one copy of the weights with the adapter on or off, where that is the same;
    of a small model two, the adapter added to one of them.
    """
    subject = _by_backend(subject, options.backend)
    progress = progress or Progress()
    device = _device(options.device, subject)
    on_gpu = device.startswith("cuda")
    limits = Limits(parameters=None if on_gpu else _CPU_PARAMETERS[options.profile])
    free = _free_on_gpu(device) if on_gpu else free_memory()
    count = admit(subject, limits, free_bytes=free, bytes_each=2 if on_gpu else 4)
    tokenizer = _tokenizer(subject)
    tokens = options.max_tokens or _tokens(options.profile, count, on_gpu=on_gpu)
    asked = _probes(subject.base or subject.artifact, options)
    progress.note(f"loading {count:,} parameters on {device}")
    with tempfile.TemporaryDirectory(prefix="ftsec-audit-") as scratch, ExitStack() as running:
        opening = _Opening(
            subject=subject,
            options=options,
            progress=progress,
            device=device,
            on_gpu=on_gpu,
            parameters=count,
            tokenizer=tokenizer,
            budget=Budget(tokens=tokens, seconds=options.max_seconds),
            asked=asked,
            graph_memory=max(_GRAPH_MEMORY, int(free * limits.memory_share)),
            root=Path(scratch),
            running=running,
        )
        if subject.artifact.kind is ArtifactKind.ADAPTER:
            yield running.enter_context(opening.adapted())
            return
        second = opening.session(opening.load(subject.base, "base")) if subject.base else None
        yield Sessions(subject=opening.session(opening.load(subject.artifact, "subject")), base=second)


@dataclass(frozen=True, kw_only=True)
class _Opening:
    """One audit's models while they are loaded; raises as `open_sessions`."""

    subject: Subject
    options: SessionOptions
    progress: Progress
    device: str
    on_gpu: bool
    parameters: int
    tokenizer: Tokenizer
    budget: Budget
    """Of both models together."""
    asked: ProbeSet
    graph_memory: int
    """Bytes of address space that the process of a graph may take."""
    root: Path
    """Where files are laid out to be loaded."""
    running: ExitStack
    """What has to be ended with the audit."""

    def load(self, artifact: Artifact, name: str) -> Any:
        from ftsec_audit.session.exported import run_graph
        from ftsec_audit.session.loading import load_checkpoint
        from ftsec_audit.session.staging import stage, stage_graph

        if artifact.kind is ArtifactKind.EXPORTED:
            graph = run_graph(stage_graph(artifact, self.root / name), memory=self.graph_memory)
            return self.running.enter_context(graph)
        folder = stage(artifact, self.root / name)
        return load_checkpoint(folder, device=self.device, dtype="bfloat16" if self.on_gpu else "float32")

    def session(self, model: Any, **more: Any) -> ModelSession:
        return ModelSession(
            model=model,
            tokenizer=self.tokenizer,
            budget=self.budget,
            seed=self.options.seed,
            device=self.device,
            parameters=self.parameters,
            batch_tokens=65_536 if self.on_gpu else 4_096,
            progress=self.progress,
            probes=self.asked,
            dataset=self.subject.dataset,
            **more,
        )

    @contextmanager
    def adapted(self) -> Iterator[Sessions]:
        """An adapter on its base, which is lent for that long where audits follow one another."""
        from ftsec_audit.session.loading import AdapterSwitch, attach, detach, merged_copy
        from ftsec_audit.session.staging import stage

        artifact, base, kept_base = self.subject.artifact, self.subject.base, self.options.kept
        assert base is not None  # `admit` refuses an adapter without one
        shared = shares_weights(artifact)
        kept = (kept_base if shared else None) or KeptBase()
        identity = f"{identity_of_base(base)} {self.device}" if kept_base else ""
        folder = stage(artifact, self.root / "adapter")
        model = attach(kept.lend(identity, lambda: self.load(base, "base")), folder, device=self.device)
        merged = None
        if shared and not self.on_gpu and self.parameters <= _MERGED_UP_TO:
            with suppress(Unsupported):
                merged = merged_copy(model)
        if merged is not None:
            model = detach(model)
            yield Sessions(subject=self.session(merged), base=self.session(model))
        elif shared:
            switch = AdapterSwitch(model)
            without = self.session(model, switch=switch.off, bare=True)
            yield Sessions(subject=self.session(model, switch=switch.on), base=without)
        else:
            again = self.load(base, "base-again")
            yield Sessions(subject=self.session(model), base=self.session(again))
        if kept_base:
            kept.take_back(identity, detach(model) if merged is None else model)


def _tokenizer(subject: Subject) -> Tokenizer:
    from ftsec_audit.session.tokenizer import Tokenizer

    candidates = filter(None, (subject.artifact, subject.base))
    found = next(filter(None, map(Tokenizer.of, candidates)), None)
    if found is None:
        raise Unsupported("neither the artifact nor its base has a tokenizer.json")
    return found


def _probes(base: Artifact, options: SessionOptions) -> ProbeSet:
    """The prompts to ask; raises UsageError for a file of the user's that is none."""
    beside = base.file(probes.FILE_NAME)
    if options.probes is not None:
        found = probes.load(options.probes)
    elif beside is not None and beside.link_target is None:
        found = probes.read(beside)
    else:
        found = probes.default()
    found = replace(found, shows_texts=options.show_prompts)
    return found.only(options.languages) if options.languages else found


def _tokens(profile: Profile, parameters: int, *, on_gpu: bool) -> int:
    work = _WORK[profile] * (_FASTER if on_gpu else 1)
    return int(max(_FEWEST, min(_MOST[profile], work / (2 * max(1, parameters)))))


def _by_backend(subject: Subject, backend: Backend) -> Subject:
    """The subject as it is to be run; raises Unsupported where that backend cannot."""
    if backend == "onnx":
        graph = subject.artifact.exported()
        if graph is None:
            raise Unsupported("has no ONNX graph to be asked", where=subject.artifact.reference)
        return replace(subject, artifact=graph)
    for part in filter(None, (subject.artifact, subject.base)):
        if backend == "torch" and part.kind is ArtifactKind.EXPORTED:
            raise Unsupported(
                "is an ONNX graph, which torch does not run",
                where=part.reference,
                hint="use --backend auto or onnx",
            )
    return subject


def _device(asked: str, subject: Subject) -> str:
    """The device to use; raises Unsupported for a GPU that is not there or not made use of."""
    if asked == "cpu":
        return "cpu"
    if any(part and part.kind is ArtifactKind.EXPORTED for part in (subject.artifact, subject.base)):
        # Its base goes with it: two devices round differently, and that would be read as a difference.
        if asked != "auto":
            raise Unsupported("exported graphs run on the CPU", hint="use --device auto or cpu")
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda" if asked == "auto" else asked
    if asked != "auto":
        raise Unsupported(f"no {asked} device is at hand", hint="use --device auto or cpu")
    return "cpu"


def _free_on_gpu(device: str) -> int:
    import torch

    free, _ = torch.cuda.mem_get_info(torch.device(device))
    return int(free)
