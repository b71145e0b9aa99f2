"""What concerns the whole process: the command sets it, the library never does."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks: activations of the same size come back at every step.

    By default it returns large blocks to the kernel, which then clears every page again, a good part of the time of
    Conv4 on a CPU. Does nothing on other C libraries.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 1 << 30)
        mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
        mallopt(_TOP_PAD, 1 << 28)


def use_threads(threads: int) -> None:
    """Let torch use that many threads; 0 takes every processor this process may run on."""
    if threads < 0:
        raise ValueError(f"threads={threads}; required is at least 1, or 0 for all processors")
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(threads or own)


@contextmanager
def deferred_interrupts() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C (or SIGTERM) into a flag that is read between steps; the second one acts at once."""
    flag: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, frame: Any) -> None:
        if flag:
            raise KeyboardInterrupt
        flag.append(number)

    try:
        for number in before:
            signal.signal(number, handle)
    except ValueError:  # not in the main thread, where signals do not arrive
        yield lambda: False
        return
    try:
        yield lambda: bool(flag)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
