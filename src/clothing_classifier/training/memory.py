"""Memory that is freed stays with the process, for the next step to take again."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

_TRIM_THRESHOLD: Final = -1
_TOP_PAD: Final = -2
_MMAP_MAX: Final = -4
_LARGEST: Final = 2**31 - 1
_STEP: Final = 256 * 2**20


def keep_freed_memory() -> bool:
    """Keep glibc from giving freed memory back to the system while this process lives.

    A step of training on the CPU frees gigabytes in large blocks and takes them again a moment later. By default glibc
    hands each such block back, and the kernel then clears it page by page: up to half of the time went there.
    See mallopt(3).

    Returns:
        Whether there was a glibc to tell.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, such as musl
        return False
    return all(
        mallopt(setting, value) == 1
        for setting, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _LARGEST), (_TOP_PAD, _STEP))
    )
