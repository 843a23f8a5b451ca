"""How well colours of a style sheet can be told apart, as WCAG 2.2 counts it."""

from __future__ import annotations

import re


def palette(styles: str, theme: str) -> dict[str, str]:
    """The colours by name; of a sheet whose second `:root` block is that of the dark theme."""
    blocks = re.findall(r":root \{(.*?)\}", styles, re.DOTALL)
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in blocks[:2])
    return light if theme == "light" else light | dark


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
