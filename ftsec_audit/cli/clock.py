"""The one place that knows what time it is, for the formats that must say when."""

from __future__ import annotations

import os
from datetime import UTC, datetime


def now() -> str:
    """RFC 3339 in UTC; SOURCE_DATE_EPOCH makes it repeatable, as build tools do."""
    fixed = os.environ.get("SOURCE_DATE_EPOCH", "")
    moment = (
        datetime.fromtimestamp(int(fixed), UTC) if fixed.isdigit() and len(fixed) < 12 else datetime.now(UTC)
    )
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
