"""Models from staged folders: safetensors only, no code of theirs, every weight accounted for."""

from __future__ import annotations

import copy
import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ftsec_audit.errors import Unsupported

_FAILURES = (
    *(OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError),
    *(NotImplementedError, IndexError, ZeroDivisionError),
)
"""What the libraries raise for a model they cannot build; the model is hostile, so all are expected."""
_LONGEST = 200


def load_checkpoint(folder: Path, *, device: str, dtype: str) -> Any:
    """The causal language model in `folder`, in evaluation mode; raises Unsupported."""
    import torch
    from transformers import AutoModelForCausalLM

    with _quietly("the model"):
        found: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            attn_implementation=_attention(folder),
            output_loading_info=True,
        )
    model, loaded = found
    missing = sorted(loaded["missing_keys"]) + sorted(str(key) for key in loaded["mismatched_keys"])
    if missing:
        # The library fills gaps with random numbers; what such a model says is not what was shipped.
        raise Unsupported(f"{len(missing)} weights are missing or of the wrong shape, e.g. {missing[0][:80]}")
    _fuse(model)
    return model.to(device).eval()


def _fuse(model: Any) -> None:
    """GPT-2's activation as one kernel instead of eight: the same formula, a fifth of a pass."""
    from torch.nn import GELU
    from transformers.activations import NewGELUActivation

    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, GELU(approximate="tanh"))


def attach(model: Any, adapter: Path, *, device: str) -> Any:
    """`model` with the adapter, active, as peft attaches it; raises Unsupported."""
    from peft import PeftModel

    with _quietly("the adapter"):
        wrapped: Any = PeftModel.from_pretrained(
            model, folder_name(adapter), torch_device=device, local_files_only=True
        )
    return wrapped.eval()


class AdapterSwitch:
    """The adapters of a model, on or off, and left so until the other is asked for; contexts are not nested.

    `wrapped.disable_adapter` walks over all modules each time, which takes as long as a forward pass of a
    small model; turning every layer back after each pass takes half of that.
    """

    def __init__(self, wrapped: Any) -> None:
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils.other import AuxiliaryTrainingWrapper

        kinds = BaseTunerLayer | AuxiliaryTrainingWrapper
        self._layers = [one for one in wrapped.modules() if isinstance(one, kinds)]
        self._is_on: bool | None = True

    @contextmanager
    def on(self) -> Iterator[None]:
        self._turn(on=True)
        yield

    @contextmanager
    def off(self) -> Iterator[None]:
        self._turn(on=False)
        yield

    def _turn(self, *, on: bool) -> None:
        if self._is_on is not on:
            self._is_on = None  # half turned, should a layer fail
            for layer in self._layers:
                layer.enable_adapters(on)
            self._is_on = on


def detach(wrapped: Any) -> Any:
    """The model without its adapters, as it was before `attach`."""
    from peft.utils.other import ModulesToSaveWrapper

    modules = wrapped.get_base_model().named_modules()
    replaced = {name: one.original_module for name, one in modules if isinstance(one, ModulesToSaveWrapper)}
    model = wrapped.unload()
    for name, original in replaced.items():  # peft leaves the modules that were trained whole
        model.set_submodule(name, getattr(original, "base_layer", original))
    model.__dict__.pop("peft_config", None)
    model.__dict__.pop("_hf_peft_config_loaded", None)
    return model.eval()


def merged_copy(wrapped: Any) -> Any:
    """Another model, with the adapter added to its weights; raises Unsupported where that is not the same."""
    from peft.tuners.trainable_tokens import TrainableTokensLayer
    from peft.tuners.tuners_utils import BaseTunerLayer

    uses = Counter(id(weight) for _, weight in wrapped.named_parameters(remove_duplicate=False))
    for name, layer in wrapped.named_modules():
        if not isinstance(layer, BaseTunerLayer) or isinstance(layer, TrainableTokensLayer):
            continue
        if any(uses[id(weight)] > 1 for weight in layer.get_base_layer().parameters()):
            # Added to an embedding that is tied, what it learnt would change the unembedding too.
            raise Unsupported(f"its adapter cannot be merged: others use the weights of {name[:100]}")
    try:
        return copy.deepcopy(wrapped).merge_and_unload().eval()
    except Exception as error:  # peft says in many ways what it does not merge
        raise Unsupported(f"its adapter cannot be merged: {str(error)[:_LONGEST]}") from error


def folder_name(folder: Path) -> str:
    """An absolute path, which peft takes for a local folder and never for a repository on the Hub."""
    return str(folder.resolve())


def _attention(folder: Path) -> str | None:
    """Scaled dot products wherever the architecture has them: a configuration may name other kernels."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    known = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return "sdpa" if getattr(known, "_supports_sdpa", False) else "eager"


@contextmanager
def _quietly(what: str) -> Iterator[None]:
    """Without the libraries' bars and warnings; their failures become Unsupported."""
    from transformers import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except _FAILURES as error:
        text = f"{type(error).__name__}: {error}".replace("\n", " ")[:_LONGEST]
        raise Unsupported(f"{what} cannot be loaded: {text}") from error
    finally:
        transformers_logging.set_verbosity(before)
