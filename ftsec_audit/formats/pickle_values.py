"""What a pickle stream says, as inert values: nothing here is ever imported, called or hashed deeply.

Lists and tuples are Python's own, so identity follows the stream's memo and shared parts stay shared.
Never compare, hash, print or recurse into a value without a bound: a 100-byte stream can describe an
object of 2¹⁰⁰ leaves, or one that contains itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from ftsec_audit.errors import BudgetExceeded, FormatError


@dataclass(frozen=True, slots=True)
class Global:
    """A name the stream imports: GLOBAL, INST or STACK_GLOBAL with literal operands."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Computed:
    """A global whose name is not written in the stream, e.g. STACK_GLOBAL over the result of a call."""

    module: object
    name: object


@dataclass(frozen=True, slots=True)
class Extension:
    """EXT1/2/4: whatever `copyreg` holds under `code` on the host that loads."""

    code: int


@dataclass(eq=False, slots=True)
class Persistent:
    """PERSID, BINPERSID: an object kept outside; torch stores `('storage', type, key, device, numel)`."""

    pid: object
    offset: int


@dataclass(frozen=True, slots=True)
class Blob:
    """A string, byte string or integer too long to hold: where its bytes lie in the file."""

    offset: int
    length: int
    kind: str
    """`str`, `bytes` or `int`."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A value that a broken stream takes from where nothing is."""

    reason: str


@dataclass(eq=False, slots=True)
class PickledDict:
    """A dict as its assignments in order; keys are not hashed, because hashing may not terminate."""

    pairs: list[tuple[object, object]] = field(default_factory=list)

    def get(self, key: str | int, default: object = None) -> object:
        """The last value assigned to a string or integer key."""
        for name, value in reversed(self.pairs):
            if type(name) is type(key) and name == key:
                return value
        return default

    def by_name(self) -> dict[str, object]:
        """The pairs whose keys are strings."""
        return {key: value for key, value in self.pairs if isinstance(key, str)}


@dataclass(eq=False, slots=True)
class PickledSet:
    """A set or frozen set, unhashed."""

    items: list[object] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Call:
    """What REDUCE, INST, OBJ, NEWOBJ or NEWOBJ_EX would have called, and what was then done to the result."""

    function: object
    """A `Global`, or any other value when the callable itself was computed."""
    args: object
    """A tuple in every stream a pickler writes."""
    opcode: str
    offset: int
    kwargs: object = None
    states: list[object] = field(default_factory=list)
    """The operands of BUILD, in order."""
    items: list[object] = field(default_factory=list)
    """Appended or added elements."""
    pairs: list[tuple[object, object]] = field(default_factory=list)
    """Assigned items."""

    def is_to(self, module: str, name: str) -> bool:
        return isinstance(self.function, Global) and (self.function.module, self.function.name) == (
            module,
            name,
        )

    def arguments(self) -> tuple[object, ...]:
        """The positional arguments, or nothing when they are not a tuple."""
        return self.args if isinstance(self.args, tuple) else ()


@dataclass(eq=False, slots=True)
class Build:
    """BUILD: `target.__setstate__(state)`, or an update of its attributes."""

    target: object
    state: object
    offset: int


@dataclass(slots=True)
class Reference:
    """A global (or extension, or computed name) with its first place and how often it was pushed."""

    target: Global | Computed | Extension
    opcode: str
    offset: int
    count: int = 1


class ProblemKind(StrEnum):
    """What no pickler writes."""

    NO_STOP = "the stream ends without STOP"
    TRUNCATED = "an operand runs past the end"
    UNKNOWN_OPCODE = "a byte that is no opcode"
    BAD_OPERAND = "an operand that cannot be read"
    UNDERFLOW = "a value is taken from an empty stack"
    NO_MARK = "a mark is needed where none was set"
    UNSET_MEMO = "the memo is read where nothing was put"
    MEMO_OVERWRITTEN = "a memo entry is replaced"
    REPEATED_PROTO = "PROTO occurs inside the stream"
    BAD_PROTOCOL = "a protocol number that does not exist"
    FRAME_STRADDLED = "an opcode crosses the end of its frame"
    FRAME_NESTED = "a frame opens inside another"
    LEFT_ON_STACK = "values are left on the stack at STOP"
    ODD_TARGET = "items are put into something that is not a container"
    MEMO_INDEX = "a memo index far beyond the number of entries"
    HUGE_OPERAND = "an operand that claims more bytes than the file holds"
    LONG_DIGITS = "an integer of thousands of decimal digits"
    DEEP_MARKS = "marks nested thousands deep"
    OPERATIONS = "more opcodes than are read"


FATAL = frozenset(
    {
        ProblemKind.NO_STOP,
        ProblemKind.TRUNCATED,
        ProblemKind.UNKNOWN_OPCODE,
        ProblemKind.HUGE_OPERAND,
        ProblemKind.DEEP_MARKS,
        ProblemKind.OPERATIONS,
        ProblemKind.BAD_OPERAND,
    }
)
"""Problems at which reading stops."""

BUDGET = frozenset({ProblemKind.DEEP_MARKS, ProblemKind.OPERATIONS})


@dataclass(frozen=True, slots=True)
class Problem:
    kind: ProblemKind
    offset: int
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}{f' ({self.detail})' if self.detail else ''} at byte {self.offset}"


@dataclass(frozen=True, slots=True)
class Operand:
    """A string or byte string written in the stream, as a place that may hide another stream."""

    offset: int
    length: int
    kind: str


@dataclass(kw_only=True, slots=True)
class PickleRun:
    """Everything one stream says, as far as it could be followed."""

    start: int
    end: int = 0
    """First byte after STOP, or where reading stopped."""
    value: object = None
    """What STOP returned; of a broken stream, the top of the stack."""
    protocol: int = 0
    ops: int = 0
    references: dict[tuple[object, object], Reference] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    builds: list[Build] = field(default_factory=list)
    persistent: list[Persistent] = field(default_factory=list)
    operands: list[Operand] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether STOP was reached."""
        return not any(problem.kind in FATAL for problem in self.problems)

    def has(self, kind: ProblemKind) -> bool:
        return any(problem.kind is kind for problem in self.problems)

    def require_complete(self, where: str) -> None:
        """Raise FormatError or BudgetExceeded unless STOP was reached."""
        for problem in self.problems:
            if problem.kind in BUDGET:
                raise BudgetExceeded(str(problem), where=where)
            if problem.kind in FATAL:
                raise FormatError(f"broken pickle: {problem}", where=where)


def children(value: object) -> Iterator[object]:
    """The direct parts of a value."""
    if isinstance(value, (list, tuple)):
        yield from value
    elif isinstance(value, PickledDict):
        for pair in value.pairs:
            yield from pair
    elif isinstance(value, PickledSet):
        yield from value.items
    elif isinstance(value, Call):
        yield from (value.function, value.args, value.kwargs)
        yield from value.states
        yield from value.items
        for pair in value.pairs:
            yield from pair
    elif isinstance(value, Persistent):
        yield value.pid
