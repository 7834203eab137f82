"""Memory that is freed stays with the process, for the next step to take again."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress
from typing import Final

_TRIM_THRESHOLD: Final = -1
_TOP_PAD: Final = -2
_MMAP_MAX: Final = -4
_LARGEST: Final = 2**31 - 1
_STEP: Final = 256 * 2**20


def keep_freed_memory() -> None:
    """Keep glibc from giving freed memory back to the system while this process lives.

    A step of training on the CPU frees gigabytes in large blocks and takes them again a moment later. By default glibc
    hands each such block back, and the kernel then clears it page by page: up to half of the time went there.
    See mallopt(3).
    """
    if not sys.platform.startswith("linux"):
        return
    with suppress(OSError, AttributeError):  # another C library, such as musl
        mallopt = ctypes.CDLL(None).mallopt
        for setting, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _LARGEST), (_TOP_PAD, _STEP)):
            mallopt(setting, value)
