from __future__ import annotations

import time

import pytest

from ftsec_audit.sources.model_card import declared_bases, statements


@pytest.mark.parametrize(
    ("card", "bases"),
    [
        ("---\nbase_model: org/base\nlicense: mit\n---\n# Model", ("org/base",)),
        ("\ufeff---\r\nbase_model: org/base\r\n---\r\n", ("org/base",)),
        ("---\nbase_model:\n- org/a\n- org/b\n---\n", ("org/a", "org/b")),
        ("---\nbase_model: [org/a, 7, '']\n---", ("org/a",)),
        ("---\nlicense: mit\n---\n", ()),
        ("---\nbase_model: 2024-13-45\n---\n", ()),
        ("---\nbase_model: {a: b}\n---\n", ()),
        ("---\n- base_model\n---\n", ()),
        ("# base_model: org/base", ()),
        ("---\nbase_model: org/base\n", ()),
        ("---\n: : :\n\t---\n---\n", ()),
        ("---\nbase_model: !!python/object/apply:os.system [id]\n---\n", ()),
        ("", ()),
    ],
)
def test_bases_named_in_front_matter(card: str, bases: tuple[str, ...]) -> None:
    assert declared_bases(card) == bases


def test_hostile_front_matter_costs_neither_time_nor_stack() -> None:
    start = time.process_time()
    assert declared_bases("---\na: " + "[" * 50_000 + "\n---\n") == ()
    merges = "\n".join(f"k{i}: &k{i} {{<<: [{', '.join([f'*k{i - 1}'] * 10)}]}}" for i in range(1, 30))
    assert declared_bases(f"---\nk0: &k0 {{a: b}}\n{merges}\nbase_model: org/base\n---\n") == ()
    assert declared_bases("---\n" + "x" * 2_000_000 + "\n---\n") == ()
    assert time.process_time() - start < 5


def test_what_a_card_states_is_short_text_under_known_keys() -> None:
    card = (
        "---\nlicense: apache-2.0\nlanguage: [en, {x: y}, 3, '  de ']\ntags: []\nsecret: x\n"
        f"datasets:\n{''.join(f'  - d{i}' + chr(10) for i in range(80))}pipeline_tag: {'t' * 500}\n---\n"
    )
    stated = statements(card)
    assert stated["license"] == ["apache-2.0"]
    assert stated["language"] == ["en", "de"]
    assert stated["datasets"] == [f"d{i}" for i in range(50)]
    assert stated["pipeline_tag"] == ["t" * 200]
    assert set(stated) == {"license", "language", "datasets", "pipeline_tag"}
    assert statements("no front matter") == statements("---\n- a list\n---\n") == {}
