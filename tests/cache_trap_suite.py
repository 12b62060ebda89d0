"""All situations in which caches go wrong, one after the other."""

from __future__ import annotations

import cache_traps
import cache_traps_code
import cache_traps_values
from cache_traps import HIT, MISS, REFUSED

__all__ = ["HIT", "MISS", "REFUSED", "TRAPS"]

TRAPS = {**cache_traps.TRAPS, **cache_traps_code.TRAPS, **cache_traps_values.TRAPS}
assert len(TRAPS) == sum(len(part.TRAPS) for part in (cache_traps, cache_traps_code, cache_traps_values))
