from __future__ import annotations

import subprocess
import sys

import pytest

_CODE = """
import mmap, resource, sys
sys.path[:0] = sys.argv[2:]
from clothing_classifier.training.memory import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
size = 64 * 2**20
for turn in range(9):
    block = libc.malloc(ctypes.c_size_t(size))
    ctypes.memset(block, 1, size)
    libc.free(block)
    if turn == 0:
        first = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - first)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mallopt is glibc's")
def test_what_was_freed_is_not_fetched_again_page_by_page() -> None:
    def faults(how: str) -> int:
        words = [sys.executable, "-c", _CODE, how, *sys.path]
        return int(subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout)

    given_back, kept = faults("default"), faults("kept")
    assert given_back > 8 * 64 * 2**20 / 2**21, "each turn fetched its pages again, by whatever page size"
    assert kept < given_back / 10
