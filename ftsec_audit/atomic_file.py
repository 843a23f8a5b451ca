"""Files that are either written whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def write(path: Path, content: str | bytes) -> None:
    """Put `content` at `path` through a temporary name beside it; raises OSError and leaves nothing behind.

    Text is written as UTF-8.
    What exists and is no regular file (a device, a pipe) is written to directly: it cannot be replaced.
    """
    data = content.encode() if isinstance(content, str) else content
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        path.write_bytes(data)
        return
    temporary = path.with_name(f".{path.name[:100]}.{os.getpid()}.part")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
