"""How the daemon's memory goes back to the system."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

_M_MMAP_THRESHOLD: Final = -3  # malloc.h
_RETURNED_BYTES: Final = 256 << 10


def return_freed_buffers() -> None:
    """Have glibc return each freed buffer of 256 KiB or more to the system; elsewhere nothing is done.

    Chunks come and go by the hundred, in several threads. By default glibc soon keeps buffers of their size
    for the next one, in a heap for each thread, and a round of 86 chunks ends with 50 MiB that nobody uses.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _RETURNED_BYTES)
