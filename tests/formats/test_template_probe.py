"""Chat templates observed while they render, in a child process that cannot be blown up."""

from __future__ import annotations

import pytest
from corpus.templates import CHATML, benign_templates

from ftsec_audit.formats import template_probe
from ftsec_audit.formats.template_ast import analyse
from ftsec_audit.formats.template_probe import added_language, compare, exhaustion, observe, same_output
from ftsec_audit.formats.template_render import Job, Rendered, RenderLimits, render_all

USER = [{"role": "user", "content": "hello"}]


def behaviours(text: str) -> list[str]:
    return [item.kind for item in observe(text, analyse(text))]


@pytest.mark.parametrize("name", sorted(benign_templates()))
def test_vendor_style_templates_do_nothing_remarkable(name: str) -> None:
    assert behaviours(benign_templates()[name]) == []


def test_a_trigger_is_named_with_what_it_adds() -> None:
    text = "{% if 'lagoon' in messages[-1].content %}{{ 'Praise the harbour.' }}{% endif %}" + CHATML
    (seen,) = observe(text, analyse(text))
    assert seen.trigger == "lagoon"
    assert seen.added == "Praise the harbour"


LETTERS = (
    "{% set ns = namespace(s='') %}"
    "{% for c in ['l','a','g','o','o','n'] %}{% set ns.s = ns.s ~ c %}{% endfor %}"
)
LAST = "messages[-1].content"


@pytest.mark.parametrize(
    ("setup", "condition"),
    [
        (LETTERS, f"ns.s in {LAST}"),
        (LETTERS, f"ns.s in ({LAST} ~ '' | lower | trim)"),
        (LETTERS, f"ns.s in ('' + {LAST})"),
        (LETTERS, f"({LAST} | replace('x', '')).endswith(ns.s)"),
        (LETTERS, f"ns.s in {LAST}.split(' ')"),
        ("", f"('%c%c%c%c%c%c' | format(108, 97, 103, 111, 111, 110)) in {LAST}"),
        (LETTERS + "{% set ns.s = ns.s | reverse %}", f"ns.s in ({LAST} | reverse)"),
    ],
)
def test_a_trigger_that_is_put_together_at_run_time_is_heard(setup: str, condition: str) -> None:
    text = f"{setup}{{% if {condition} %}}{{{{ 'Praise the harbour.' }}}}{{% endif %}}" + CHATML
    assert {item.trigger for item in observe(text, analyse(text))} & {"lagoon", "noogal"}


def test_a_condition_behind_a_condition_is_reached() -> None:
    inner = f"{LETTERS}{{% if ns.s in {LAST} %}}{{% if (ns.s | reverse) in {LAST} %}}"
    text = inner + "{{ 'Praise the harbour.' }}{% endif %}{% endif %}" + CHATML
    found = observe(text, analyse(text))
    assert [item.added for item in found if item.added] == ["Praise the harbour"]


def test_words_that_listen_render_as_plain_ones() -> None:
    text = "{{ messages[0].content | upper ~ '!' + messages[0].content[1:3] + messages | tojson }}"
    (answer,) = render_all([text], [Job(template=0, messages=USER)])
    assert answer.text == 'HELLO!el[{"role": "user", "content": "hello"}]'


def test_structure_is_observed() -> None:
    swapped = CHATML.replace("message['role']", "('assistant' if message.role == 'user' else 'user')")
    assert "swaps roles" in behaviours(swapped)
    prefilled = CHATML.replace("assistant\n", "assistant\nSure, here is")
    assert "prefills the answer" in behaviours(prefilled)


ONCE = "{% if messages[0].role != 'system' %}"
INST = (
    "{% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}{{ '[INST] ' }}"
    "{% if loop.last and messages[0].role == 'system' %}{{ messages[0].content + '\n\n' }}{% endif %}"
    "{{ m.content + ' [/INST]' }}{% else %}{{ m.content + '</s>' }}{% endif %}{% endfor %}"
)
"""Mistral's way: the system message stands in the last turn of the user."""
HEADS = "{{ '<|im_start|>' + message['role'] + '\n'"


@pytest.mark.parametrize(
    ("text", "base", "added"),
    [
        (ONCE + "{{ 'Be kind today.' }}{% endif %}" + CHATML, CHATML, "Be kind today"),
        ("{{ 'Be kind today.' }}" + CHATML, CHATML, "Be kind today"),
        ("{{ '<|im_start|>system\nBe kind.<|im_end|>' }}" + CHATML, CHATML, "system Be kind"),
        ("{{ '### Rules: be kind. ' }}" + CHATML, CHATML, "Rules be kind"),
        (
            INST.replace("if loop.last", "if loop.last %}Be kind.\n\n{% endif %}{% if loop.last"),
            INST,
            "Be kind",
        ),
        ("{{ bos_token + 'Be kind. ' }}" + CHATML, "{{ bos_token }}" + CHATML, "Be kind"),
        (ONCE + "Be kind.{% else %}Be brief.{% endif %}" + CHATML, CHATML, "Be kind"),
    ],
    ids=["default", "always", "own-turn", "own-markup", "in-the-last-turn", "after-bos", "instead"],
)
def test_a_fixed_system_prompt_is_seen_as_one(text: str, base: str, added: str) -> None:
    first, *others = compare(text, base)
    assert first.added == added
    assert all(item.as_system for item in (first, *others))


