"""What a model card says in its front matter. The text is hostile; only short strings come out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_FRONT_MATTER = re.compile(r"\A\ufeff?\s*---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_STATED = ("license", "license_name", "language", "library_name", "pipeline_tag", "datasets", "tags")
_MAX_TEXT = 200
_MAX_ENTRIES = 50
_MAX_FRONT_MATTER = 256 << 10
"""Characters; long evaluation tables live here, but nothing beyond this."""


def declared_bases(card: str) -> tuple[str, ...]:
    """The `base_model` entries of a model card, in order; empty when it has none or cannot be read."""
    names = _front_matter(card).get("base_model")
    if isinstance(names, str):
        names = [names]
    if not isinstance(names, list):
        return ()
    return tuple(name.strip() for name in names if isinstance(name, str) and name.strip())


def statements(card: str) -> dict[str, list[str]]:
    """What the card says under the keys of `_STATED`, each as a short list of short strings."""
    front = _front_matter(card)
    found = {}
    for key in _STATED:
        value = front.get(key)
        entries = value if isinstance(value, list) else [value]
        texts = [entry.strip()[:_MAX_TEXT] for entry in entries if isinstance(entry, str) and entry.strip()]
        if texts:
            found[key] = texts[:_MAX_ENTRIES]
    return found


def _front_matter(card: str) -> Mapping[Any, Any]:
    import yaml

    class PlainLoader(yaml.SafeLoader):
        """Refuses aliases: a few lines of nested ones expand to gigabytes."""

        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            if self.check_event(yaml.events.AliasEvent):
                raise yaml.YAMLError("an alias")
            return super().compose_node(parent, index)

    match = _FRONT_MATTER.match(card[:_MAX_FRONT_MATTER])
    if not match:
        return {}
    try:
        content = yaml.load(match.group(1), Loader=PlainLoader)
    except (yaml.YAMLError, RecursionError, ValueError):  # ValueError: a date with a thirteenth month
        return {}
    return content if isinstance(content, Mapping) else {}
