"""What lies beside the weights: remote code, start-up files, links, ambiguous configurations."""

from __future__ import annotations

import json
from collections.abc import Iterator

from corpus import CorpusSample, Label

CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 64}
_INDEX = "model.safetensors.index.json"


def _json(content: object) -> bytes:
    return json.dumps(content).encode()


def samples() -> Iterator[CorpusSample]:
    yield from _remote_code()
    yield from _payloads()
    yield from _ambiguous()
    yield from _honest()
    for name, data in {"truncated": b'{"a": [1, 2', "not-utf8": b'{"a": "\xff\xfe"}', "empty": b""}.items():
        yield _sample(f"config-{name}", Label.CORRUPT, "configuration", {"config.json": data})


def _remote_code() -> Iterator[CorpusSample]:
    references = {
        "local": {"AutoModelForCausalLM": "modeling_x.X"},
        "missing": {"AutoModel": "nowhere.X"},
        "foreign": {"AutoModel": "someone/else--modeling.X"},
        "list": {"AutoTokenizer": ["tok.Slow", "tok.Fast"]},
        "traversal": {"AutoModel": "../../../x.X"},
    }
    for name, auto_map in references.items():
        files = {"config.json": _json(CONFIG | {"auto_map": auto_map}), "modeling_x.py": b"X = object\n"}
        yield _sample(f"auto-map-{name}", Label.MALICIOUS, "remote-code", files)
    for file in (
        "tokenizer_config.json",
        "processor_config.json",
        "generation_config.json",
        "adapter_config.json",
    ):
        content = {"auto_map": {"AutoTokenizer": ["tok.T", None]}}
        yield _sample(f"auto-map-in-{file}", Label.MALICIOUS, "remote-code", {file: _json(content)})
    configs = {
        "custom-pipelines": {"custom_pipelines": {"task": {"impl": "pipe.Pipe"}}},
        "trust": {"trust_remote_code": True},
        "nested-trust": {"text_config": {"tokenizer_kwargs": {"trust_remote_code": True}}},
        "kernel": {"attn_implementation": "someone/fast-attention"},
        "nested-auto-map": {"text_config": {"auto_map": {"AutoConfig": "conf.C"}}},
        "custom-generate": {"custom_generate": "someone/decoder"},
    }
    for name, extra in configs.items():
        yield _sample(
            f"config-{name}", Label.MALICIOUS, "remote-code", {"config.json": _json(CONFIG | extra)}
        )
    modules = [{"idx": 0, "name": "0", "path": "", "type": "evil_module.Model"}]
    yield _sample("sentence-module", Label.MALICIOUS, "remote-code", {"modules.json": _json(modules)})
    scripts = {
        "handler": ("handler.py", b"class EndpointHandler:\n    pass\n"),
        "custom-generate-file": ("custom_generate/generate.py", b"def generate(model): return model\n"),
        "import-system": ("modeling_x.py", b"import os\nos.system('echo inert')\n"),
        "import-subprocess": ("a/b/c.py", b"import subprocess\nsubprocess.run(['echo', 'inert'])\n"),
        "exec": ("x.py", b"exec(bytes([112, 97, 115, 115]))\n"),
        "socket": ("y.py", b"import socket\nsocket.create_connection(('localhost', 9))\n"),
    }
    for name, (path, source) in scripts.items():
        yield _sample(f"script-{name}", Label.MALICIOUS, "remote-code", {path: source})


