"""Reports as a scan would leave them, built by code: clean, known-bad, undecided, hostile, large."""

from __future__ import annotations

import math
import random
from dataclasses import replace

from ftsec_audit.types import (
    ArtifactCard,
    Confidence,
    Decision,
    Evidence,
    FileRecord,
    Finding,
    Lead,
    Location,
    ModuleMeasurement,
    NotLookedAt,
    Outcome,
    Population,
    ProbePrompt,
    Profile,
    Report,
    Rule,
    Severity,
    SpectrumBand,
    Suppressed,
    Suspicion,
    Verdict,
)

ROLES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

RULES = tuple(
    Rule(
        id=id, name=name, question=question, severity=severity, remediation=remediation, needs_base=needs_base
    )
    for id, name, question, severity, needs_base, remediation in (
        (
            *("FTA101", "wrong-base", "Was the artifact tuned from another base than it declares?"),
            *(Severity.HIGH, True, "Name the base the weights were tuned from."),
        ),
        (
            *(
                "FTA102",
                "undeclared-change",
                "Does the adapter change tensors its configuration does not name?",
            ),
            *(
                Severity.HIGH,
                False,
                "Ask the publisher why tensors outside the declared targets were changed.",
            ),
        ),
        (
            *(
                "FTA103",
                "damaged-weights",
                "Are there values that are not finite, or tensors that cannot be read?",
            ),
            *(Severity.MEDIUM, False, "Obtain the file again and compare its digest."),
        ),
        (
            *(
                "FTA201",
                "spectral-outlier",
                "Is the update's spectrum unlike that of comparable benign updates?",
            ),
            *(Severity.HIGH, False, "Run the deep profile on the layers that are named before deploying."),
        ),
        (
            *("FTA202", "module-outlier", "Does a module differ from its own kind within the artifact?"),
            *(Severity.MEDIUM, False, "Look at the modules that are named with the deep profile."),
        ),
        (
            *("FTA301", "few-embedding-rows-changed", "Did only a handful of embedding rows change?"),
            *(Severity.CRITICAL, True, "Do not deploy. Restore the rows from the base and audit again."),
        ),
        (
            *("FTA401", "pickle-code", "Does loading a file run code?"),
            *(Severity.CRITICAL, False, "Convert the weights to safetensors from a trusted copy."),
        ),
        (
            *(
                "FTA412",
                "template-poisoning",
                "Does the chat template insert text that depends on the input?",
            ),
            *(Severity.HIGH, False, "Replace the chat template by the one of the base."),
        ),
    )
)

_POPULATION = Population(
    id="shipped-1", stratum="llama · lora · r 9-16", n=412, quantile=0.9976, band=(0.21, 0.61)
)


def passing() -> Report:
    """A clean LoRA adapter with 224 measured modules."""
    return Report(
        tool_version="0.1.0",
        artifact=_card("acme/support-lora", "3f2c91a0c4d84f7e9b1a52d6e8f03b7c1a2d4e5f"),
        base=_base(),
        profile=Profile.STANDARD,
        decision=Decision(verdict=Verdict.PASS, policy="default"),
        findings=(
            *(_clean(rule) for rule in RULES if rule.id != "FTA301"),
            _by_id("FTA301").not_applicable("the adapter carries no embedding rows"),
        ),
        rules=RULES,
        not_looked_at=(
            NotLookedAt(what="trigger look-up", reason="needs the deep profile"),
            NotLookedAt(what="languages other than English", reason="needs the deep profile"),
        ),
        suspicion=Suspicion(total=0.31, families={"structure": 0.0, "spectral": 0.31}),
        measurements=modules(),
        benign_spectra=tuple(_benign(role) for role in ROLES),
        limits=("int8 quantisation of the base hides changes below 1e-3 of the norm",),
        command="ftsec-audit scan acme/support-lora@3f2c91a --profile standard --seed 0",
    )


