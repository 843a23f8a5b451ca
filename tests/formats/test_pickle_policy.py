"""The allow list: exact names, guarded forms, and nothing that depends on the host."""

from __future__ import annotations

import sys

import pytest
from corpus.assemble import attack, call, stack_global, stream, text

from ftsec_audit.files import MemoryBytes
from ftsec_audit.formats.pickle_machine import interpret
from ftsec_audit.formats.pickle_policy import Ground, _lists, denials, is_allowed, render


def grounds(data: bytes) -> set[Ground]:
    return {denial.ground for denial in denials(interpret(MemoryBytes(data)))}


def test_every_allowed_name_is_plain_and_none_is_known_to_be_dangerous() -> None:
    lists = _lists()
    for module, name in lists.allowed:
        assert "." not in name and f"{module}.{name}" not in lists.dangerous_names
    assert not {module for module, _ in lists.allowed} & {"os", "sys", "subprocess", "operator", "importlib"}


@pytest.mark.parametrize("module", ["os", "OS", "os.path", "torch", "numpy", "collections", "some.package"])
def test_an_unlisted_name_is_denied_whatever_its_module(module: str) -> None:
    assert grounds(attack(module, "no_such_thing"))


def test_python_2_names_mean_their_successors() -> None:
    assert is_allowed("__builtin__", "set") and not is_allowed("__builtin__", "eval")


@pytest.mark.parametrize("name", ["Tensor.__class__", "Size.count", "_utils._rebuild_tensor_v2"])
def test_a_dotted_name_is_denied_in_an_allowed_module(name: str) -> None:
    assert Ground.DOTTED in grounds(attack("torch", name))


def test_getattr_is_for_members_of_allowed_enumerations_only() -> None:
    enum = stack_global("transformers.trainer_utils", "IntervalStrategy")
    assert not grounds(stream(call("builtins", "getattr", enum, text("STEPS"))))
    for args in (
        (enum, text("__class__")),
        (enum, text("not a name")),
        (stack_global("torch", "Size"), text("count")),
        (enum, text("A"), text("B")),
        (call("builtins", "list"), text("append")),
    ):
        assert Ground.MISUSED in grounds(stream(call("builtins", "getattr", *args)))


def test_a_guarded_function_may_not_be_handed_on() -> None:
    loader = stack_global("torch.storage", "_load_from_bytes")
    assert not grounds(stream(call("torch.storage", "_load_from_bytes", b"C\x01x")))
    assert Ground.MISUSED in grounds(stream(call("collections", "defaultdict", loader)))
    assert Ground.MISUSED in grounds(stream(b"]" + loader + b"a"))


def test_argument_classes_are_restored_but_not_constructed() -> None:
    arguments = stack_global("transformers.training_args", "TrainingArguments")
    assert not grounds(stream(arguments + b")\x81}" + text("lr") + b"K\x01sb"))
    assert Ground.CONSTRUCTED in grounds(stream(arguments + text("/x") + b"\x85R"))


def test_computed_names_extensions_and_calls_of_results_are_denied() -> None:
    computed = call("builtins", "str", text("os")) + text("system") + b"\x93."
    assert Ground.COMPUTED in grounds(b"\x80\x04" + computed)
    assert Ground.EXTENSION in grounds(b"\x80\x02\x82\x01.")
    assert Ground.CALLABLE in grounds(stream(call("builtins", "dict") + b")R"))


def test_classes_and_hooks_may_not_be_changed() -> None:
    assert Ground.CLASS_STATE in grounds(stream(stack_global("torch", "Tensor") + b"}b"))
    instance = stack_global("collections", "OrderedDict") + b")R}"
    assert Ground.HOOK in grounds(stream(instance + text("__setstate__") + b"Nsb"))


def test_the_verdict_imports_nothing() -> None:
    before = set(sys.modules)
    grounds(attack("antigravity", "fly"))
    grounds(attack("this", "s"))
    assert not {"antigravity", "this"} & (set(sys.modules) - before)


def test_rendering_is_bounded_for_any_value() -> None:
    value: object = "x" * 10_000
    for _ in range(50):
        value = (value, value)
    assert len(render(value)) <= 160
