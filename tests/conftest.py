"""Settings of the whole suite."""

from __future__ import annotations

import os

from hypothesis import settings

# A build must not fail by the luck of the draw; at a desk, new examples are drawn every time.
settings.register_profile("build", derandomize=True, deadline=None)
settings.register_profile("desk", deadline=None)
settings.load_profile("build" if os.environ.get("CI") else "desk")
