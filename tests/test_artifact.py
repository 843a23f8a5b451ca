from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from builders.adapters import METHODS, write_adapter, write_checkpoint
from builders.files import disk_file, folder, memory_file
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from ftsec_audit.artifact import Artifact, ArtifactKind
from ftsec_audit.errors import FormatError, FtsecError, SourceError, Unsupported
from ftsec_audit.files import ArtifactFile, MemoryBytes
from ftsec_audit.formats import torch_pickle


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_every_method_is_recognised(tmp_path: Path, method: str, family: str) -> None:
    artifact = folder(write_adapter(tmp_path, method=method, family=family))
    assert artifact.kind is ArtifactKind.ADAPTER
    assert artifact.adapter is not None
    assert artifact.adapter.method == method
    assert artifact.declared_base == f"example/{family}-tiny"
    assert artifact.problems == ()
    assert artifact.unexamined == ()
    assert artifact.tensors().keys() == load_file(tmp_path / "adapter_model.safetensors").keys()


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_checkpoints_are_recognised(tmp_path: Path, family: str, shards: int) -> None:
    artifact = folder(write_checkpoint(tmp_path, family=family, shards=shards))
    assert artifact.kind is ArtifactKind.CHECKPOINT
    assert len(artifact.weight_files) == shards
    assert artifact.config is not None
    assert artifact.config["model_type"] == family
    assert artifact.problems == ()
    assert artifact.tensors().problems == ()
    assert artifact.card().description.endswith("4 layers × 32")


def test_the_card_of_an_adapter(tmp_path: Path) -> None:
    card = folder(write_adapter(tmp_path, rank=16)).card()
    assert card.description == "LoRA r=16 (q_proj,v_proj)"
    assert card.kind == "adapter"
    assert card.base_reference == "example/llama-tiny"
    assert {record.path: record.format for record in card.files} == {
        "adapter_config.json": "json",
        "adapter_model.safetensors": "safetensors",
    }


def test_an_adapter_without_configuration_is_told_by_its_tensors(tmp_path: Path) -> None:
    write_adapter(tmp_path, rank=5)
    (tmp_path / "adapter_config.json").unlink()
    artifact = folder(tmp_path)
    assert artifact.kind is ArtifactKind.ADAPTER
    assert artifact.adapter is not None
    assert (artifact.adapter.method, artifact.adapter.rank) == ("lora", 5)
    assert artifact.adapter.targets == ("q_proj", "v_proj")
    assert artifact.adapter.scaling("model.layers.0.self_attn.q_proj", 5) == 1.0
    assert len(artifact.problems) == 1
    assert "missing" in artifact.problems[0]


@pytest.mark.parametrize("method", ["dora", "adalora", "loha", "lokr", "ia3", "vera", "prompt"])
def test_the_method_of_a_single_file_is_told_by_its_tensors(tmp_path: Path, method: str) -> None:
    path = write_adapter(tmp_path, method=method) / "adapter_model.safetensors"
    path = path.rename(tmp_path / "downloaded.safetensors")
    artifact = Artifact.of("x", "x", [disk_file(path)])
    assert artifact.kind is ArtifactKind.ADAPTER
    assert artifact.adapter is not None
    assert artifact.adapter.method == method


@pytest.mark.parametrize("name", ["adapter_config (1).json", "lora.json", "config.json"])
def test_a_misnamed_configuration_is_found(tmp_path: Path, name: str) -> None:
    write_adapter(tmp_path, alpha=4)
    (tmp_path / "adapter_config.json").rename(tmp_path / name)
    artifact = folder(tmp_path)
    assert artifact.adapter is not None
    assert artifact.adapter.alpha == 4
    assert artifact.problems == (f"{name}: an adapter configuration under a wrong name",)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "empty"),
        (b"[]", "holds a JSON list"),
        (b"null", "holds a JSON NoneType"),
        (b"{", "not valid JSON"),
        (b"\xff", "not UTF-8"),
        (b"[" * 100_000, "nested"),
        (b'{"r": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"peft_type": "LORA", "r": 8, "r": 64}', "repeats the keys 'r'"),
        (b'{"peft_type": "LORA", "lora_alpha": NaN}', "contains NaN"),
        (b" " * (5 << 20), "the limit is"),
    ],
)
def test_a_broken_configuration_is_a_problem(tmp_path: Path, text: bytes, problem: str) -> None:
    write_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_bytes(text)
    artifact = folder(tmp_path)
    assert artifact.kind is ArtifactKind.ADAPTER
    assert any(problem in line for line in artifact.problems)
    assert len(artifact.tensors()) == 16


