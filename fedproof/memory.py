"""How a daemon's memory goes round."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

# malloc.h
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8

_MODEL_SIZED: Final = 4 << 20
_KEPT_BYTES: Final = 8 << 20


def share_one_heap() -> None:
    """Have glibc keep chunk-sized buffers in one heap, and give back model-sized ones; elsewhere do nothing.

    Chunks come and go by the hundred, in several threads. By default there is a heap for every few threads,
    and each keeps what it once had: a hundred uploads end with 100 MB that nobody uses. If each buffer went
    back to the system instead, most of a daemon's time would go into fresh pages.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_MMAP_THRESHOLD, _MODEL_SIZED)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
