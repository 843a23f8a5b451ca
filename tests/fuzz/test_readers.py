"""Readers of untrusted bytes under mutation: the project's own errors only, no hang, bounded memory.

The ordinary run takes seconds. `FTSEC_FUZZ_EXAMPLES=20000` runs longer, and `atheris_readers.py` in this
folder is the coverage-guided form.
"""

from __future__ import annotations

import os
import time

import pytest
from fuzz.readers import READERS, SEEDS, exercise
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("FTSEC_FUZZ_EXAMPLES", "60"))
SLOWEST = 20.0


@st.composite
def mutated(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """A seed with bytes flipped, cut out, repeated, or with numbers put in their place."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(("flip", "insert", "delete", "repeat", "number"))):
            case "flip" if data:
                data[at] ^= draw(st.integers(1, 255))
            case "insert":
                data[at:at] = draw(st.binary(max_size=12))
            case "delete":
                del data[at : at + draw(st.integers(1, 64))]
            case "repeat":
                data[at:at] = data[at : at + draw(st.integers(1, 64))]
            case _:
                number = draw(st.sampled_from((0, 1, 2**31 - 1, 2**32 - 1, 2**63, 2**64 - 1)))
                width = draw(st.sampled_from((4, 8)))
                data[at : at + width] = (number % 256**width).to_bytes(width, "little")
    return bytes(data)


@pytest.mark.parametrize("name", sorted(READERS))
def test_mutated_files_raise_nothing_unexpected(name: str) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(data=mutated(SEEDS[name]))
    def run(data: bytes) -> None:
        start = time.perf_counter()
        exercise(name, data)
        assert time.perf_counter() - start < SLOWEST

    run()


@pytest.mark.parametrize("name", sorted(READERS))
def test_every_prefix_of_a_seed_is_handled(name: str) -> None:
    for seed in SEEDS[name]:
        step = max(1, len(seed) // 40)
        for length in range(0, len(seed), step):
            exercise(name, seed[:length])