def test_weights_that_cannot_be_read_still_make_an_adapter(tmp_path: Path) -> None:
    write_adapter(tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    artifact = folder(tmp_path)
    assert artifact.kind is ArtifactKind.ADAPTER
    with pytest.raises(FormatError, match=r"adapter_model\.safetensors"):
        artifact.tensors()


def test_an_adapter_without_weights(tmp_path: Path) -> None:
    write_adapter(tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    artifact = folder(tmp_path)
    assert artifact.kind is ArtifactKind.ADAPTER
    assert artifact.weight_files == ()
    assert "no adapter weights" in artifact.problems[0]
    assert len(artifact.tensors()) == 0


def test_other_weights_are_listed_never_silently_skipped(tmp_path: Path) -> None:
    write_adapter(tmp_path)
    torch.save({"x": torch.ones(1)}, tmp_path / "adapter_model.bin")
    write_adapter(tmp_path / "checkpoint-5", seed=1)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    (tmp_path / "optimizer.pt").write_bytes(b"state")
    (tmp_path / "training_args.bin").write_bytes(b"state")
    artifact = folder(tmp_path)
    assert [file.path for file in artifact.weight_files] == ["adapter_model.safetensors"]
    assert artifact.unexamined == (
        "adapter_model.bin",
        "checkpoint-5/adapter_model.safetensors",
        "model.gguf",
    )


def test_the_last_of_several_subfolders_is_taken_and_the_others_are_listed(tmp_path: Path) -> None:
    for step in (500, 1000, 90):
        write_adapter(tmp_path / f"checkpoint-{step}", seed=step)
    (tmp_path / "README.md").write_text("training run")
    artifact = folder(tmp_path)
    assert artifact.kind is ArtifactKind.ADAPTER
    assert [file.path for file in artifact.weight_files] == ["checkpoint-1000/adapter_model.safetensors"]
    assert len(artifact.unexamined) == 2
    assert "checkpoint-1000/" in artifact.problems[-1]


def test_an_adapter_beside_a_whole_model_is_the_artifact(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    write_adapter(tmp_path)
    artifact = folder(tmp_path)
    assert artifact.kind is ArtifactKind.ADAPTER
    assert artifact.unexamined == ("model.safetensors",)


def test_a_checkpoint_prefers_what_loaders_prefer(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    torch.save({"x": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    artifact = folder(tmp_path)
    assert [file.name for file in artifact.weight_files] == ["model.safetensors"]
    assert artifact.unexamined == ("pytorch_model.bin",)


def test_a_checkpoint_as_torch_pickle(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    artifact = folder(tmp_path)
    assert artifact.kind is ArtifactKind.CHECKPOINT
    assert "model.norm.weight" in artifact.tensors()


@pytest.mark.parametrize("name", ["model.safetensors", "weights.safetensors", "weights.pt"])
def test_weights_without_any_configuration_are_a_checkpoint(tmp_path: Path, name: str) -> None:
    save = save_file if name.endswith("safetensors") else torch.save
    save({"fc.weight": torch.ones(2, 2)}, tmp_path / name)
    artifact = folder(tmp_path)
    assert artifact.kind is ArtifactKind.CHECKPOINT
    assert "config.json: missing" in artifact.problems[0]
    assert artifact.card().description == "checkpoint without configuration"


@pytest.mark.parametrize("place", ["model.onnx", "onnx/model.onnx"])
def test_an_exported_model_is_recognised_where_there_are_no_weights(tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_bytes(b"\x08\x08")
    assert folder(tmp_path).kind is ArtifactKind.FILES  # of what architecture is not said
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    artifact = folder(tmp_path)
    assert (artifact.kind, artifact.problems) == (ArtifactKind.EXPORTED, ())
    assert [file.path for file in artifact.weight_files] == [place]
    assert artifact.card().description == "llama, exported to ONNX"
    with pytest.raises(Unsupported, match="ONNX"):
        artifact.tensors()
    write_checkpoint(tmp_path)
    artifact = folder(tmp_path)
    assert (artifact.kind, artifact.unexamined) == (ArtifactKind.CHECKPOINT, (place,))


def test_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("hello")
    (tmp_path / "vocab.bin").write_bytes(b"\0\1\2")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    artifact = folder(tmp_path)
    assert artifact.kind is ArtifactKind.FILES
    assert folder(tmp_path / "README.md").kind is ArtifactKind.FILES  # nothing below a file
    assert Artifact.of("empty", "empty", []).kind is ArtifactKind.FILES
    assert Artifact.of("empty", "empty", []).card().description == "0 files"


@pytest.mark.parametrize(
    ("readme", "config", "base"),
    [
        ("---\nbase_model: org/base\n---\n", {}, "org/base"),
        ("---\r\nlicense: mit\r\nbase_model:\r\n- org/base\r\n---\r\n", {}, "org/base"),
        ("---\nbase_model: 'org/base'\n---\n", {"_name_or_path": "other"}, "org/base"),
        ("no front matter\nbase_model: org/base\n", {}, ""),
        ("---\ntitle: x\n---\nbase_model: org/base\n", {"_name_or_path": "./local"}, "./local"),
        ("", {"_name_or_path": 7}, ""),
        ("---\nbase_model: []\n---", {}, ""),
    ],
)
def test_the_base_a_checkpoint_declares(
    tmp_path: Path, readme: str, config: dict[str, object], base: str
) -> None:
    write_checkpoint(tmp_path, **config)
    (tmp_path / "README.md").write_bytes(readme.encode())
    assert folder(tmp_path).declared_base == base


def test_a_base_that_is_a_windows_path_is_passed_on_as_it_is(tmp_path: Path) -> None:
    path = "C:\\Users\\me\\models\\llama"
    write_adapter(tmp_path, base_model_name_or_path=path)
    assert folder(tmp_path).declared_base == path


def test_the_digest_covers_every_byte_and_name(tmp_path: Path) -> None:
    first = folder(write_adapter(tmp_path / "a")).digest
    assert first == folder(write_adapter(tmp_path / "b")).digest
    assert first.startswith("sha256:")
    weights = tmp_path / "b" / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert folder(tmp_path / "b").digest != first
    (tmp_path / "a" / "README.md").touch()
    assert folder(tmp_path / "a").digest != first


def test_a_large_local_checkpoint_is_hashed_only_when_asked(tmp_path: Path) -> None:
    reads: list[int] = []

    class Counted(MemoryBytes):
        def __init__(self) -> None:
            super().__init__(b"")

        @property
        def size(self) -> int:
            return (1 << 30) + 1

        def read_at(self, offset: int, length: int) -> bytes:
            reads.append(length)
            return bytes(9)

    large = ArtifactFile("model.safetensors", (1 << 30) + 1, lambda path: Counted())
    config = memory_file(b'{"model_type": "llama"}', "config.json")
    artifact = Artifact.of("big", "big", [config, large])
    assert artifact.kind is ArtifactKind.CHECKPOINT
    assert artifact.digest == ""
    assert artifact.card().digest == ""
    assert reads == []
    assert artifact.exact_digest().startswith("sha256:")
    assert len(reads) == 1025


def test_known_digests_are_not_computed_again() -> None:
    def never(path: str) -> MemoryBytes:
        raise SourceError("offline", where=path)

    content = b'{"model_type": "llama"}'
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    remote = ArtifactFile("pytorch_model.bin", 10 << 30, never, digest=digest)
    artifact = Artifact.of("r", "r", [memory_file(content, "config.json"), remote])
    assert artifact.digests() == {"config.json": digest, "pytorch_model.bin": digest}
    assert artifact.digest.startswith("sha256:")


def test_a_refused_file_does_not_break_the_digest() -> None:
    def refused(path: str) -> MemoryBytes:
        raise SourceError("a named pipe; not opened", where=path)

    artifact = Artifact.of(
        "x", "x", [ArtifactFile("config.json", 0, refused), ArtifactFile("m.safetensors", 0, refused)]
    )
    assert artifact.digests()["config.json"] == "refused: a named pipe; not opened"
    assert artifact.digest.startswith("sha256:")


def test_a_lost_connection_is_not_mistaken_for_content() -> None:
    def lost(path: str) -> MemoryBytes:
        raise SourceError("connection lost", where=path)

    with pytest.raises(SourceError, match="connection lost"):
        Artifact.of("r", "r", [ArtifactFile("adapter_config.json", 100, lost)])


names = st.sampled_from(
    ["adapter_config.json", "adapter_model.safetensors", "config.json", "model.bin", "README.md", "a/b.pt"]
)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        names,
        st.binary(max_size=40)
        | st.sampled_from([b'{"peft_type":1}', b'{"model_type":[]}', b"---\nbase_model: x"]),
    )
)
def test_no_content_raises(contents: dict[str, bytes]) -> None:
    artifact = Artifact.of("x", "x", [memory_file(data, name) for name, data in contents.items()])
    artifact.card()
    if artifact.weight_files:
        try:
            artifact.tensors()
        except FtsecError as error:
            assert str(error)


def _genuine(method: str) -> object:
    """peft's own adapter of a method on a random two-layer model."""
    import peft
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 64}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2))
    targets = ["q_proj", "v_proj"]
    common = {"target_modules": targets, "task_type": "CAUSAL_LM"}
    config = {
        "lora": lambda: peft.LoraConfig(r=4, **common),
        "rslora": lambda: peft.LoraConfig(r=4, use_rslora=True, **common),
        "dora": lambda: peft.LoraConfig(r=4, use_dora=True, **common),
        "adalora": lambda: peft.AdaLoraConfig(init_r=4, target_r=4, total_step=10, **common),
        "loha": lambda: peft.LoHaConfig(r=4, **common),
        "lokr": lambda: peft.LoKrConfig(r=4, **common),
        "ia3": lambda: peft.IA3Config(feedforward_modules=[], **common),
        "vera": lambda: peft.VeraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"),
        "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
        "prefix": lambda: peft.PrefixTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
        "p-tuning": lambda: peft.PromptEncoderConfig(
            num_virtual_tokens=4, encoder_hidden_size=8, task_type="CAUSAL_LM"
        ),
    }[method]()
    return peft.get_peft_model(model, config)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_built_adapters_have_the_layout_of_genuine_ones(tmp_path: Path, method: str) -> None:
    _genuine(method).save_pretrained(tmp_path / "genuine")  # type: ignore[attr-defined]
    targets = ("q_proj",) if method == "vera" else ("q_proj", "v_proj")
    write_adapter(tmp_path / "built", method=method, layers=2, targets=targets)
    genuine, built = folder(tmp_path / "genuine"), folder(tmp_path / "built")
    assert genuine.adapter is not None
    assert built.adapter is not None
    layouts = [
        {name: (entry.dtype, entry.shape) for name, entry in each.tensors().items()}
        for each in (genuine, built)
    ]
    assert layouts[0] == layouts[1]
    assert genuine.adapter.method == built.adapter.method == method
    assert genuine.adapter.rank == built.adapter.rank
    assert sorted(genuine.adapter.targets or ()) == sorted(built.adapter.targets or ())
    assert genuine.problems == ()


SHARED = Path(os.environ.get("FTSEC_SHARED", Path(__file__).parents[2] / "shared")) / "data" / "adapters"


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="no calibration material here")
def test_every_real_adapter_is_recognised_and_read() -> None:
    manifest = json.loads((SHARED / "manifest.json").read_text())
    for described in manifest:
        artifact = folder(SHARED / described["dir"])
        assert artifact.kind is ArtifactKind.ADAPTER, described["dir"]
        index = artifact.tensors()
        assert len(index) > 0
        assert sum(entry.nbytes for entry in index.values()) <= sum(
            file.size for file in artifact.weight_files
        )
        for name in index:
            assert index.read(name).shape == index[name].shape
        weights = next(file for file in artifact.weight_files)
        assert artifact.digests()[weights.path] == f"sha256:{described['sha256']}"


def test_torch_pickles_of_an_adapter_equal_its_safetensors(tmp_path: Path) -> None:
    write_adapter(tmp_path)
    expected = load_file(tmp_path / "adapter_model.safetensors")
    torch.save(expected, tmp_path / "adapter_model.bin")
    (tmp_path / "adapter_model.safetensors").unlink()
    index = folder(tmp_path).tensors()
    assert index.keys() == expected.keys()
    assert all(torch.equal(index.read(name), tensor) for name, tensor in expected.items())
    assert torch_pickle.index(disk_file(tmp_path / "adapter_model.bin"))[0].stride is None
