"""What the cost of reading a file is compared with: hashing and copying the same bytes in the same run.

All times are CPU seconds (user and system) of one thread; memory is the peak of the resident set.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """CPU seconds for the same files."""

    nbytes: int
    sha256sum: float | None
    """The command of the system, None where there is none."""
    hashlib: float
    floor: float
    """Reading every byte into one buffer that stays in cache."""

    @classmethod
    def of(cls, files: Sequence[Path]) -> Yardstick:
        """Measured now; the best of three, as for what is compared with it."""
        program = shutil.which("sha256sum")
        return cls(
            nbytes=sum(file.stat().st_size for file in files),
            sha256sum=best_of(3, lambda: _command([program, *map(str, files)])) if program else None,
            hashlib=best_of(3, lambda: cpu_seconds(lambda: [_hash(file) for file in files])),
            floor=best_of(3, lambda: cpu_seconds(lambda: [_read(file) for file in files])),
        )

    def line(self, label: str, seconds: float) -> str:
        """One row: the time, its ratio to both hashes, and its multiple of the floor."""
        against_command = f"{seconds / self.sha256sum:6.3f}" if self.sha256sum else "     –"
        return (
            f"{label:<44} {seconds * 1e3:9.1f} ms   sha256sum × {against_command}"
            f"   hashlib × {seconds / self.hashlib:6.3f}   floor × {seconds / self.floor:6.1f}"
        )

    def header(self) -> str:
        command = f"{self.sha256sum * 1e3:.0f} ms" if self.sha256sum else "not installed"
        return (
            f"{self.nbytes / 1e6:.1f} MB: sha256sum {command}, hashlib.sha256 {self.hashlib * 1e3:.0f} ms, "
            f"reading (floor) {self.floor * 1e3:.1f} ms, CPU of one thread"
        )


def best_of(times: int, measure: Callable[[], float]) -> float:
    return min(measure() for _ in range(times))


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def peak_memory() -> int:
    """Bytes of the largest resident set this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _command(arguments: Sequence[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read(file: Path) -> None:
    buffer = memoryview(bytearray(_BLOCK))
    descriptor = os.open(file, os.O_RDONLY)
    try:
        offset = 0
        while count := os.preadv(descriptor, [buffer], offset):
            offset += count
    finally:
        os.close(descriptor)
