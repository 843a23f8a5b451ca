"""ONNX, Keras, TensorFlow, NeMo, TorchServe and TorchScript: references and code in other formats."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections.abc import Iterator, Sequence

from corpus import CorpusSample, Label
from corpus.assemble import field, tar_file, torch_zip, zip_file

_HDF5 = b"\x89HDF\r\n\x1a\n" + b"\0" * 88
_STATE = pickle.dumps({"a": 1}, 2)
_ELF = b"\x7fELF" + b"\0" * 60


def samples() -> Iterator[CorpusSample]:
    for name, data in _hostile_onnx().items():
        yield _sample(f"onnx-{name}", Label.MALICIOUS, "onnx", "model.onnx", data)
    for name, (path, data) in _hostile().items():
        yield _sample(f"foreign-{name}", Label.MALICIOUS, "foreign-code", path, data)
    for name, data in _honest_onnx().items():
        yield _sample(f"onnx-{name}", Label.BENIGN, "onnx", "model.onnx", data)
    for name, (path, data) in _honest().items():
        yield _sample(f"foreign-{name}", Label.BENIGN, "foreign", path, data)
    for name, (path, data) in _damaged().items():
        yield _sample(f"damaged-{name}", Label.CORRUPT, "foreign", path, data)


def _sample(name: str, label: Label, group: str, path: str, data: bytes) -> CorpusSample:
    return CorpusSample(name=name, label=label, group=group, files={path: data})


# ONNX (field numbers of onnx.proto)


def _node(operator: str, domain: str = "", attributes: Sequence[bytes] = ()) -> bytes:
    parts = field(1, "x") + field(2, "y") + field(4, operator)
    return parts + (field(7, domain) if domain else b"") + b"".join(field(5, a) for a in attributes)


def _tensor(name: str, location: str | None = None, **more: str) -> bytes:
    body = field(1, 4) + field(2, 1) + field(8, name)
    if location is None:
        return body + field(9, b"\0" * 16)
    pairs = {"location": location, **more}
    entries = b"".join(field(13, field(1, key) + field(2, value)) for key, value in pairs.items())
    return body + entries + field(14, 1)


def _model(
    nodes: Sequence[bytes] = (),
    tensors: Sequence[bytes] = (),
    opsets: Sequence[str] = ("",),
    more: bytes = b"",
) -> bytes:
    graph = b"".join(field(1, n) for n in nodes) + field(2, "g") + b"".join(field(5, t) for t in tensors)
    imports = b"".join(field(8, (field(1, o) if o else b"") + field(2, 17)) for o in opsets)
    return field(1, 9) + field(2, "exporter") + field(7, graph) + imports + more


def _function(domain: str, name: str) -> bytes:
    body = field(1, name) + field(4, "x") + field(5, "y") + field(7, _node("Relu")) + field(10, domain)
    return field(25, body)


def _hostile_onnx() -> dict[str, bytes]:
    locations = {
        "absolute": "/etc/passwd",
        "parent": "../../../etc/passwd",
        "parent-inside": "data/../../secret",
        "backslash-parent": "..\\..\\secret",
        "drive": "C:\\Windows\\win.ini",
        "unc": "\\\\host\\share\\x",
        "http": "http://example.invalid/x",
        "file-address": "file:///etc/passwd",
        "s3": "s3://bucket/x",
        "empty": "",
        "nul": "weights.bin\0.txt",
    }
    found = {
        f"external-{name}": _model([_node("Relu")], [_tensor("w", location)])
        for name, location in locations.items()
    }
    found["external-offset"] = _model([_node("Relu")], [_tensor("w", "w.bin", offset="-1")])
    found["external-second"] = _model(
        [_node("Relu")], [_tensor("a", "w.bin"), _tensor("b", "/proc/self/mem")]
    )
    constant = field(1, "value") + field(5, _tensor("c", "/etc/shadow"))
    found["external-in-attribute"] = _model([_node("Constant", attributes=[constant])])
    inner = field(1, _node("Relu")) + field(2, "inner") + field(5, _tensor("w", "/etc/passwd"))
    found["external-in-subgraph"] = _model([_node("If", attributes=[field(1, "then") + field(6, inner)])])
    sparse = field(15, field(1, _tensor("v", "../v")) + field(2, _tensor("i")))
    found["external-sparse"] = field(1, 9) + field(2, "e") + field(7, field(1, _node("Relu")) + sparse)
    found["custom-domain"] = _model([_node("Run", "com.evil.ops")], opsets=["", "com.evil.ops"])
    found["custom-domain-undeclared"] = _model([_node("Run", "x.y")])
    found["custom-domain-in-subgraph"] = _model(
        [_node("If", attributes=[field(6, field(1, _node("Shell", "evil")) + field(2, "i"))])]
    )
    found["python-operator"] = _model([_node("PyOp", "com.microsoft")], opsets=["", "com.microsoft"])
    found["python-function"] = _model([_node("PythonOp", "com.microsoft")])
    found["function-replaces-standard"] = _model([_node("Relu")], more=_function("", "Relu"))
    found["function-replaces-ai-onnx"] = _model([_node("Relu")], more=_function("ai.onnx", "Softmax"))
    nested = field(1, _node("Relu")) + field(2, "g")
    for _ in range(40):
        nested = field(1, _node("If", attributes=[field(6, nested)])) + field(2, "g")
    found["nested-graphs"] = field(1, 9) + field(2, "e") + field(7, nested)
    return found


def _honest_onnx() -> dict[str, bytes]:
    return {
        "plain": _model([_node("Relu"), _node("MatMul")], [_tensor("w")]),
        "external-beside": _model(
            [_node("Relu")], [_tensor("w", "model.onnx_data", offset="0", length="16")]
        ),
        "external-below": _model([_node("Relu")], [_tensor("w", "weights/w.bin")]),
        "microsoft": _model([_node("FusedMatMul", "com.microsoft")], opsets=["", "com.microsoft"]),
        "classical": _model([_node("TreeEnsembleClassifier", "ai.onnx.ml")], opsets=["", "ai.onnx.ml"]),
        "own-function": _model([_node("Gelu", "my.functions")], more=_function("my.functions", "Gelu")),
        "subgraph": _model(
            [_node("If", attributes=[field(1, "then") + field(6, field(1, _node("Relu")) + field(2, "t"))])]
        ),
        "metadata": _model([_node("Relu")], more=field(14, field(1, "author") + field(2, "someone"))),
    }


# the others


def _keras(layers: Sequence[dict[str, object]]) -> bytes:
    config = {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"layers": list(layers)},
        "registered_name": None,
    }
    metadata = json.dumps({"keras_version": "3.0.0"}).encode()
    members = {"metadata.json": metadata, "config.json": json.dumps(config).encode()}
    return zip_file(members | {"model.weights.h5": _HDF5 + b"\0" * 64}, zipfile.ZIP_STORED)


def _graph_node(operation: str) -> bytes:
    node = field(1, "node") + field(2, operation) + field(3, "input")
    return field(2, field(2, field(1, node)))


def _saved_model(*operations: str) -> bytes:
    return field(1, 1) + b"".join(_graph_node(name) for name in ("Placeholder", "MatMul", *operations))


def _nemo(config: str, mode: str = "w") -> bytes:
    members = {"./model_config.yaml": config.encode(), "./model_weights.ckpt": torch_zip(_STATE)}
    return tar_file(members, mode=mode)


def _hostile() -> dict[str, tuple[str, bytes]]:
    lambda_layer = {"class_name": "Lambda", "module": "keras.layers", "config": {"function": "4wEAAAA="}}
    marshalled = {"class_name": "__lambda__", "config": {"code": "4wEAAAA=", "defaults": None}}
    imported = {"module": "os", "class_name": "system", "config": "echo inert"}
    helper = {"module": "subprocess", "class_name": "function", "config": "run", "registered_name": "run"}
    script = zip_file(
        {
            "m/data.pkl": _STATE,
            "m/constants.pkl": pickle.dumps((), 2),
            "m/code/__torch__.py": b"def forward(self):\n  return torch.from_file('/etc/passwd')\n",
        }
    )
    operations = ("PyFunc", "EagerPyFunc", "PyFuncStateless", "ReadFile", "WriteFile", "MatchingFiles")
    found = {f"tensorflow-{name}": ("saved_model.pb", _saved_model(name)) for name in operations}
    found |= {
        "frozen-graph": ("frozen.pb", _saved_model("WriteFile")),
        "keras-lambda": ("model.keras", _keras([lambda_layer])),
        "keras-lambda-registered": ("model.keras", _keras([{"class_name": "keras>Lambda", "config": {}}])),
        "keras-bytecode": ("model.keras", _keras([marshalled])),
        "keras-module-os": ("model.keras", _keras([imported])),
        "keras-module-subprocess": ("model.keras", _keras([helper])),
        "keras-module-package": ("model.keras", _keras([{"module": "evil.layers", "class_name": "L"}])),
        "keras-renamed": ("weights.bin", _keras([lambda_layer])),
        "hdf5-lambda": ("model.h5", _HDF5 + json.dumps({"layers": [lambda_layer]}).encode() + b"\0" * 100),
        "hdf5-lambda-spaced": ("model.h5", _HDF5 + b'{"class_name"  :  "Lambda"}' + b"\0" * 100),
        "hdf5-lambda-late": ("model.h5", _HDF5 + b"\1" * (5 << 20) + b'"class_name": "Lambda"'),
        "nemo-target-os": ("model.nemo", _nemo("decoder:\n  _target_: os.system\n  command: echo inert\n")),
        "nemo-target-subprocess": ("model.nemo", _nemo("a: {_target_: subprocess.Popen}\n", "w:gz")),
        "nemo-target-quoted": ("model.nemo", _nemo("a:\n  \"_target_\": 'builtins.eval'\n")),
        "hydra-target": ("config.yaml", b"model:\n  _target_: builtins.exec\n  _args_: ['1']\n"),
        "hydra-target-json": ("config.json", b'{"model": {"_target_": "posix.system", "command": "echo"}}'),
        "hydra-target-package": ("config.yaml", b"model:\n  _target_: somebody.package.build\n"),
        "torchserve-handler": (
            "service.mar",
            zip_file(
                {"MAR-INF/MANIFEST.json": b"{}", "handler.py": b"print('inert')", "m.pt": torch_zip(_STATE)}
            ),
        ),
        "torchscript-file": ("model.pt", script),
        "torchscript-operator": (
            "model.pt",
            zip_file(
                {
                    "m/data.pkl": _STATE,
                    "m/constants.pkl": pickle.dumps((), 2),
                    "m/code/__torch__.py": b"def f():\n  return ops.evil.run('echo')\n",
                }
            ),
        ),
        "native-code": (
            "model.pt2",
            zip_file({"m/data.pkl": _STATE, "m/aoti/model.so": b"\x7fELF" + b"\0" * 60}),
        ),
        "executable-inside": ("data.zip", zip_file({"a.txt": b"x", "run": b"\x7fELF" + b"\0" * 60})),
        "windows-program-inside": ("data.tar", tar_file({"run": _portable_executable()})),
    }
    return found


def _portable_executable() -> bytes:
    return b"MZ" + b"\0" * 58 + struct.pack("<I", 64) + b"PE\0\0" + b"\0" * 40


def _honest() -> dict[str, tuple[str, bytes]]:
    dense = {"module": "keras.layers", "class_name": "Dense", "config": {"units": 4}}
    safe = "model:\n  _target_: nemo.collections.asr.models.EncDecCTCModel\noptim:\n  name: adam\n"
    return {
        "keras": ("model.keras", _keras([dense, {"module": "builtins", "class_name": "float"}])),
        "hdf5": ("model.h5", _HDF5 + json.dumps({"layers": [dense]}).encode() + b"\0" * 100),
        "saved-model": ("saved_model.pb", _saved_model("Conv2D", "Relu", "Softmax")),
        "nemo": ("model.nemo", _nemo(safe)),
        "nemo-gzip": ("model.nemo", _nemo(safe, "w:gz")),
        "hydra": ("config.yaml", b"optimizer:\n  _target_: torch.optim.AdamW\n  lr: 1.0e-4\n"),
        "torchserve": (
            "m.mar",
            zip_file(
                {
                    "MAR-INF/MANIFEST.json": b'{"model": {"handler": "text_classifier"}}',
                    "m.pt": torch_zip(_STATE),
                }
            ),
        ),
        "tflite": ("model.tflite", b"\x1c\0\0\0TFL3" + b"\0" * 200),
        "spiece": (
            "tokenizer.model",
            b"".join(field(1, field(1, f"▁t{i}") + b"\x15\0\0\0\0") for i in range(300)),
        ),
    }


def _damaged() -> dict[str, tuple[str, bytes]]:
    onnx, keras = _model([_node("Relu")] * 20, [_tensor("w")]), _keras([])
    return {
        "onnx-cut": ("model.onnx", onnx[: len(onnx) // 2]),
        "onnx-wire": ("model.onnx", onnx[:20] + b"\xff\xff\xff\xff" + onnx[24:]),
        "onnx-empty": ("model.onnx", b""),
        "keras-cut": ("model.keras", keras[:200]),
        "hdf5-cut": ("model.h5", _HDF5[:20]),
        "nemo-cut": ("model.nemo", _nemo("a: 1\n")[:1500]),
        "onnx-text": ("model.onnx", b"<html>not found</html>"),
    }
