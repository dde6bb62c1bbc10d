"""Ask the C library to keep freed memory, because fetching pages from the system again costs more than arithmetic."""

from __future__ import annotations

import ctypes
import functools
import sys

_TRIM, _MMAP = -1, -3  # of glibc's mallopt
_MOST = 2**31 - 1


@functools.cache
def keep_pages() -> bool:
    """Let large temporaries come from the heap and stay there; halves some training steps on virtual machines.

    Memory that the process used once stays with it until it ends. Does nothing (and returns False) outside glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP, 1 << 30)) and bool(mallopt(_TRIM, _MOST))
