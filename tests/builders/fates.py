"""What can become of a worker, decided by the name of the folder that it scans."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from ftsec_audit.artifact import Artifact
from ftsec_audit.signing import RequiredSignature


class Fate(RequiredSignature):
    """Stands where a signature is checked: `deadly` kills the process, `endless` keeps it."""

    def check(self, artifact: Artifact) -> None:
        name = Path(artifact.reference).name
        if name == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "endless":
            time.sleep(600)
