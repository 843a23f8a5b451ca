"""Content decides what a file is; limits and damage are said; the survey is made once."""

from __future__ import annotations

import gzip
import io
import pickle
import sys
import zipfile

import numpy as np
import pytest
from corpus.assemble import attack, gguf, gguf_text, seven_zip, zip_file

from ftsec_audit.artifact import Artifact
from ftsec_audit.files import ArtifactFile, MemoryBytes
from ftsec_audit.formats import gguf as gguf_reader
from ftsec_audit.formats import seven_zip as seven_zip_reader
from ftsec_audit.formats.facts import FileFacts
from ftsec_audit.formats.sniff import Kind, sniff
from ftsec_audit.formats.survey import read_file, survey
from ftsec_audit.formats.unpacking import UnpackLimits, unpack
from ftsec_audit.formats.walk import SurveyLimits
from ftsec_audit.formats.zip_archive import read_directory


def look(data: bytes, path: str = "file", limits: SurveyLimits | None = None) -> FileFacts:
    file = ArtifactFile(path, len(data), lambda _: MemoryBytes(data))
    return read_file(file, limits or SurveyLimits())


def test_numpy_and_zipfile_write_nothing_odd() -> None:
    arrays, archive = io.BytesIO(), io.BytesIO()
    np.savez_compressed(arrays, a=np.arange(5.0), b=np.array(["x", "yz"]), c=np.zeros((0, 3)))
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("a/b.txt", "text")
        out.mkdir("folder")
    for data in (arrays.getvalue(), archive.getvalue()):
        facts = look(data)
        assert facts.kind is Kind.ZIP and not facts.findings() and not facts.unread


def test_a_streamed_archive_with_descriptors_is_ordinary() -> None:
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = b""

        def writable(self) -> bool:
            return True

        def write(self, part: bytes) -> int:
            self.data += bytes(part)
            return len(part)

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w") as out:
        out.writestr("a", "1" * 50)
        out.writestr("b", "2" * 50)
    assert not look(pipe.data).findings()


@pytest.mark.parametrize("packer", ["copy", "lzma", "lzma2", "bzip2", "deflate"])
def test_seven_zip_gives_back_what_was_packed(packer: str) -> None:
    members = {"a.txt": b"hello " * 100, "b/c.bin": bytes(range(256)), "d": b"x"}
    data = seven_zip(members, packer)
    found = seven_zip_reader.members(MemoryBytes(data), 1 << 20, UnpackLimits())
    assert {name: part.reader.read_at(0, part.reader.size) for name, part in found} == members


def test_a_decompression_bomb_ends_at_its_limit() -> None:
    limits = UnpackLimits(bomb_bytes=1 << 20)
    data = gzip.compress(b"\0" * (64 << 20), mtime=0)
    found = unpack(MemoryBytes(data), "gzip", budget=1 << 30, limits=limits)
    assert found.bomb and found.reader.size < 16 << 20


def test_a_budget_that_is_met_is_said_and_no_bomb() -> None:
    data = gzip.compress(np.random.default_rng(0).bytes(300_000), mtime=0)
    facts = look(data, limits=SurveyLimits(unpack=UnpackLimits(total=100_000)))
    assert facts.unread and not facts.bombs


def test_the_place_of_a_payload_is_told_from_the_outside_inwards() -> None:
    inner = zip_file({"data.pkl": pickle.dumps([attack()])})
    facts = look(zip_file({"deep/inner.zip": inner}))
    (found, *_) = facts.pickle_code
    assert found.member.startswith("deep/inner.zip › data.pkl › string at byte")
    assert found.denial.target == "os.system" and found.nested


def test_ordinary_text_is_neither_pickle_nor_flagged() -> None:
    texts = (b"(c) 2024\n", b"cos\nsystem\n" * 3, b"import os\nos.system\n", b"]\n.\n", b"", b"P\n.git\n")
    for text in texts:
        facts = look(text, "README.md")
        assert not facts.findings() and not facts.unread, text


def test_a_name_that_promises_another_content_leaves_the_file_unread() -> None:
    assert look(b"<html>404</html>", "model.safetensors").unread
    assert look(b"", "pytorch_model.pt").unread


def test_both_directories_of_a_double_archive_are_read() -> None:
    data = zip_file({"a": b"1"}) + zip_file({"b": b"2"})
    directory = read_directory(MemoryBytes(data), max_members=10)
    assert directory is not None and {member.name for member in directory.members} == {"a", "b"}
    assert "two-end-records" in {oddity.code for oddity in directory.oddities}


def test_gguf_metadata_and_every_template_are_given_out() -> None:
    data = gguf(
        [
            gguf_text("general.architecture", "llama"),
            gguf_text("tokenizer.chat_template", "first"),
            gguf_text("tokenizer.chat_template", "second"),
            gguf_text("tokenizer.chat_template.tool_use", "tools"),
        ]
    )
    header = look(data, "model.gguf").gguf
    assert isinstance(header, gguf_reader.GgufHeader)
    assert [template for _, template in header.templates()] == ["first", "second", "tools"]
    assert header.metadata["tokenizer.chat_template"] == "second"


def test_a_43_byte_header_with_huge_counts_is_refused_at_once() -> None:
    data = (b"GGUF\x03\0\0\0" + b"\xff" * 7 + b"\x7f" * 9).ljust(43, b"\0")
    header = gguf_reader.parse(MemoryBytes(data), limits=gguf_reader.GgufLimits())
    assert [problem.code for problem in header.problems if problem.fatal] == ["counts"]


def test_an_artifact_is_surveyed_once() -> None:
    opened = []

    def source(path: str) -> MemoryBytes:
        opened.append(path)
        return MemoryBytes(b"text")

    artifact = Artifact.of("x", "x", [ArtifactFile("notes.txt", 4, source)])
    opened.clear()
    first = survey(artifact, SurveyLimits())
    assert survey(artifact, SurveyLimits()) is first and len(opened) == 1


def test_kinds_are_told_apart_by_content() -> None:
    kinds = {
        pickle.dumps({}): Kind.PICKLE,
        b"{}": Kind.TEXT,
        b"GGUF\x03\0\0\0": Kind.GGUF,
        b"\x02\0\0\0\0\0\0\0{}": Kind.SAFETENSORS,
        gzip.compress(b"x"): Kind.GZIP,
        bytes(range(1, 255)): Kind.BINARY,
    }
    assert {sniff(MemoryBytes(data)): data for data in kinds}.keys() == set(kinds.values())


def test_the_rules_need_no_heavy_import() -> None:
    import subprocess

    code = "import detectors.pickle_code, detectors.gguf_structure, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
