"""Names for what `transformers` and `peft` leave untyped."""

from __future__ import annotations

from typing import Any, TypeAlias

Model: TypeAlias = Any
"""A causal language model of `transformers`, bare or wrapped by `peft`."""

Tokenizer: TypeAlias = Any
"""A fast tokenizer of `transformers`."""
