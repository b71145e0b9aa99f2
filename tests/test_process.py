"""Threads, memory and signals of a process."""

import os
import signal
import subprocess
import sys
import threading

import pytest
import torch

from quickstudy.process import deferred_interrupts, use_threads


def test_threads_are_set_and_zero_takes_every_processor():
    use_threads(2)
    assert torch.get_num_threads() == 2
    use_threads(0)
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert torch.get_num_threads() == own
    with pytest.raises(ValueError, match=r"threads=-1; required is at least 1, or 0 for all"):
        use_threads(-1)


def test_keeping_freed_memory_does_no_harm():
    code = "from quickstudy.process import *; keep_freed_memory(); print(torch.ones(999, 999).sum())"
    done = subprocess.run([sys.executable, "-c", code], timeout=120, check=True, capture_output=True, text=True)
    assert done.stdout == "tensor(998001.)\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_interrupt_is_a_flag_and_the_second_one_acts(number):
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    with deferred_interrupts() as interrupted:
        assert not interrupted()
        signal.raise_signal(number)
        assert interrupted()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert {n: signal.getsignal(n) for n in before} == before


def test_handlers_are_restored_after_an_error():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RuntimeError, match="inside"), deferred_interrupts():
        raise RuntimeError("inside")
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_nothing_is_deferred():
    seen = []

    def work() -> None:
        with deferred_interrupts() as interrupted:
            seen.append(interrupted())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
