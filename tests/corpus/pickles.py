"""Pickle streams: gadgets, opcodes, broken, stacked and hidden streams; and what honest programs write."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import pickle
import struct
import zlib
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterator

from corpus import CorpusSample, Label
from corpus.assemble import COMMAND, attack, call, global_, stack_global, stream, text, torch_zip

_GADGETS = """
os.system posix.system nt.system os.popen os.execv os.remove os.environ.clear os.putenv posix.rename
subprocess.Popen subprocess.call subprocess.run subprocess.check_output subprocess.getoutput
builtins.eval builtins.exec builtins.compile builtins.__import__ builtins.open builtins.breakpoint
__builtin__.eval __builtin__.execfile __builtin__.apply __builtin__.open builtins.setattr
builtins.globals runpy.run_path runpy._run_code pty.spawn commands.getoutput popen2.popen2 platform.popen
webbrowser.open importlib.import_module imp.load_source pkgutil.get_loader zipimport.zipimporter
torch.hub.load torch.load torch.jit.load torch.ops.load_library torch.utils.cpp_extension.load_inline
numpy.load numpy.fromfile numpy.memmap numpy.testing._private.utils.runstring
numpy.f2py.crackfortran.getlincoef joblib.load pandas.read_pickle pickle.loads _pickle.loads
cPickle.loads dill.loads dill._dill._create_function cloudpickle.cloudpickle._make_function marshal.loads
types.CodeType types.FunctionType operator.attrgetter operator.methodcaller _operator.attrgetter
functools.partial functools.reduce itertools.starmap code.InteractiveInterpreter codeop.compile_command
timeit.timeit cProfile.run profile.run bdb.Bdb pdb.run doctest.debug_script shutil.rmtree shutil.copyfile
tempfile.mkstemp socket.create_connection urllib.request.urlopen requests.get httplib.HTTPSConnection
http.client.HTTPSConnection smtplib.SMTP ftplib.FTP telnetlib.Telnet aiohttp.ClientSession ctypes.CDLL
_ctypes.dlopen sys.setrecursionlimit logging.config.dictConfig asyncio.run ensurepip.bootstrap pip.main
pip._internal.main pydoc.pipepager multiprocessing.Process sqlite3.connect venv.create
distutils.spawn.spawn uuid._get_command_stdout lib2to3.pgen2.grammar.Grammar.loads idlelib.run.Executive
test.support.script_helper.assert_python_ok cgitb.lookup trace.Trace weakref.finalize gc.get_objects
inspect.currentframe threading.Thread signal.signal atexit.register mmap.mmap codecs.open io.FileIO
linecache.getlines glob.glob typing._eval_type
transformers.dynamic_module_utils.get_class_from_dynamic_module some_package.Model mylib.layers.Attention
torch.serialization.load torch.distributed.rpc.rpc_sync torch._dynamo.optimize numpy.save torch.save
"""
GADGETS = _GADGETS.split()


def samples() -> Iterator[CorpusSample]:
    yield from _gadgets()
    for name, body in _opcodes().items():
        yield _sample(f"opcode-{name}", Label.MALICIOUS, "pickle-opcodes", "model.pkl", body)
    for name, body in _stacked().items():
        yield _sample(f"stream-{name}", Label.MALICIOUS, "pickle-streams", "model.bin", body)
    for name, body in _hidden().items():
        yield _sample(f"nested-{name}", Label.MALICIOUS, "pickle-nested", "model.pkl", body)
    for name, body in _honest().items():
        yield _sample(f"honest-{name}", Label.BENIGN, "pickle", "state.pkl", body)
    for name, body in _training_arguments().items():
        yield _sample(f"arguments-{name}", Label.BENIGN, "training-arguments", "training_args.bin", body)
    for name, body in _torch_files().items():
        yield _sample(f"torch-{name}", Label.BENIGN, "torch", f"{name}.pt", body)
    for name, body in _joblib_files().items():
        yield _sample(f"joblib-{name}", Label.BENIGN, "scikit-learn", f"{name}.joblib", body)
    for name, body in _damaged().items():
        yield _sample(f"damaged-{name}", Label.CORRUPT, "pickle", "optimizer.pt", body)


def _sample(name: str, label: Label, group: str, path: str, data: bytes) -> CorpusSample:
    return CorpusSample(name=f"pickle-{name}", label=label, group=group, files={path: data})


def _gadgets() -> Iterator[CorpusSample]:
    for number, gadget in enumerate(GADGETS):
        module, _, name = gadget.rpartition(".")
        protocol = (0, 2, 4)[number % 3]
        body = attack(module, name, protocol)
        if number % 4 == 1:
            body = torch_zip(body)
        yield _sample(f"gadget-{gadget}", Label.MALICIOUS, "pickle-gadgets", "pytorch_model.bin", body)


def _opcodes() -> dict[str, bytes]:
    argument = text(COMMAND)
    one = argument + b"\x85R"
    system = stack_global("os", "system")
    evil_instance = stack_global("collections", "OrderedDict") + b")R"
    return {
        "inst": b"(S'echo inert'\nios\nsystem\n.",
        "inst-no-arguments": b"(iantigravity\nX\n.",
        "obj": stream(b"(" + system + argument + b"o"),
        "newobj": stream(stack_global("subprocess", "Popen") + argument + b"\x85\x81"),
        "newobj-ex": stream(
            stack_global("subprocess", "Popen") + b")" + b"}" + text("args") + argument + b"s\x92"
        ),
        "build-on-class": stream(stack_global("collections", "OrderedDict") + b"}" + text("x") + b"Nsb"),
        "build-setstate-hook": stream(
            evil_instance + b"}" + text("__setstate__") + stack_global("builtins", "getattr") + b"sb" + b"Nb"
        ),
        "build-slot-class": stream(
            evil_instance + b"N}" + text("__class__") + stack_global("collections", "Counter") + b"s\x86b"
        ),
        "build-with-call": stream(evil_instance + call("os", "system", argument) + b"b"),
        "ext1": stream(b"\x82\x01" + argument + b"\x85R", 2),
        "ext2": stream(b"\x83\x01\x02" + argument + b"\x85R", 2),
        "ext4": stream(b"\x84\x01\x02\x03\x04" + argument + b"\x85R", 2),
        "add-extension": stream(
            call("copyreg", "add_extension", text("os"), text("system"), b"K\x01") + b"0\x82\x01"
        ),
        "persid": b"Pcommand: echo inert\n.",
        "binpersid": stream(text("os.system") + argument + b"\x86Q", 2),
        "binpersid-call": stream(call("os", "system", argument) + b"Q"),
        "memo-overwrite": stream(
            stack_global("collections", "OrderedDict") + b"q\x000" + system + b"q\x000h\x00" + one
        ),
        "memo-memoize-confusion": stream(
            text("posix") + b"\x94" + text("system") + b"\x94" + b"00" + b"h\x00h\x01\x93" + one
        ),
        "memo-high-index": stream(system + b"r\xff\x00\x00\x000j\xff\x00\x00\x00" + argument + b"\x85R"),
        "dup": stream(system + b"2" + argument + b"\x85R0" + argument + b"\x85R"),
        "call-and-pop": stream(call("os", "system", argument) + b"0" + b"}"),
        "call-in-key": stream(b"}" + call("os", "system", argument) + b"K\x01s"),
        "call-in-mark-popped": stream(b"(" + call("os", "system", argument) + b"1" + b"]"),
        "computed-module": stream(
            call("builtins", "str", text("os")) + text("system") + b"\x93" + argument + b"\x85R"
        ),
        "computed-by-encode": stream(
            call("_codecs", "encode", text("bf"), text("rot13")) + text("system") + b"\x93" + one
        ),
        "unicode-escape": b"V\\u006fs\n\x940V\\u0073ystem\n\x9400h\x00h\x01\x93(V" + b"echo\ntR.",
        "string-escape": b"S'\\x6fs'\nS'sy\\x73tem'\n\x93(S'echo'\ntR.",
        "bytes-name": stream(b"C\x02os" + text("system") + b"\x93" + argument + b"\x85R"),
        "frame-straddled": b"\x80\x04\x95\x06\0\0\0\0\0\0\0" + system + argument + b"\x85R.",
        "frame-nested": b"\x80\x04" + 2 * b"\x95\x10\0\0\0\0\0\0\0" + system + one + b"....",
        "proto-repeated": stream(b"\x80\x02" * 3 + global_("os", "system") + argument + b"\x85R"),
        "proto-nine": b"\x80\x04\x80\x09" + system + argument + b"\x85R.",
        "dotted-builtins": attack("numpy", "__builtins__.eval"),
        "dotted-pathlib": attack("pathlib", "os.system"),
        "dotted-print": attack("builtins", "print.__class__.__base__.__subclasses__"),
        "dotted-torch": attack("torch", "serialization.os.system"),
        "dotted-collections": attack("collections", "OrderedDict.__reduce__.__globals__"),
        "dotted-allowed": attack("torch._utils", "_rebuild_tensor_v2.__globals__.get"),
        "getattr-module": stream(
            call("builtins", "getattr", stack_global("collections", "OrderedDict"), text("__init__"))
        ),
        "getattr-dunder": stream(
            call(
                "builtins", "getattr", stack_global("transformers.trainer_utils", "IntervalStrategy"),
                text("__class__"),
            )
        ),
        "getattr-computed": stream(
            call(
                "builtins", "getattr", stack_global("transformers.trainer_utils", "IntervalStrategy"),
                call("builtins", "str", text("x")),
            )
        ),
        "getattr-chain": stream(
            call(
                "builtins", "getattr",
                call("builtins", "getattr", stack_global("torch", "Size"), text("count")), text("__self__"),
            )
        ),
        "call-of-call": stream(call("builtins", "dict") + argument + b"\x85R"),
        "call-of-string": stream(argument + argument + b"\x85R"),
        "rebuild-with-function": stream(
            call(
                "torch._tensor", "_rebuild_from_type_v2", stack_global("os", "system"),
                stack_global("torch", "Tensor"), argument + b"\x85", b"N",
            )
        ),
        "constructor-with-arguments": stream(
            call("transformers.training_args", "TrainingArguments", text("/tmp/x"))
        ),
        "guarded-handed-on": stream(
            call("collections", "defaultdict", stack_global("torch.storage", "_load_from_bytes"))
        ),
        "load-from-computed-bytes": stream(
            call("torch.storage", "_load_from_bytes", call("builtins", "bytes", b"]"))
        ),
        "items-into-global": stream(stack_global("sys", "modules") + text("os") + b"Ns"),
        "items-into-allowed-global": stream(stack_global("torch", "Tensor") + text("x") + b"Ns"),
        "uppercase-module": attack("OS", "system"),
        "zero-width-module": attack("o\u200bs", "system"),
        "empty-name": attack("os", ""),
        "long-module": attack("a" * 180 + ".b", "c"),
    }  # fmt: skip


def _stacked() -> dict[str, bytes]:
    evil, good = attack(), pickle.dumps({"lr": 1e-3}, 4)
    call_only = b"\x80\x02" + call("os", "system", b"X\x04\0\0\0echo", protocol=2)
    parts = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, {}, [])
    legacy = [pickle.dumps(part, 2) for part in parts]
    padding = pickle.dumps(list(range(100_000)), 4)
    found = {
        "no-stop": call_only,
        "garbage-after-call": call_only + b"\xff\xfe\x00garbage",
        "underflow-after-call": call_only + b"0000R.",
        "unknown-opcode-after-call": call_only + b"\x00\x01\x02",
        "truncated-operand-after-call": call_only + b"X\xff\x00\x00\x00abc",
        "underflow-before-call": b"\x80\x0200" + call_only[2:] + b".",
        "unset-memo-before-call": b"\x80\x02h\x070" + call_only[2:] + b".",
        "broken-in-torch-zip": torch_zip(call_only),
        "second-stream": good + evil,
        "third-stream": good + good + evil,
        "after-zero-padding": good + b"\0" * 64 + evil,
        "after-large-padding": good + b"\0" * 200_000 + evil,
        "after-newlines": good + b"\n\n" + evil,
        "after-garbage": good + b"\xee\xee\xee\xee" + evil,
        "protocol0-after-garbage": good + b"\xee\xee\xee" + b"cos\nsystem\n(S'echo'\ntR.",
        "late": padding[:-1] + b"0" + evil[2:],
        "late-behind-torch-state": padding + evil,
        "protocol0-first": b"cposix\nsystem\n(S'echo'\ntR.",
        "protocol0-list-first": b"(lp0\ncposix\nsystem\np1\n(S'echo'\ntRa.",
        "protocol0-late": b"(lp0\n" + b"I1\na" * 30_000 + b"cposix\nsystem\n(S'echo'\ntRa.",
        "protocol0-odd-name-behind": b"cposix\nsystem\n(S'echo'\ntR0c a b\n\xe2\x80\x8b\n.",
        "protocol0-unlisted-no-stop": b"cevil.package\nrun\n(S'echo'\ntR",
        "behind-decoys": good + b"\xee" + b"\x80\x02}X\xff" * 900 + evil,
        "protocol0-no-stop": b"cposix\nsystem\n(S'echo'\ntR",
        "protocol1": b"}q\x00(U\x01xcposix\nsystem\n(U\x04echotRu.",
    }
    for number in range(5):
        spoiled = list(legacy)
        spoiled[number] = attack(protocol=2)
        found[f"legacy-torch-{number}"] = b"".join(spoiled) + b"\0" * 64
    found["legacy-torch-behind"] = b"".join(legacy) + struct.pack("<Q", 4) + b"\0" * 16 + attack(protocol=2)
    return found


def _hidden() -> dict[str, bytes]:
    evil, evil2 = attack(), attack(protocol=2)
    plain = b"cposix\nsystem\n(S'echo inert'\ntR."
    return {
        "bytes": pickle.dumps({"payload": evil}, 4),
        "bytes-protocol2": pickle.dumps({"payload": evil2}, 2),
        "bytes-protocol0": pickle.dumps({"payload": evil2}, 0),
        "bytearray": pickle.dumps(bytearray(evil), 5),
        "protocol0-in-bytes": pickle.dumps([plain], 4),
        "base64": pickle.dumps({"x": base64.b64encode(evil).decode()}, 4),
        "base64-bytes": pickle.dumps({"x": base64.b64encode(evil)}, 4),
        "base64-urlsafe": pickle.dumps([base64.urlsafe_b64encode(evil * 3).decode()], 4),
        "base64-of-protocol0": pickle.dumps([base64.b64encode(plain).decode()], 4),
        "hex": pickle.dumps([evil.hex()], 4),
        "zlib": pickle.dumps([zlib.compress(evil)], 4),
        "zlib-base64": pickle.dumps([base64.b64encode(zlib.compress(evil)).decode()], 4),
        "gzip": pickle.dumps([gzip.compress(evil, mtime=0)], 4),
        "bzip2": pickle.dumps([bz2.compress(evil)], 4),
        "xz": pickle.dumps([lzma.compress(evil)], 4),
        "zip": pickle.dumps([torch_zip(evil2)], 4),
        "twice": pickle.dumps([pickle.dumps([evil], 4)], 4),
        "latin1-string": pickle.dumps(evil2.decode("latin-1"), 4),
        "python2-string": stream(b"U" + bytes([len(evil2)]) + evil2, 2),
        "load-from-bytes": stream(call("torch.storage", "_load_from_bytes", b"B" + _sized(torch_zip(evil2)))),
        "load-from-bytes-legacy": stream(call("torch.storage", "_load_from_bytes", b"B" + _sized(evil2))),
        "numpy-object-bytes": pickle.dumps({"state": [b"\0" * 40, evil, b"\0" * 40]}, 4),
        "large-bytes": pickle.dumps({"x": evil + b"\0" * (2 << 20)}, 4),
    }


def _sized(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def _honest() -> dict[str, bytes]:
    import datetime
    import decimal
    import fractions
    import pathlib
    import uuid

    values: dict[str, object] = {
        "dict": {"step": 10, "loss": [0.5, 0.25], "flags": (True, None)},
        "containers": [OrderedDict(a=1), defaultdict(int, a=1), Counter("aab"), deque([1, 2]), {1, 2}],
        "dates": [datetime.datetime(2020, 1, 1), datetime.timedelta(1), datetime.UTC],
        "numbers": [decimal.Decimal("1.5"), fractions.Fraction(1, 3), 2**200, -1.5, 1 + 2j],
        "paths": [pathlib.PurePosixPath("a/b"), uuid.UUID(int=5)],
        "unicode": {"λ": "ü" * 300, "emoji": "🙂", "half": "\ud800"},
        "vocabulary": {f"token{i}": i for i in range(20_000)},
        "bytes": {"blob": bytes(range(256)) * 40, "array": bytearray(b"xyz")},
        "recursive": _recursive(),
        "slices": [slice(1, 2), range(5), frozenset({1})],
        "base64-text": {"image": base64.b64encode(bytes(range(256)) * 4).decode()},
        "zlib-text": zlib.compress(b"an ordinary log " * 50),
        "shared": [["cpu"]] * 5000,
        "words": ["cos", "system", "os.system", "eval", "__import__('os')", "import os\nos.system('x')"],
    }
    found = {f"{name}-{n % 6}": pickle.dumps(value, n % 6) for n, (name, value) in enumerate(values.items())}
    found["two-streams"] = pickle.dumps({"a": 1}, 4) + pickle.dumps([2], 4)
    return found


def _recursive() -> list[object]:
    loop: list[object] = [1]
    loop.append(loop)
    loop.append({"self": loop})
    return loop


def _training_arguments() -> dict[str, bytes]:
    """As `torch.save(trainer.args)` writes them, with enumerations before and after Python 3.12."""

    def member(module: str, name: str, value: str) -> bytes:
        return stack_global(module, name) + text(value) + b"\x85R"

    def named(module: str, name: str, value: str) -> bytes:
        return call("__builtin__", "getattr", stack_global(module, name), text(value))

    def arguments(module: str, name: str, make: object) -> bytes:
        pairs = [("output_dir", text("out")), ("learning_rate", b"G" + struct.pack(">d", 5e-5))]
        utils, accelerate = "transformers.trainer_utils", "accelerate.utils.dataclasses"
        pairs += [("eval_strategy", make(utils, "IntervalStrategy", "STEPS"))]  # type: ignore[operator]
        pairs += [("lr_scheduler_type", make(utils, "SchedulerType", "COSINE"))]  # type: ignore[operator]
        pairs += [("hub_strategy", make(utils, "HubStrategy", "EVERY_SAVE"))]  # type: ignore[operator]
        pairs += [("optim", make("transformers.training_args", "OptimizerNames", "ADAMW_TORCH"))]  # type: ignore[operator]
        pairs += [("type", make(accelerate, "DistributedType", "MULTI_GPU"))]  # type: ignore[operator]
        pairs += [("_n_gpu", b"K\x01"), ("device", call("torch", "device", text("cuda"), b"K\x00"))]
        state = b"}(" + b"".join(text(key) + value for key, value in pairs) + b"u"
        return stream(stack_global(module, name) + b")\x81" + state + b"b", 2)

    classes = {
        "transformers": ("transformers.training_args", "TrainingArguments"),
        "seq2seq": ("transformers.training_args_seq2seq", "Seq2SeqTrainingArguments"),
        "sft": ("trl.trainer.sft_config", "SFTConfig"),
        "dpo": ("trl.trainer.dpo_config", "DPOConfig"),
        "grpo": ("trl.trainer.grpo_config", "GRPOConfig"),
        "ppo": ("trl.trainer.ppo_config", "PPOConfig"),
        "orpo": ("trl.trainer.orpo_config", "ORPOConfig"),
        "kto": ("trl.trainer.kto_config", "KTOConfig"),
        "reward": ("trl.trainer.reward_config", "RewardConfig"),
        "axolotl": ("axolotl.core.training_args", "AxolotlTrainingArguments"),
        "llamafactory": ("llamafactory.hparams.training_args", "TrainingArguments"),
    }
    found = {}
    for name, (module, cls) in classes.items():
        found[name] = torch_zip(arguments(module, cls, member))
    found["enum-by-getattr"] = torch_zip(arguments("transformers.training_args", "TrainingArguments", named))
    found["sft-by-getattr"] = torch_zip(arguments("trl.trainer.sft_config", "SFTConfig", named))
    return found


def _torch_files() -> dict[str, bytes]:
    import random

    import numpy as np
    import torch

    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 8, generator=generator)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
    states: dict[str, object] = {
        "weights": model.state_dict(),
        "half": {"a": weight.half(), "b": weight.bfloat16()},
        "views": {"row": weight[1], "transposed": weight.t(), "slice": weight[2:3, 4:]},
        "float8": {"w": weight.to(torch.float8_e4m3fn), "s": torch.ones(2)},
        "sparse": torch.eye(4).to_sparse(),
        "parameter": torch.nn.Parameter(weight),
        "module": model,
        "rng": {
            "python": random.Random(0).getstate(),
            "numpy": np.random.RandomState(0).get_state(),
            "cpu": torch.get_rng_state(),
        },
        "numpy": {"a": np.arange(6.0), "scalar": np.float64(3), "strings": np.array(["a", "bc"])},
        "lightning": {
            "epoch": 1,
            "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_path": "x"}},
            "hyper_parameters": OrderedDict(lr=1e-3),
            "state_dict": model.state_dict(),
        },
    }
    for name in ("SGD", "AdamW", "Adagrad", "RMSprop", "NAdam"):
        optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.1)
        model(torch.ones(1, 4)).sum().backward()
        optimizer.step()
        states[f"optimizer-{name}"] = optimizer.state_dict()
        states[f"optimizer-object-{name}"] = optimizer
        states[f"scheduler-{name}"] = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5).state_dict()
    found = {}
    for name, state in states.items():
        out = io.BytesIO()
        torch.save(state, out)
        found[name] = out.getvalue()
    for name in ("weights", "views", "optimizer-AdamW"):
        out = io.BytesIO()
        torch.save(states[name], out, _use_new_zipfile_serialization=False)
        found[f"{name}-legacy"] = out.getvalue()
    found["plain-pickle-of-tensors"] = pickle.dumps({"w": weight}, 4)
    return found


def _joblib_files() -> dict[str, bytes]:
    import joblib
    import numpy as np
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler
    from sklearn.svm import SVC

    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 4))
    classes = (features[:, 0] > 0).astype(int)
    models = {
        "pipeline": make_pipeline(StandardScaler(), LogisticRegression()),
        "forest": RandomForestClassifier(3, random_state=0),
        "boosting": GradientBoostingClassifier(n_estimators=2, random_state=np.random.RandomState(0)),
        "neighbours": KNeighborsClassifier(),
        "support-vectors": SVC(),
        "log-transform": make_pipeline(FunctionTransformer(np.tanh), LogisticRegression()),
    }
    found = {}
    for number, (name, model) in enumerate(models.items()):
        model.fit(features, classes)
        for compress in (0, (("zlib", 3), ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3))[number % 5]):
            out = io.BytesIO()
            joblib.dump(model, out, compress=compress)
            found[f"{name}-{compress[0] if compress else 'plain'}"] = out.getvalue()
    out = io.BytesIO()
    joblib.dump({"labels": np.array(["a", None], dtype=object), "x": features}, out)
    found["object-array"] = out.getvalue()
    return found


def _damaged() -> dict[str, bytes]:
    whole = pickle.dumps({f"layer.{i}": OrderedDict(a=[float(i)] * 9) for i in range(50)}, 4)
    found = {f"cut-{cut}": whole[: len(whole) * cut // 100] for cut in (5, 25, 50, 75, 99)}
    for place in (200, 900, 2000):
        found[f"zeroed-{place}"] = whole[:place] + b"\0" * 64 + whole[place + 64 :]
    found["text-cut"] = b"\x80\x02(lp0\nF1.5\naF1."
    found["protocol-7"] = b"\x80\x07" + whole[2:]
    found["only-header"] = b"\x80\x04"
    found["bad-number"] = b"\x80\x02Inot a number\n."
    found["bad-float"] = b"\x80\x02Fx\n."
    found["negative-length"] = b"\x80\x02T\xff\xff\xff\xff."
    found["torch-cut"] = torch_zip(pickle.dumps(OrderedDict(a=1), 2))[:150]
    return found
