"""What the spelling of a token in a vocabulary stands for: its text, and the script that is written in."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from functools import cache

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_LANGUAGES = {
    "GREEK": "el",
    "HANGUL": "ko",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "HEBREW": "he",
    "THAI": "th",
    "GEORGIAN": "ka",
    "ARMENIAN": "hy",
    "TAMIL": "ta",
    "TELUGU": "te",
    "KHMER": "km",
    "LAO": "lo",
}


def is_byte_level(tokens: Iterable[str]) -> bool:
    """Whether a vocabulary spells bytes as GPT-2 does, told by its sign for a space before a word."""
    return any(token.startswith("Ġ") for token in tokens)


def plain(token: str, *, byte_level: bool) -> str:
    """The text that an entry of a vocabulary stands for; bytes that are no text become U+FFFD."""
    table = _byte_level() if byte_level else {}
    if byte_level and all(character in table for character in token):
        return bytes(table[character] for character in token).decode("utf-8", "replace")
    single = _BYTE.fullmatch(token)
    if single:
        return bytes([int(single[1], 16)]).decode("utf-8", "replace")
    return token.replace("▁", " ")


def script(text: str) -> str:
    """The script of most letters, as Unicode names them (`LATIN`, `CYRILLIC`, `CJK`), or nothing."""
    names = (unicodedata.name(character, "").split(" ")[0] for character in text if character.isalpha())
    counted = Counter(name for name in names if name)
    return counted.most_common(1)[0][0] if counted else ""


def language(text: str) -> str:
    """The code of the only widely written language of the text's script; nothing where there are several."""
    return _LANGUAGES.get(script(text), "")


@cache
def _byte_level() -> dict[str, int]:
    """GPT-2's table, character → byte: printable Latin-1 stands for itself, the rest starts at U+0100."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in kept]
    return {chr(byte): byte for byte in kept} | {chr(256 + n): byte for n, byte in enumerate(others)}