def failing() -> Report:
    """A known-bad adapter: an exact structural fact, and a spectral outlier in four layers."""
    layers = range(14, 18)
    spectral = _by_id("FTA201").detected(
        "v_proj updates in layers 14–17 are nearly rank one, far beyond comparable benign updates",
        confidence=Confidence.MEDIUM,
        p_value=0.00242,
        evidence=[_share(f"model.layers.{layer}.self_attn.v_proj", 0.97 - 0.004 * layer) for layer in layers],
    )
    embedding = _by_id("FTA301").detected(
        "3 of 128,256 embedding rows differ from the base; every other row is bit-identical",
        confidence=Confidence.HIGH,
        evidence=[
            Evidence(
                message="rows of model.embed_tokens that are not bit-identical to the base",
                statistic="changed_rows",
                value=3,
                unit="rows",
                location=Location(
                    file="adapter_model.safetensors", tensor="model.embed_tokens", offset=8_812
                ),
                excerpt="cf",
                details={"rows": [9847, 9848, 31002], "tokens": ["cf", " cf", "mn"]},
            ),
            Evidence(
                message="smallest cosine between two of the changed rows",
                statistic="row_cosine",
                value=0.9987,
                interval=(0.9981, 0.9992),
                location=Location(file="adapter_model.safetensors", tensor="model.embed_tokens"),
                population=replace(
                    _POPULATION, stratum="llama · embedding", n=57, quantile=1.0, band=(-0.04, 0.62)
                ),
            ),
        ],
    )
    weak = _by_id("FTA202").detected(
        "layer 15 v_proj departs from the depth trend of v_proj",
        confidence=Confidence.LOW,
        severity=Severity.LOW,
        evidence=[_share("model.layers.15.self_attn.v_proj", 0.91)],
    )
    answered = {"FTA201", "FTA202", "FTA301"}
    return replace(
        passing(),
        artifact=_card("mallory/helpful-lora", "d04e592f6b1c4a3e8f7d90b2c6a5e4f3a1b0c9d8"),
        decision=Decision(
            verdict=Verdict.FAIL,
            policy="default",
            reasons=(
                "fail[0] (severity ≥ high, confidence ≥ medium): FTA301 is critical, confidence high",
                "fail[0] (severity ≥ high, confidence ≥ medium): FTA201 is high, confidence medium",
                "warn[0] (severity ≥ low): FTA202 is low, confidence low",
            ),
        ),
        findings=(spectral, weak, embedding, *(_clean(rule) for rule in RULES if rule.id not in answered)),
        leads=(
            Lead(kind="token", value="cf", score=41.7, source="FTA301", details={"row": 9847}),
            Lead(kind="layer", value="15", score=12.3, source="FTA201"),
        ),
        suppressed=(
            Suppressed(
                finding=_by_id("FTA412").detected(
                    "the chat template names a product",
                    confidence=Confidence.MEDIUM,
                    evidence=[
                        Evidence(message="fixed text", location=Location(file="chat_template.jinja", line=3))
                    ],
                ),
                statement="the product name is intended (J. Doe)",
            ),
        ),
        suspicion=Suspicion(
            total=0.9991, families={"structure": 0.12, "spectral": 0.9976, "embedding": 0.9991}
        ),
        measurements=modules(marked={("v_proj", layer) for layer in layers}),
        command="ftsec-audit scan mallory/helpful-lora@d04e592 --profile standard --seed 0",
    )


def inconclusive() -> Report:
    """No base could be had, a file was cut short, a detector failed."""
    report = passing()
    return replace(
        report,
        artifact=replace(_card("someone/mystery-model", "9b1a52d6"), base_reference="C:\\models\\llama"),
        base=None,
        decision=Decision(
            verdict=Verdict.INCONCLUSIVE,
            policy="strict",
            reasons=(
                "require[0] (FTA1): FTA101 has no answer (not_supported): the base could not be resolved",
            ),
        ),
        findings=(
            _by_id("FTA101").not_supported("the base could not be resolved"),
            _by_id("FTA103").unanswered(Outcome.ERROR, "ZeroDivisionError in DamagedWeights@1"),
            *(_clean(rule) for rule in RULES if rule.id not in ("FTA101", "FTA103")),
        ),
        not_looked_at=(
            NotLookedAt(
                what="adapter_model.safetensors",
                reason="ends 4,096 bytes before its header says",
                incomplete=True,
            ),
        ),
        measurements=(),
        limits=("no base: what changed cannot be told from what was there",),
        command="ftsec-audit scan someone/mystery-model",
    )


