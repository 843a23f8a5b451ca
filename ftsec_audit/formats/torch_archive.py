"""The two containers of `torch.save`: what the pickle in them says, and where each storage's bytes lie.

Zip (PyTorch ≥ 1.6): `NAME/data.pkl`, `NAME/data/KEY`, `NAME/byteorder`. Stack (before): pickles of a
magic number, a protocol, system facts, the object and the storage keys, then per storage its element
count and bytes. Nothing is unpickled; see torch/serialization.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from ftsec_audit.errors import BudgetExceeded, FormatError, Unsupported
from ftsec_audit.files import ArtifactFile, ByteReader, MemoryBytes
from ftsec_audit.formats import pickle_machine, zip_members
from ftsec_audit.formats.pickle_values import Global, Persistent, PickledDict, PickleRun
from ftsec_audit.formats.tensors import DTYPE_BITS
from ftsec_audit.formats.zip_members import ZipMember

ZIP_MAGIC = b"PK\x03\x04"
_PICKLE = b"\x80"
_STACK_MAGIC = 0x1950A86A20F9469CFC6C
_STACK_PROTOCOL = 1001
_COUNT = 8
_SWAPPED_BYTES = 1 << 30  # a big-endian storage is turned round in memory
_STORAGE_MODULES = frozenset({"torch", "torch.cuda", "torch.storage"})
_STORAGE_DTYPES = {
    "DoubleStorage": "F64",
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
    "ComplexFloatStorage": "C64",
    "ComplexDoubleStorage": "C128",
    "UntypedStorage": "U8",
}


@dataclass(frozen=True, kw_only=True)
class StorageId:
    """A reference from the pickle to a storage."""

    key: str
    dtype: str
    numel: int

    @classmethod
    def of(cls, value: object) -> StorageId:
        """Read `('storage', type, key, device, numel)`, with a view as sixth; raises FormatError."""
        pid = value.pid if isinstance(value, Persistent) else None
        if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
            raise FormatError("a tensor without a storage")
        kind, key, numel = pid[1], pid[2], pid[4]
        if not isinstance(kind, Global) or kind.module not in _STORAGE_MODULES:
            raise FormatError("a storage of no known type")
        dtype = _STORAGE_DTYPES.get(kind.name)
        if dtype is None or not isinstance(key, str) or type(numel) is not int or numel < 0:
            raise FormatError("a storage without type, key or size")
        if len(pid) == 6 and pid[5] is not None:
            raise Unsupported("a storage that is a view of another storage")
        return cls(key=key, dtype=dtype, numel=numel)

    @property
    def nbytes(self) -> int:
        return self.numel * DTYPE_BITS[self.dtype] // 8


@dataclass(frozen=True, kw_only=True)
class Archive(ABC):
    """An opened container."""

    file: ArtifactFile
    value: object
    """What the pickle of the object says, as inert values."""

    @abstractmethod
    def locate(self, storage: StorageId, dtype: str) -> tuple[ArtifactFile, int]:
        """The file and offset of a storage's first byte; at least `storage.nbytes` lie behind it.

        `dtype` is the element type in which it will be read. Raises FormatError, BudgetExceeded.
        """


def open_archive(file: ArtifactFile) -> Archive:
    """Open by content; raises FormatError, BudgetExceeded, Unsupported, SourceError."""
    reader = file.open()
    magic = reader.read_at(0, len(ZIP_MAGIC))
    if magic == ZIP_MAGIC:
        return _open_zip(file, reader)
    if magic[:1] == _PICKLE:
        return _open_stack(file, reader)
    raise FormatError("neither a zip archive nor a pickle", where=file.path)


@dataclass(frozen=True, kw_only=True)
class _ZipArchive(Archive):
    members: dict[str, ZipMember]
    prefix: str
    """`NAME/`, or nothing."""
    big_endian: bool

    def locate(self, storage: StorageId, dtype: str) -> tuple[ArtifactFile, int]:
        member = self.members.get(f"{self.prefix}data/{storage.key}")
        if member is None:
            raise FormatError("its storage is not in the archive")
        if member.size < storage.nbytes:
            raise FormatError(f"its storage has {member.size:,} bytes of {storage.nbytes:,}")
        width = DTYPE_BITS[dtype] // (16 if dtype.startswith("C") else 8)  # per component of a complex
        if self.big_endian and width > 1:
            return _swapped(member, width), 0
        return (self.file, member.offset) if member.stored else (member.as_file(), 0)


def _open_zip(file: ArtifactFile, reader: ByteReader) -> _ZipArchive:
    members = zip_members.members(file)
    pickles = [name for name in members if name.rpartition("/")[2] == "data.pkl" and name.count("/") < 2]
    if len(pickles) != 1:
        raise FormatError(f"{len(pickles)} members called data.pkl, not one", where=file.path)
    prefix = pickles[0].removesuffix("data.pkl")
    if f"{prefix}constants.pkl" in members:
        raise Unsupported("a TorchScript program, not a state dict", where=file.path)
    pickle = members[pickles[0]]
    if pickle.stored:
        run = pickle_machine.interpret(reader, pickle.offset, pickle.offset + pickle.size)
    else:
        run = pickle_machine.interpret(MemoryBytes(pickle.read(reader)))
    run.require_complete(file.path)
    order = members.get(f"{prefix}byteorder")
    big_endian = order is not None and order.size == 3 and order.read(reader) == b"big"
    return _ZipArchive(file=file, value=run.value, members=members, prefix=prefix, big_endian=big_endian)


def _swapped(member: ZipMember, width: int) -> ArtifactFile:
    """The member as a file in which the bytes of every element are in reverse order."""
    if member.size > _SWAPPED_BYTES:
        raise BudgetExceeded(f"a big-endian storage of {member.size:,} bytes")
    name = f"{member.archive.path}!{member.name}@{width}"
    return ArtifactFile(name, member.size, lambda _: MemoryBytes(_turned_round(member, width)))


def _turned_round(member: ZipMember, width: int) -> bytes:
    data = member.read(member.archive.open())
    turned = bytearray(len(data) // width * width)
    for position in range(width):
        turned[position::width] = data[width - 1 - position : len(turned) : width]
    return bytes(turned)


@dataclass(frozen=True, kw_only=True)
class _StackArchive(Archive):
    storages: dict[str, tuple[int, int]]
    """Key → offset and length of the storages that lie wholly inside the file."""

    def locate(self, storage: StorageId, dtype: str) -> tuple[ArtifactFile, int]:  # noqa: ARG002
        if storage.key not in self.storages:
            raise FormatError("its storage is missing or cut off")
        offset, nbytes = self.storages[storage.key]
        if nbytes < storage.nbytes:
            raise FormatError(f"its storage has {nbytes:,} bytes of {storage.nbytes:,}")
        return self.file, offset


def _open_stack(file: ArtifactFile, reader: ByteReader) -> _StackArchive:
    magic = _follow(file, reader, 0)
    if magic.value != _STACK_MAGIC:
        raise Unsupported("a bare pickle, not one that torch.save wrote", where=file.path)
    protocol = _follow(file, reader, magic.end)
    if protocol.value != _STACK_PROTOCOL:
        raise Unsupported("an unknown version of the torch.save format", where=file.path)
    facts = _follow(file, reader, protocol.end)
    if isinstance(facts.value, PickledDict) and facts.value.get("little_endian") is False:
        raise Unsupported("an old torch.save file from a big-endian machine", where=file.path)
    content = _follow(file, reader, facts.end)
    keys = _follow(file, reader, content.end)
    storages = _stacked_storages(file, reader, content, keys)
    return _StackArchive(file=file, value=content.value, storages=storages)


def _follow(file: ArtifactFile, reader: ByteReader, start: int) -> PickleRun:
    run = pickle_machine.interpret(reader, start)
    run.require_complete(file.path)
    return run


def _stacked_storages(
    file: ArtifactFile, reader: ByteReader, content: PickleRun, keys: PickleRun
) -> dict[str, tuple[int, int]]:
    """Walk the storages behind the last pickle, up to the first that the file does not hold whole."""
    if not isinstance(keys.value, list):
        raise FormatError("the list of storage keys is missing", where=file.path)
    widths: dict[str, int] = {}
    for persistent in content.persistent:
        storage = StorageId.of(persistent)
        widths.setdefault(storage.key, DTYPE_BITS[storage.dtype] // 8)
    storages: dict[str, tuple[int, int]] = {}
    position = keys.end
    for key in keys.value:
        count = reader.read_at(position, _COUNT)
        position += _COUNT
        if not isinstance(key, str) or key not in widths or len(count) < _COUNT:
            break
        nbytes = int.from_bytes(count, "little") * widths[key]
        if position + nbytes > file.size:
            break
        storages[key] = (position, nbytes)
        position += nbytes
    return storages
