"""Arrays that came from the cache, protected against changes that a later run would not see.

After a hit two variables that shared memory no longer do, and an array may be a view of the file itself. So
an array can't be changed unless the user asks for a copy; what tries to is told about that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable


def hint(
    error: BaseException | None, source: str, restored: Iterable[str], space: dict[str, Any]
) -> str | None:
    """Say what to do about an error that comes from changing a protected array; None for other errors."""
    if not isinstance(error, ValueError) or "read-only" not in str(error):
        return None
    names = [name for name in sorted(restored) if name in source and _is_view(space.get(name))]
    if not names:
        return None
    return (
        f"{names[0]} came from the cache and can't be changed in place: '{names[0]} = {names[0]}.copy()'"
        " gives one that can, and '%%cache --copy' gives such arrays at once"
    )


def _is_view(value: Any) -> bool:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, np.ndarray) and not item.flags.writeable:
            return True
        waiting += (
            item.values() if isinstance(item, dict) else item if isinstance(item, (list, tuple)) else []
        )
    return False
