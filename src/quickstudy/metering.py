"""The peak memory and the time of a piece of work in this process."""

import ctypes
import gc
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_PROCESS = Path("/proc/self")


def return_freed_memory() -> None:
    """Let glibc return freed blocks of 64 KiB or more to the kernel, so that the resident set follows what is alive.

    The opposite of ``process.keep_freed_memory``. Does nothing on other C libraries.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, 1 << 16)
        mallopt(_TRIM_THRESHOLD, 1 << 16)


def peak_above(work: Callable[[], object], device: torch.device) -> tuple[int, str]:
    """Peak memory in bytes while ``work`` runs, above what was held before it; and by what it was counted.

    On a GPU torch's allocator counts. On Linux the kernel's high-water mark of the resident set is reset before the
    work; elsewhere it cannot be, so what stays below an earlier peak of the process is not seen.

    Raises:
        ValueError: a platform that does not tell the peak.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before, "torch.cuda.max_memory_allocated"
    try:
        (_PROCESS / "clear_refs").write_text("5")
    except OSError:
        before = _highest_resident_set()
        work()
        return _highest_resident_set() - before, "getrusage ru_maxrss"
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before, "VmHWM, reset by clear_refs"


def median_seconds(work: Callable[[], object], repeats: int, device: torch.device) -> tuple[float, float]:
    """Median wall-clock and processor seconds of ``work``, after one run that is not timed.

    Args:
        work: what is timed.
        repeats: how often; no more often once a minute has passed.
        device: where it runs.
    """
    work()
    wall: list[float] = []
    processor: list[float] = []
    while len(wall) < repeats and sum(wall) < 60:
        _wait(device)
        began = time.perf_counter(), time.process_time()
        work()
        _wait(device)
        wall.append(time.perf_counter() - began[0])
        processor.append(time.process_time() - began[1])
    return statistics.median(wall), statistics.median(processor)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _status(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    lines = (_PROCESS / "status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def _highest_resident_set() -> int:
    try:
        import resource  # not on every platform
    except ImportError as error:
        raise ValueError(
            f"{sys.platform} does not tell the peak memory of a process; required is Linux, macOS or a CUDA device"
        ) from error
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
