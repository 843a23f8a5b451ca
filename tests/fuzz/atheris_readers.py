"""Coverage-guided fuzzing: `python tests/fuzz/atheris_readers.py pickle -max_total_time=600`.

Needs the package atheris, which is not a dependency. The first argument names the reader; the rest goes to
libFuzzer. Seeds are written to `.cache/fuzz/<reader>` and grow there.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))


def main() -> None:
    import atheris

    with atheris.instrument_imports(include=["ftsec_audit"]):
        from fuzz.readers import READERS, SEEDS, exercise

    name = sys.argv.pop(1) if len(sys.argv) > 1 and sys.argv[1] in READERS else "survey"
    folder = Path(".cache/fuzz") / name
    folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name]):
        (folder / f"seed-{number:04}").write_bytes(seed)
    atheris.Setup([*sys.argv, str(folder)], lambda data: exercise(name, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
