"""`python -m builders.told_batch batch --store S … -- REFERENCE…`: a `batch` that does what a reference says.

`org/ok-…` is stored, `org/source-…` cannot be fetched, `org/crash-…` has no report, `org/hang-…` takes
forever, `org/mute-…` ends everything with a complaint.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path

from builders import reports

from ftsec_audit.batch.record import Record
from ftsec_audit.batch.store import Store


def main(words: list[str]) -> int:
    store, events = (words[words.index(name) + 1] for name in ("--store", "--events"))
    with Path(events).open("a") as file:
        for reference in words[words.index("--") + 1 :]:
            deed = reference.partition("org/")[2].partition("-")[0]
            (Path(store).parent / "log").open("a").write(f"{os.getpid()} {reference}\n")
            if deed == "mute":
                print("error: the disk is full", file=sys.stderr)
                return 2
            if deed == "hang":
                time.sleep(3600)
            key = hashlib.sha256(reference.encode()).hexdigest()
            event = {"event": "done", "reference": reference, "names": [reference], "key": key}
            event |= {"seconds": 0.5, "verdict": "pass", "failure": None, "reason": ""}
            if deed == "ok":
                Store(store).put(Record(key=key, reference=reference, report=reports.passing()))
            else:
                event |= {"event": "failed", "verdict": None, "failure": deed, "reason": "so it goes"}
            file.write(json.dumps(event) + "\n")
            file.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