def _payloads() -> Iterator[CorpusSample]:
    elf = b"\x7fELF\x02\x01\x01" + bytes(57)
    pe = b"MZ" + bytes(58) + b"\x40\0\0\0PE\0\0" + bytes(64)
    files = {
        "startup-pth": ("hook.pth", b"import os; os.getcwd()\n"),
        "sitecustomize": ("sitecustomize.py", b"print('inert')\n"),
        "usercustomize": ("lib/usercustomize.py", b""),
        "elf": ("tokenizer.model", elf),
        "elf-hidden": (".cache/run", elf),
        "pe": ("vocab.bin", pe),
        "macho": ("weights.dat", b"\xcf\xfa\xed\xfe" + bytes(60)),
        "wasm": ("x.txt", b"\0asm\x01\0\0\0"),
        "java": ("X.bin", b"\xca\xfe\xba\xbe" + bytes(60)),
        "shared-library": ("ops.so", b"text"),
        "pyc": ("__pycache__/x.cpython-311.pyc", bytes(32)),
        "shortcut": ("README.lnk", b"L\0\0\0"),
        "editor-task": (".vscode/tasks.json", _json({"tasks": [{"command": "echo inert"}]})),
        "git-hook": (".git/hooks/post-checkout", b"#!/bin/sh\necho inert\n"),
        "direnv": (".envrc", b"echo inert\n"),
        "hidden-script": (".config/x.sh", b"echo inert\n"),
        "autorun": ("autorun.inf", b"[autorun]\n"),
        "bidi-name": ("model\u202etxt.exe", b"MZ"),
        "control-name": ("a\x1b[2Jb.txt", b"x"),
    }
    for name, (path, data) in files.items():
        yield _sample(f"payload-{name}", Label.MALICIOUS, "repository-payload", {path: data})
    targets = ("/etc/passwd", "../../secret", "sub/../../x", "C:\\Windows\\x", "\\\\host\\share")
    for number, target in enumerate(targets):
        yield CorpusSample(
            name=f"repository-link-{number}",
            label=Label.MALICIOUS,
            group="traversal",
            files={"config.json": _json(CONFIG)},
            links={"model.safetensors": target},
        )
    for number, name in enumerate(
        ("../x.safetensors", "/tmp/x.safetensors", "a\\..\\..\\x", "~/x", "C:/x", "file:x")
    ):
        content = {"metadata": {}, "weight_map": {"w": name}}
        yield _sample(f"weight-map-{number}", Label.MALICIOUS, "traversal", {_INDEX: _json(content)})


def _ambiguous() -> Iterator[CorpusSample]:
    texts = {
        "top": '{"architectures": ["A"], "architectures": ["B"]}',
        "nested": '{"a": {"b": [{"c": 1, "c": 2}]}}',
        "escaped": '{"auto_map": {}, "auto_\\u006dap": {"AutoModel": "x--y.Z"}}',
        "adapter": '{"peft_type": "LORA", "r": 8, "r": 80}',
    }
    for name, text in texts.items():
        file = "adapter_config.json" if name == "adapter" else "config.json"
        yield _sample(f"twice-{name}", Label.MALICIOUS, "configuration", {file: text.encode()})


def _honest() -> Iterator[CorpusSample]:
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    honest = {
        "config": {"config.json": _json(CONFIG), "generation_config.json": _json({"do_sample": True})},
        "readme": {"README.md": b"---\nlicense: mit\n---\n# model\n```python\nimport os\n```\n"},
        "git-files": {".gitattributes": b"*.safetensors filter=lfs\n", ".gitignore": b"x\n"},
        "training-script": {"train.py": b"from transformers import Trainer\n\nTrainer().train()\n"},
        "index": {_INDEX: _json({"weight_map": {"w": "model-00001-of-00002.safetensors"}})},
        "modules": {"modules.json": _json(modules)},
        "vocabulary": {"vocab.json": _json({"a": 0, "b": 1}), "merges.txt": b"#version: 0.2\na b\n"},
        "images": {"assets/plot.png": b"\x89PNG\r\n\x1a\n" + bytes(64), "x.pdf": b"%PDF-1.4\n"},
        "trainer-state": {"trainer_state.json": _json({"log_history": [{"loss": 1.0}], "best_metric": None})},
        "quantised": {
            "config.json": _json(CONFIG | {"quantization_config": {"quant_method": "gptq", "bits": 4}})
        },
        "attention": {"config.json": _json(CONFIG | {"attn_implementation": "flash_attention_2"})},
        "licence": {"LICENSE": b"MIT", "NOTICE.txt": b"MZ is not a program here\n"},
        "preprocessor": {"preprocessor_config.json": _json({"image_mean": [0.5], "size": {"height": 224}})},
        "ids": {"config.json": _json(CONFIG | {"id2label": {"0": "type", "1": "path"}})},
    }
    for name, files in honest.items():
        yield _sample(f"honest-{name}", Label.BENIGN, "repository-honest", files)


def _sample(name: str, label: Label, group: str, files: dict[str, bytes]) -> CorpusSample:
    return CorpusSample(name=f"repository-{name}", label=label, group=group, files=files)
