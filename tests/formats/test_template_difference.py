from __future__ import annotations

from ftsec_audit.formats.chat_template import TemplateCopy
from ftsec_audit.formats.template_difference import difference


def _copy(text: str, file: str = "chat_template.jinja") -> TemplateCopy:
    return TemplateCopy(file, "default", text)


def test_what_differs_is_shown_with_the_lines_around_it() -> None:
    before = "\n".join(f"line {i}" for i in range(20))
    text = difference(_copy(before, "a.json"), _copy(before.replace("line 9\n", "line 9!\n")))
    assert text.split("\n")[:3] == ["--- a.json", "+++ chat_template.jinja", "@@ -7,7 +7,7 @@"]
    assert "-line 9\n+line 9!\n" in text
    assert "line 2" not in text


def test_a_template_on_one_line_is_broken_after_its_tags() -> None:
    before = "{% if a %}" + "x" * 200 + "{% endif %}"
    text = difference(_copy(before), _copy(before + "{{ 'hidden' }}"), before_is_base=True)
    assert text.startswith("--- chat_template.jinja of the base\n")
    assert "+{{ 'hidden' }}" in text.split("\n")


def test_equal_or_endless_templates_have_no_diff() -> None:
    assert difference(_copy("a"), _copy("a")) == ""
    assert difference(_copy("a\n" * 5_000), _copy("b\n" * 5_000)) == ""
    wide = difference(_copy("a"), _copy("b" * 100_000))
    assert len(wide) < 1_000
    assert wide.endswith("…")
