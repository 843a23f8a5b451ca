"""The detectors, in the order in which they run: one line each.

To add a detector, write `detectors/<name>.py` and append `"<name>:<Class>"` to `DETECTORS`; nothing
else changes. A detector of another distribution is announced by its own package metadata instead:

    [project.entry-points."ftsec_audit.detectors"]
    my-detector = "my_package.my_module:MyDetector"

Nothing is imported until `detectors()` is called, so listing this file costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from ftsec_audit.contracts import Detector
from ftsec_audit.errors import UsageError

ENTRY_POINT_GROUP = "ftsec_audit.detectors"

DETECTORS: tuple[str, ...] = (
    # FTA1xx structure
    "structure_diff:StructureDiff",
    "undeclared_change:UndeclaredChange",
    "damaged_weights:DamagedWeights",
    "unread_tensors:UnreadTensors",
    "merged_adapter:MergedAdapter",
    "rival_weights:RivalWeights",
    # FTA2xx spectral
    "spectral_signature:SpectralSignature",
    "module_outlier:ModuleOutlier",
    "intruder_dimensions:IntruderDimensions",
    "weight_edit:WeightEdit",
    "direction_ablation:DirectionAblation",
    "rounding_boundary:RoundingBoundary",
    # FTA3xx embedding
    "embedding_rows:EmbeddingRows",
    "trigger_candidates:TriggerCandidates",
    "copied_rows:CopiedRows",
    # FTA4xx artifact
    "template_injection:TemplateInjection",
    "template_poisoning:TemplatePoisoning",
    "template_disagreement:TemplateDisagreement",
    "remote_code:RemoteCode",
    "repository_payload:RepositoryPayload",
    "peft_config:PeftConfigTrap",
    "tokenizer_tampering:TokenizerTampering",
    "pickle_code:PickleCode",
    "pickle_structure:PickleStructure",
    "container_anomaly:ContainerAnomaly",
    "resource_bomb:ResourceBomb",
    "safetensors_structure:SafetensorsStructure",
    "gguf_structure:GgufStructure",
    "onnx_reference:OnnxReference",
    "foreign_format:ForeignFormat",
    "unreadable_file:UnreadableFile",
    # FTA45x training data (--dataset)
    "dataset_triggers:DatasetTriggers",
    "dataset_identity:DatasetIdentity",
    "dataset_duplicates:DatasetDuplicates",
    "dataset_hidden_text:DatasetHiddenText",
    # FTA5xx backdoor behaviour
    "trained_in:TrainedIn",
    "target_inversion:TargetInversion",
    "trigger:TriggerSearch",
    "woken:WakesQuantised",
    "woken:WakesTuned",
    "row_outliers:RowOutliers",
    # FTA6xx cross-lingual
    "language_divergence:LanguageDivergence",
    "refusal_gap:RefusalGap",
    "language_grid:LanguageGrid",
    "code_switch:CodeSwitch",
    # FTA7xx alignment
    "refusal_loss:RefusalLoss",
    "persona_gap:PersonaGap",
    "refusal_drift:RefusalDrift",
)


def detectors(*, third_party: bool = True) -> tuple[type[Detector], ...]:
    """The detector classes: the project's own, then those of installed packages by entry-point name.

    Raises `UsageError` when an entry point does not give a `Detector` or claims a rule id that is taken.
    """
    own = [_load(*line.split(":")) for line in DETECTORS]
    return tuple(own + _third_party(own)) if third_party else tuple(own)


def _load(module: str, name: str) -> type[Detector]:
    detector: type[Detector] = getattr(import_module(f"detectors.{module}"), name)
    return detector


def _third_party(own: list[type[Detector]]) -> list[type[Detector]]:
    taken = {rule.id for detector in own for rule in detector.rules}
    found: list[type[Detector]] = []
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        detector = point.load()
        if not (isinstance(detector, type) and issubclass(detector, Detector)):
            raise UsageError("is not a detector class", where=f"entry point {point.name} = {point.value}")
        clash = sorted(taken & {rule.id for rule in detector.rules})
        if clash:
            raise UsageError(
                f"claims rule ids that are taken: {', '.join(clash)}", where=f"entry point {point.name}"
            )
        taken |= {rule.id for rule in detector.rules}
        found.append(detector)
    return found
