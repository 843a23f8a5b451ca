"""`python -m ftsec_audit.cli.followed …`: the command line in a child that ends with whoever started it.

Standard input is held open by the parent and carries nothing: when it ends, so does this process, and with
it its workers. That works for a parent that was killed as well, and on every system.
"""

from __future__ import annotations

import os
import sys
import threading

from ftsec_audit.cli import main
from ftsec_audit.cli.exit_codes import COULD_NOT_RUN


def _follow() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(COULD_NOT_RUN)


if __name__ == "__main__":
    threading.Thread(target=_follow, daemon=True).start()
    main()
