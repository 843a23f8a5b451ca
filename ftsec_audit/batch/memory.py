"""Memory that processes hold, where the system tells (`/proc`); 0 elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
_OWN = re.compile(r"^Rss(?:Anon|Shmem):\s+(\d+) kB$", re.MULTILINE)


def is_known() -> bool:
    return held("self") > 0


def held(process: int | str) -> int:
    """Bytes of a process now, without pages of files, which the system can drop; 0 when it is gone."""
    return _sum(_OWN, process)


def peak() -> int:
    """Most bytes this process had resident since `forget_peak`, pages of files included."""
    return _sum(_PEAK, "self")


def forget_peak() -> None:
    """Count the peak anew from here; where that is refused, it stays that of the whole process."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _sum(pattern: re.Pattern[str], process: int | str) -> int:
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return sum(int(kilobytes) for kilobytes in pattern.findall(status)) << 10