ATTACK = (
    "\x1b[2J\x1b[1;32mPASS\x1b[0m\r\n[bold green]PASS[/] \u202egnp.exe\u2066 a\u200bb\ufeff \x9b31m `` ``` "
    "<script>alert(1)</script>\"'><img src=x onerror=alert(2)> {{7*7}} {% raw %} </style></title>"
    " | @octocat #1 owner/repo#2 [x](javascript:alert(3)) ![i](https://evil.example/p.png) https://evil.example"
    " \x00 \udc80 \U000e0041 Z\u0300\u0301\u0302\u0303\u0304\u0305 ../../etc/passwd %2e%2e ?a#b"
    " \\ &amp; $(id) 本 مرحبا"
)
"""Something against every format at once; it holds no character sequence that a detector would write."""


def hostile() -> Report:
    """Every string of the artifact, and every string derived from one, is `ATTACK`."""
    location = Location(file=ATTACK, tensor=ATTACK, offset=1, line=2)
    evidence = Evidence(
        message=ATTACK,
        statistic=ATTACK,
        value=math.nan,
        unit=ATTACK,
        interval=(-math.inf, math.inf),
        location=location,
        population=Population(id=ATTACK, stratum=ATTACK, n=0, quantile=math.nan, band=(math.nan, math.inf)),
        excerpt=ATTACK,
        prompts=(ProbePrompt(id=ATTACK), ProbePrompt(id=ATTACK, text=ATTACK)),
        details={ATTACK: [ATTACK, math.nan, {ATTACK: math.inf}]},
    )
    finding = Finding(
        rule="FTA201",
        outcome=Outcome.DETECTED,
        severity=Severity.HIGH,
        confidence=Confidence.LOW,
        summary=ATTACK,
        p_value=math.nan,
        evidence=(evidence,) * 3,
        remediation=ATTACK,
        detector=ATTACK,
    )
    card = ArtifactCard(
        reference=ATTACK,
        resolved=ATTACK,
        digest=ATTACK,
        kind=ATTACK,
        description=ATTACK,
        base_reference=ATTACK,
        files=(
            FileRecord(path=ATTACK, size=1, digest=ATTACK, format=ATTACK),
            FileRecord(path=ATTACK * 2, size=0, digest=f"sha256:{'0' * 64}"),
        ),
        declared={ATTACK: [ATTACK], "license": [ATTACK], "tags": [ATTACK], "datasets": [ATTACK]},
    )
    measurement = ModuleMeasurement(
        name=ATTACK,
        role=ATTACK,
        layer=0,
        shape=(0, 0),
        values={
            "entry_kurtosis": math.nan,
            "singular_values": [math.inf, math.nan, 0.0, -1.0],
            ATTACK: math.inf,
        },
    )
    return Report(
        tool_version="0.1.0",
        artifact=card,
        base=card,
        profile=Profile.QUICK,
        decision=Decision(verdict=Verdict.FAIL, policy=ATTACK, reasons=(ATTACK,)),
        findings=(
            finding,
            replace(finding, outcome=Outcome.ERROR),
            replace(finding, outcome=Outcome.NOT_SUPPORTED),
        ),
        rules=RULES,
        leads=(Lead(kind=ATTACK, value=ATTACK, score=math.nan, source=ATTACK, details={ATTACK: ATTACK}),),
        not_looked_at=(NotLookedAt(what=ATTACK, reason=ATTACK, incomplete=True),),
        suppressed=(Suppressed(finding=finding, statement=ATTACK),),
        suspicion=Suspicion(total=math.nan, families={ATTACK: math.inf}),
        measurements=(measurement, measurement),
        limits=(ATTACK,),
        command=ATTACK,
    )


