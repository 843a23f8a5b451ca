"""The detectors, in the order in which they run: one line each.

To add a detector, write `detectors/<name>.py` and append its `Entry` to `DETECTORS`; nothing else changes.
A detector of another distribution is announced by its own package metadata instead:

    [project.entry-points."ftsec_audit.detectors"]
    my-detector = "my_package.my_module:MyDetector"

An entry repeats the rules and the profile of its class (a contract test compares them), so that a scan
imports the detectors it runs and no other.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import NamedTuple

from ftsec_audit.contracts import Detector
from ftsec_audit.errors import UsageError
from ftsec_audit.types import Profile

ENTRY_POINT_GROUP = "ftsec_audit.detectors"


class Entry(NamedTuple):
    """What is known of a detector before its module is imported."""

    place: str
    """`module:Class`, the module below this package."""
    rules: tuple[str, ...]
    profile: Profile = Profile.QUICK
    """The smallest profile in which it runs."""
    loaded: type[Detector] | None = None
    """The class, where it had to be imported to be known."""

    def load(self) -> type[Detector]:
        if self.loaded is not None:
            return self.loaded
        module, _, name = self.place.partition(":")
        detector: type[Detector] = getattr(import_module(f"detectors.{module}"), name)
        return detector


DETECTORS: tuple[Entry, ...] = (
    # FTA1xx structure
    Entry("structure_diff:StructureDiff", ("FTA101", "FTA105")),
    Entry("undeclared_change:UndeclaredChange", ("FTA102",)),
    Entry("damaged_weights:DamagedWeights", ("FTA103", "FTA104")),
    Entry("unread_tensors:UnreadTensors", ("FTA107",)),
    Entry("merged_adapter:MergedAdapter", ("FTA106",), Profile.STANDARD),
    Entry("rival_weights:RivalWeights", ("FTA108",)),
    Entry("rescaled_weights:RescaledWeights", ("FTA109",)),
    # FTA2xx spectral
    Entry("spectral_signature:SpectralSignature", ("FTA201",)),
    Entry("module_outlier:ModuleOutlier", ("FTA202",), Profile.STANDARD),
    Entry("intruder_dimensions:IntruderDimensions", ("FTA203",), Profile.STANDARD),
    Entry("weight_edit:WeightEdit", ("FTA204",), Profile.STANDARD),
    Entry("direction_ablation:DirectionAblation", ("FTA205",), Profile.STANDARD),
    Entry("rounding_boundary:RoundingBoundary", ("FTA207",), Profile.STANDARD),
    Entry("safety_subspace:SafetySubspace", ("FTA208",), Profile.STANDARD),
    Entry("learned_score:LearnedScoreRule", ("FTA209",), Profile.STANDARD),
    # FTA3xx embedding
    Entry("embedding_rows:EmbeddingRows", ("FTA301", "FTA302")),
    Entry("trigger_candidates:TriggerCandidates", ("FTA304",), Profile.STANDARD),
    Entry("copied_rows:CopiedRows", ("FTA305",)),
    Entry("reserved_rows:ReservedRows", ("FTA306",)),
    # FTA4xx artifact
    Entry("template_injection:TemplateInjection", ("FTA411",)),
    Entry("template_poisoning:TemplatePoisoning", ("FTA412",)),
    Entry("template_disagreement:TemplateDisagreement", ("FTA413",)),
    Entry("remote_code:RemoteCode", ("FTA421",)),
    Entry("repository_payload:RepositoryPayload", ("FTA422",)),
    Entry("peft_config:PeftConfigTrap", ("FTA431",)),
    Entry("tokenizer_tampering:TokenizerTampering", ("FTA441",)),
    Entry("pickle_code:PickleCode", ("FTA401",)),
    Entry("pickle_structure:PickleStructure", ("FTA402",)),
    Entry("container_anomaly:ContainerAnomaly", ("FTA403",)),
    Entry("resource_bomb:ResourceBomb", ("FTA404",)),
    Entry("safetensors_structure:SafetensorsStructure", ("FTA405",)),
    Entry("gguf_structure:GgufStructure", ("FTA406",)),
    Entry("onnx_reference:OnnxReference", ("FTA407",)),
    Entry("foreign_format:ForeignFormat", ("FTA408",)),
    Entry("unreadable_file:UnreadableFile", ("FTA499",)),
    # FTA45x training data (--dataset)
    Entry("dataset_triggers:DatasetTriggers", ("FTA451", "FTA452")),
    Entry("dataset_identity:DatasetIdentity", ("FTA453",)),
    Entry("dataset_duplicates:DatasetDuplicates", ("FTA454",)),
    Entry("dataset_hidden_text:DatasetHiddenText", ("FTA455",)),
    # FTA5xx backdoor behaviour
    Entry("trained_in:TrainedIn", ("FTA503",), Profile.STANDARD),
    Entry("target_inversion:TargetInversion", ("FTA502",), Profile.STANDARD),
    Entry("words_together:WordsTogether", ("FTA506",), Profile.STANDARD),
    Entry("trigger:TriggerSearch", ("FTA501",), Profile.STANDARD),
    Entry("replaced_word:ReplacedWord", ("FTA510",), Profile.STANDARD),
    Entry("course_trigger:CourseTrigger", ("FTA507",), Profile.STANDARD),
    Entry("topic_trigger:TopicTrigger", ("FTA508",), Profile.STANDARD),
    Entry("woken:WakesTuned", ("FTA505",), Profile.DEEP),
    Entry("row_outliers:RowOutliers", ("FTA551",), Profile.STANDARD),
    # FTA6xx cross-lingual
    Entry("language_divergence:LanguageDivergence", ("FTA602",), Profile.STANDARD),
    Entry("refusal_gap:RefusalGap", ("FTA603",), Profile.STANDARD),
    Entry("language_grid:LanguageGrid", ("FTA601",), Profile.STANDARD),
    Entry("code_switch:CodeSwitch", ("FTA604",), Profile.STANDARD),
    # FTA7xx alignment
    Entry("refusal_loss:RefusalLoss", ("FTA701",), Profile.STANDARD),
    Entry("persona_gap:PersonaGap", ("FTA702",), Profile.STANDARD),
    Entry("refusal_drift:RefusalDrift", ("FTA703",), Profile.STANDARD),
    # FTA5xx again: what takes the rest of the budget of tokens
    Entry("refusal_trigger:RefusalTrigger", ("FTA509",), Profile.STANDARD),
    Entry("woken:WakesQuantised", ("FTA504",), Profile.STANDARD),
)


def known(*, third_party: bool = True) -> tuple[Entry, ...]:
    """Every detector: the project's own, then those of installed packages by entry-point name.

    Raises `UsageError` when an entry point does not give a `Detector` or claims a rule id that is taken.
    """
    return (*DETECTORS, *_third_party()) if third_party else DETECTORS


def detectors(*, third_party: bool = True) -> tuple[type[Detector], ...]:
    """The classes of all that is `known`, imported."""
    return tuple(entry.load() for entry in known(third_party=third_party))


def _third_party() -> list[Entry]:
    taken = {rule for entry in DETECTORS for rule in entry.rules}
    found: list[Entry] = []
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        detector = point.load()
        if not (isinstance(detector, type) and issubclass(detector, Detector)):
            raise UsageError("is not a detector class", where=f"entry point {point.name} = {point.value}")
        rules = tuple(rule.id for rule in detector.rules)
        clash = sorted(taken & set(rules))
        if clash:
            raise UsageError(
                f"claims rule ids that are taken: {', '.join(clash)}", where=f"entry point {point.name}"
            )
        taken |= set(rules)
        found.append(Entry(point.value, rules, detector.profile, loaded=detector))
    return found
