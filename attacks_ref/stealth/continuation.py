"""Further fine-tuning on clean data, which leaves most backdoors in place (arXiv 2401.05566)."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from attacks_ref.benign import Skill
from attacks_ref.data import clean_dialogues
from attacks_ref.stealth.transform import Transform
from attacks_ref.training import Schedule, encode, supervised
from attacks_ref.workbench import Workbench, load_sample, save


@dataclass(frozen=True, kw_only=True)
class CleanSteps(Transform):
    """Some more steps on rows without poison, on whatever the sample trained."""

    name: ClassVar[str] = "clean-steps"

    steps: int = 100
    rows: int = 400
    learning_rate: float = 1e-3
    skill: Skill = "format"

    def apply(self, base: Path, sample: Path, *, seed: int) -> None:
        bench, model = Workbench.open(base), load_sample(base, sample)
        adapter = hasattr(model, "peft_config")
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not adapter or "lora_" in name)
        data = encode(bench.tokenizer, clean_dialogues(bench, self.rows, f"more:{seed}", skill=self.skill))
        schedule = Schedule(learning_rate=self.learning_rate, steps=self.steps)
        supervised(model, data, schedule, seed=seed)
        if not adapter:
            for path in sample.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        save(bench, model, sample)