def large(tensors: int = 10_000) -> Report:
    """A checkpoint of many tensors, with many detections and files."""
    share = _by_id("FTA202").detected(
        "many modules depart from the depth trend of their kind",
        confidence=Confidence.LOW,
        evidence=[_share(f"model.layers.{i % 100}.experts.{i}.up_proj", 0.9) for i in range(tensors)],
    )
    files = tuple(FileRecord(path=f"model-{i:05}.safetensors", size=5 << 30) for i in range(1_000))
    report = failing()
    return replace(
        report,
        artifact=replace(report.artifact, files=files, description="checkpoint, 100 layers"),
        findings=(share, *report.findings),
        leads=tuple(Lead(kind="token", value=f"token {i}", score=i) for i in range(tensors)),
        measurements=modules(layers=100, roles=tuple(f"experts.{i}" for i in range(tensors // 100))),
    )


def modules(
    layers: int = 32,
    roles: tuple[str, ...] = ROLES,
    marked: set[tuple[str, int]] | frozenset[tuple[str, int]] = frozenset(),
) -> tuple[ModuleMeasurement, ...]:
    """What weight detectors leave of `layers` × `roles` adapted modules; `marked` are nearly rank one."""
    chance = random.Random(0)
    return tuple(
        _module(
            role, layer, decay=0.25 if (role, layer) in marked else chance.uniform(0.72, 0.86), chance=chance
        )
        for layer in range(layers)
        for role in roles
    )


def _module(role: str, layer: int, *, decay: float, chance: random.Random) -> ModuleMeasurement:
    depth = 1 + 0.6 * math.sin(layer / 10)
    top = 0.4 * depth * chance.uniform(0.85, 1.15) * (2.2 if decay < 0.5 else 1.0)
    sigma = [top * decay**i * chance.uniform(0.95, 1.05) for i in range(16)]
    energy = sum(s * s for s in sigma)
    block = "self_attn" if role in ROLES[:4] else "mlp"
    return ModuleMeasurement(
        name=f"model.layers.{layer}.{block}.{role}",
        role=role,
        layer=layer,
        shape=(4096, 4096),
        values={
            "singular_values": sorted(sigma, reverse=True),
            "scale": 2.0,
            "n_layers": 32.0,
            "log_rms_update": math.log(math.sqrt(energy) / 4096),
            "entry_kurtosis": (9.0 if decay < 0.5 else 3.2) * chance.uniform(0.9, 1.3),
        },
    )


def _benign(role: str) -> SpectrumBand:
    """Invented, as everything here is: spectra that fall off by 0.6 to 0.88 from one value to the next."""
    falling = [[decay ** (2 * i) for i in range(16)] for decay in (0.6, 0.75, 0.88)]
    shares = [[square / sum(squares) for square in squares] for squares in falling]
    low, median, high = zip(*(sorted(column) for column in zip(*shares, strict=True)), strict=True)
    return SpectrumBand(
        role=role,
        block="attention" if role in ROLES[:4] else "mlp",
        rank=16,
        population=Population(id=_POPULATION.id, stratum=_POPULATION.stratum, n=_POPULATION.n),
        repositories=96,
        low=low,
        median=median,
        high=high,
    )


def _by_id(id: str) -> Rule:
    return next(rule for rule in RULES if rule.id == id)


def _clean(rule: Rule) -> Finding:
    finding = rule.not_detected("nothing of the kind was found")
    return replace(finding, detector=f"{rule.name}@1:0123456789ab")


def _share(module: str, value: float) -> Evidence:
    return Evidence(
        message=f"top direction holds {100 * value:.0f} % of the energy of {module}",
        statistic="sigma_1_share",
        value=value,
        location=Location(file="adapter_model.safetensors", tensor=module),
        population=_POPULATION,
    )


def _card(reference: str, commit: str) -> ArtifactCard:
    return ArtifactCard(
        reference=reference,
        resolved=f"{reference}@{commit}",
        digest="sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        kind="adapter",
        description="LoRA r=16 (q,k,v,o,gate,up,down)",
        base_reference="meta-llama/Llama-3.1-8B",
        files=(
            FileRecord(path="README.md", size=5_174, digest=f"sha256:{'0a' * 32}"),
            FileRecord(path="adapter_config.json", size=812, digest=f"sha256:{'5e' * 32}", format="json"),
            FileRecord(
                path="adapter_model.safetensors",
                size=167_832_240,
                digest=f"sha256:{'2c' * 32}",
                format="safetensors",
            ),
            FileRecord(path="tokenizer.json", size=17_209_920, digest=f"sha256:{'7f' * 32}", format="json"),
        ),
        declared={"license": ["apache-2.0"], "language": ["en"], "datasets": ["acme/tickets"]},
    )


def _base() -> ArtifactCard:
    reference = "meta-llama/Llama-3.1-8B"
    return ArtifactCard(
        reference=reference,
        resolved=f"{reference}@d04e592bb4f6aa9cfee91e2e20afa771667e1d4b",
        kind="checkpoint",
        description="checkpoint, 32 layers",
    )
