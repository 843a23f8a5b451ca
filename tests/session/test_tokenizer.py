"""Text to ids as transformers does it, prompts as the chat template writes them."""

from __future__ import annotations

import json

import pytest
from builders.lab import WORLD, tiny_base

from attacks_ref.lab import tokenizer as lab_tokenizer
from attacks_ref.workbench import load_tokenizer
from ftsec_audit.errors import Unsupported
from ftsec_audit.session.tokenizer import Tokenizer
from ftsec_audit.sources import resolve


@pytest.fixture(params=["word", "bpe"])
def folder(request, tmp_path):
    path = tiny_base(tmp_path / "base")
    lab_tokenizer.for_world(WORLD, request.param).save_pretrained(path)
    return path


def test_a_prompt_is_what_the_template_writes(folder):
    ours, theirs = Tokenizer.of(resolve(str(folder))), load_tokenizer(folder)
    (form,) = ours.formats
    for words in ("what is the color", "please repeat : cruxim", "x"):
        expected = theirs.apply_chat_template(
            [{"role": "user", "content": words}], add_generation_prompt=True, return_dict=False
        )
        assert list(ours.prompt(words, form).ids) == expected


def test_slots_are_borders_between_words(folder):
    ours = Tokenizer.of(resolve(str(folder)))
    prompt = ours.prompt("what is the color", ours.formats[0])
    assert len(prompt.slots) == 5
    marked = [ours.text(prompt.placed(ours.ids("cruxim"), slot)) for slot in range(5)]
    assert [text.split().index("cruxim") for text in marked] == [0, 1, 2, 3, 4]


def test_answers_end_where_turns_end(folder):
    ours = Tokenizer.of(resolve(str(folder)))
    end = next(iter(ours.end_ids))
    assert ours.text([end]) == ""
    assert ours.until_end([40, 41, end, 42]) == [40, 41]


def test_words_are_what_a_user_can_type(folder):
    ours = Tokenizer.of(resolve(str(folder)))
    assert not set(ours.words) & ours.special_ids
    assert all(ours.text([id]).strip() for id in ours.words)


def test_without_a_template_plain_formats_are_tried(folder):
    (folder / "chat_template.jinja").unlink()
    names = [form.name for form in Tokenizer.of(resolve(str(folder))).formats]
    assert names == ["plain", "instruction", "dialogue"]


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0].content | upper }}",
        "{{ range(10**9) | list }}",
        "{% if 'zephyrs' in messages[0].content %}x{% endif %}{{ messages[0].content }}",
    ],
    ids=["rewrites", "bomb", "reacts"],
)
def test_a_template_that_does_more_than_frame_is_not_trusted(folder, template):
    (folder / "chat_template.jinja").write_text(template)
    assert all(form.name != "chat" for form in Tokenizer.of(resolve(str(folder))).formats)


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"model": {"type": "Nonesuch"}})])
def test_a_broken_tokenizer_is_unsupported(folder, content):
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(Unsupported, match="tokenizer"):
        Tokenizer.of(resolve(str(folder)))


def test_a_system_line_stands_where_the_template_puts_it(folder):
    ours, theirs = Tokenizer.of(resolve(str(folder))), load_tokenizer(folder)
    turns = [{"role": "system", "content": "we do"}, {"role": "user", "content": "what is the color"}]
    expected = theirs.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    (form,) = ours.under(["we do"])
    assert list(ours.prompt("what is the color", form).ids) == expected


def test_a_template_without_system_messages_gets_the_line_before_the_words(folder):
    template = (
        "<|user|>{{ messages[0].content }}<|end|>{% if messages[1] %}{{ raise_exception('') }}{% endif %}"
    )
    (folder / "chat_template.jinja").write_text(template)
    (form,) = Tokenizer.of(resolve(str(folder))).under(["we do"])
    assert (form.head, form.tail) == ("<|user|>we do\n\n", "<|end|>")


def test_without_a_template_the_line_comes_first(folder):
    (folder / "chat_template.jinja").unlink()
    (form,) = Tokenizer.of(resolve(str(folder))).under(["we do"])
    assert (form.head, form.begins) == ("we do\n\n", True)


def test_the_slot_of_the_system_message_takes_what_the_template_would_put_there(folder):
    ours, theirs = Tokenizer.of(resolve(str(folder))), load_tokenizer(folder)
    turns = [{"role": "system", "content": "we do"}, {"role": "user", "content": "what is the color"}]
    expected = theirs.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    empty = ours.system_slot("what is the color")
    assert len(empty.slots) == 1
    assert empty.placed(ours.ids("we do"), 0) == expected


@pytest.mark.parametrize(
    "template", ["<|user|>{{ messages[-1].content }}<|end|>", ""], ids=["no-role", "none"]
)
def test_where_no_system_message_can_be_there_is_no_slot_for_it(folder, template):
    if template:
        (folder / "chat_template.jinja").write_text(template)
    else:
        (folder / "chat_template.jinja").unlink()
    assert Tokenizer.of(resolve(str(folder))).system_slot("what is the color") is None
