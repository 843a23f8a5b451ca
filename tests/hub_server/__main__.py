"""`python -m hub_server FOLDER [DELAY]`: serves every `org/name` below FOLDER until it is killed.

Prints its endpoint. Adapters are tagged `peft` and with the base they name; large files are answered DELAY
seconds late.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

from hub_server import Fault, HubServer


def main() -> None:
    folder, delay = Path(sys.argv[1]), float((*sys.argv[2:], "0")[0])
    with HubServer() as server:
        server.faults.append(Fault(host="storage", delay=delay))
        for path in sorted(folder.glob("*/*")):
            added = server.add(
                f"{path.parent.name}/{path.name}", {file.name: file for file in path.iterdir()}
            )
            configuration = path / "adapter_config.json"
            if configuration.exists():
                base = json.loads(configuration.read_text()).get("base_model_name_or_path")
                added.tags += ["peft", f"base_model:{base}"]
        print(server.endpoint, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
