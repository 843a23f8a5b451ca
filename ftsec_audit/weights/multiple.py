"""Is a tensor the base's, times a number?"""

from __future__ import annotations

import math
from typing import NamedTuple

from ftsec_audit.weights.moments import Source


class Multiple(NamedTuple):
    """The multiple c·W of the base's tensor that lies nearest to the subject's W′."""

    factor: float
    """c; 0 where W′ has nothing of W."""
    remainder: float
    """‖W′ − cW‖/‖W′‖: the sine of the angle between both, 0 for a multiple and 1 for unrelated tensors."""
    norm: float
    """‖W′‖."""


def nearest_multiple(source: Source) -> Multiple | None:
    """One pass over both sides; None where the base has nothing, or either side is 0 or not finite."""
    ours = theirs = product = 0.0
    for _, after, before in source.blocks():
        if before is None:
            return None
        one, other = after.double().flatten(), before.double().flatten()
        ours += float(one @ one)
        theirs += float(other @ other)
        product += float(one @ other)
    if not (0 < ours < math.inf and 0 < theirs < math.inf):
        return None
    rest = max(0.0, 1 - product**2 / (ours * theirs))
    return Multiple(factor=product / theirs, remainder=math.sqrt(rest), norm=math.sqrt(ours))