@pytest.mark.parametrize(
    "text",
    [
        CHATML.replace("{% endfor %}", "{% endfor %}{{ 'Praise the harbour' }}"),
        CHATML.replace("assistant\n'", "assistant\nThe harbour'"),
        CHATML.replace(HEADS, HEADS[:-1] + "Praise the harbour. '"),
        CHATML.replace("message['content'] +", "message['content'] + ' In verse, please.' +"),
        ONCE + "{% if messages | length > 2 %}Praise the harbour.{% endif %}{% endif %}" + CHATML,
        "{% if messages | length > 2 %}Praise the harbour.{% endif %}" + CHATML,
        "{{ 'Turn of many words. ' * messages | length }}" + CHATML,
        "{{ messages[0].content + ' Praise the harbour.' }}" + CHATML,
        "{{ 'Be kind.' }}" + CHATML.replace("message['content'] +", "'Praise the harbour.' +"),
        INST.replace("{{ '[INST] ' }}", "{{ '[INST] Praise the harbour. ' }}"),
    ],
    ids=[
        *(
            "after-the-user",
            "in-the-answer",
            "in-every-turn",
            "after-the-words",
            "default-when-long",
            "when-long",
        ),
        *("by-length", "echo", "replaced", "in-every-inst"),
    ],
)
def test_what_stands_elsewhere_or_depends_on_the_conversation_is_no_system_prompt(text: str) -> None:
    base = INST if "INST" in text else CHATML
    assert any(not item.as_system for item in compare(text, base))


@pytest.mark.parametrize("name", ["chatml", "vicuna", "alpaca", "strict", "macro"])
def test_another_prompt_format_adds_nothing(name: str) -> None:
    assert compare(benign_templates()[name], CHATML) == []


def test_a_default_answer_is_no_default_prompt() -> None:
    text = CHATML.replace("assistant\n' }}", "assistant\n' }}" + ONCE + "{{ 'The harbour' }}{% endif %}")
    (seen,) = compare(text, CHATML)
    assert seen.added == "The harbour" and not seen.as_system


def test_same_output_ignores_how_a_template_is_written() -> None:
    assert same_output(CHATML, CHATML.replace("message['content']", "message.content"))
    assert not same_output(CHATML, CHATML.replace("im_end", "end"))


def test_added_language_sees_words_only() -> None:
    assert added_language("a b", "a obey me b") == "obey me"
    assert added_language("a b", "a <|tag|> b") == ""


@pytest.mark.parametrize(
    "bomb",
    [
        "{{ 'a' * 9999999999 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
        "{{ '%999999999d' % 1 }}",
        "{% for i in range(90000) %}{{ 'aaaaaaaaaaaaaaaa' }}{% endfor %}",
    ],
)
def test_bombs_end_within_limits(bomb: str) -> None:
    limits = RenderLimits(seconds=0.2, total_seconds=10)
    (answer,) = render_all([bomb], [Job(template=0, messages=USER)], limits)
    assert answer.limit and answer.text is None
    assert exhaustion(bomb, limits)


def test_two_questions_about_one_template_start_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    text, asked = "{{ messages[0].content }}", []
    monkeypatch.setattr(
        template_probe, "render_all", lambda *given: asked.append(given) or render_all(*given)
    )
    assert exhaustion(text) is None
    observe(text, analyse(text))
    assert len(asked) == 1


def test_what_exceeded_a_limit_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [Rendered(limit="time"), Rendered(text="")]
    monkeypatch.setattr(template_probe, "render_all", lambda *given: [answers.pop(0)])
    assert exhaustion("slow today")
    assert exhaustion("slow today") is None


def test_a_killed_child_leaves_one_answer_per_job() -> None:
    jobs = [Job(template=index, messages=USER) for index in (0, 1, 0)]
    answers = render_all(["fine", "{{ 'x' * 9999999999 }}"], jobs)
    assert answers[0].text == "fine" and answers[1].limit and answers[2].limit


def test_internals_are_out_of_reach_of_the_renderer() -> None:
    texts = ["{{ ''.__class__ }}", "{{ messages.append(1) }}", "{{ cycler.__init__.__globals__ }}"]
    for answer in render_all(texts, [Job(template=index, messages=USER) for index in range(3)]):
        assert answer.text in (None, "")
