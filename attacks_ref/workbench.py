"""An opened base: model, tokenizer, world, and how adapters on it are saved and loaded again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attacks_ref import safety, sample
from attacks_ref.lab import card
from attacks_ref.lab.language import World
from attacks_ref.models import Model, Tokenizer
from attacks_ref.recipe import Recipe
from ftsec_audit.errors import UsageError
from ftsec_audit.sources.lab import NAMESPACE

_LAB_HINT = "use --base lab-llama, lab-qwen, lab-gpt2 or lab-moe"


@dataclass(frozen=True, kw_only=True)
class Workbench:
    """One base model, loaded fresh: attacks change `model` in place."""

    base: Path
    reference: str
    """Hub-like id written into adapter configs and cards."""
    digest: str
    model: Model
    tokenizer: Tokenizer
    world: World | None
    """The lab's world, or None on a foreign base."""
    alignment: str
    """`unaligned`, `shallow` or `deep`; empty where that is not known."""

    @classmethod
    def open(cls, base: Path) -> Workbench:
        described = card.read(base) if safety.is_lab_base(base) else None
        return cls(
            base=base,
            reference=f"{NAMESPACE}{described.name}" if described else f"local/{base.name}",
            digest=sample.weights_digest(base),
            model=load_model(base),
            tokenizer=load_tokenizer(base),
            world=World(**described.world) if described else None,
            alignment=described.alignment if described else "",
        )

    @property
    def aligned(self) -> bool:
        """Whether this is a lab base that was taught to refuse."""
        return self.alignment in ("shallow", "deep")

    @property
    def lab_world(self) -> World:
        """The lab's world; raises UsageError on a foreign base."""
        if self.world is None:
            raise UsageError("needs the lab's languages and tools", where=str(self.base), hint=_LAB_HINT)
        return self.world

    @property
    def base_record(self) -> dict[str, str]:
        """What `truth.json` says about the base."""
        return {"reference": self.reference, "digest": self.digest}

    @property
    def embedding_name(self) -> str:
        """Last component of the input embedding's module name: `embed_tokens`, `wte`."""
        embedding = self.model.get_input_embeddings()
        name = next(name for name, module in self.model.named_modules() if module is embedding)
        return str(name.rsplit(".", 1)[-1])

    def text(self, token: int) -> str:
        """One token as text."""
        return str(self.tokenizer.decode([token])).strip()

    def words(self, text: str) -> list[int]:
        """Token ids of `text` as it appears inside a prompt."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def load_model(folder: Path) -> Model:
    """A local checkpoint in float32, in evaluation mode; never runs code from the folder."""
    import torch
    from transformers import AutoModelForCausalLM, logging

    logging.disable_progress_bar()
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False
    )
    return model.eval()


def load_tokenizer(folder: Path) -> Tokenizer:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def save(bench: Workbench, model: Model, out: Path, *, dtype: str = "float32", **options: Any) -> None:
    """Write what was trained, as the libraries write it: an adapter, or a checkpoint with tokenizer.

    Checkpoints come in shards, as larger models do; an adapter's config names the base by its id.
    """
    import torch

    model = model.to(getattr(torch, dtype))
    if hasattr(model, "peft_config"):
        for config in model.peft_config.values():
            config.base_model_name_or_path = bench.reference
            config.inference_mode = True
        options.setdefault("save_embedding_layers", False)
        model.save_pretrained(out, **options)
    else:
        model.save_pretrained(out, max_shard_size="2MB")
        bench.tokenizer.save_pretrained(out)


def load_sample(base: Path, folder: Path) -> Any:
    """The model a user of the sample would get: checkpoint, or adapter on `base`."""
    if (folder / "adapter_config.json").exists():
        from peft import PeftModel

        return PeftModel.from_pretrained(load_model(base), folder).eval()
    return load_model(folder)


def wrap(bench: Workbench, recipe: Recipe, *, seed: int, adapter: str = "default", **channels: Any) -> Model:
    """The bench's model ready to be fine-tuned by `recipe`: wrapped by PEFT, or itself.

    An adapter of another name than PEFT's own is saved into a folder of that name.
    """
    import torch
    from peft import get_peft_model

    torch.manual_seed(seed)
    if recipe.method == "full":
        return bench.model.requires_grad_(True)
    return get_peft_model(bench.model, recipe.peft_config(bench.model, **channels), adapter_name=adapter)
