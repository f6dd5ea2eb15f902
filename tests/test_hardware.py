"""What a machine is said to gain from."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading

import pytest
import torch

from diascope import hardware

AMX, AVX512_BF16 = "_is_amx_tile_supported", "_is_avx512_bf16_supported"


@pytest.mark.parametrize(
    ("units", "gains", "precision"),
    [
        ((), False, "32-true"),
        ((AVX512_BF16,), True, "bf16-mixed"),
        ((AMX, AVX512_BF16), True, "bf16-mixed"),
    ],
)
def test_attacks_take_bfloat16_where_it_is_faster_and_training_where_it_is_right(
    monkeypatch, units, gains, precision
):
    monkeypatch.setattr(hardware, "_has", lambda unit: unit in units)
    cpu = torch.device("cpu")
    assert hardware.gains_from_bf16(cpu) is gains
    assert hardware.best_precision(cpu) == precision
    assert not hardware.gains_from_bf16(torch.device("mps"))


def test_the_units_asked_for_are_those_that_torch_tells_of():
    assert all(hasattr(torch.cpu, unit) for unit in (AMX, AVX512_BF16))
    assert hardware._AVX512_BF16 == AVX512_BF16


def test_memory_is_kept_while_anyone_wants_it(monkeypatch):
    told = []
    monkeypatch.setattr(hardware, "_set_malloc", lambda mapped, trim: told.append(mapped))
    monkeypatch.setattr(hardware, "_KEEPING", hardware._Keeping())
    with hardware.memory_kept(), hardware.memory_kept():
        assert told == [0]
    assert told == [0, hardware._MAPPED]
    with pytest.raises(KeyError), hardware.memory_kept():
        raise KeyError
    assert told == [0, hardware._MAPPED] * 2
    hardware.keep_memory()
    with hardware.memory_kept():
        pass
    assert told == [0, hardware._MAPPED] * 2 + [0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fork beside threads
def test_a_forked_process_is_not_held_up_by_a_thread_of_its_parent():
    held, done = threading.Event(), threading.Event()

    def hold():
        with hardware._KEEPING.lock:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if not child:
        free = hardware._KEEPING.lock.acquire(timeout=10)
        os._exit(0 if free else 1)
    done.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_pages_of_large_tensors_are_asked_for_once_while_memory_is_kept():
    script = """
import ctypes, resource, torch
from diascope import hardware
def faults(size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        torch.empty(size, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
PR_SET_THP_DISABLE = 41  # pages of 4 KB
ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)
torch.empty(1 << 20).fill_(1)
first = faults(1 << 26)
with hardware.memory_kept():
    kept = min(faults(1 << 26) for _ in range(4))
print(first, kept, faults(1 << 28))
"""
    run = [sys.executable, "-c", script]
    told = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    first, kept, last = map(int, told.split())
    assert first > 5 * 10_000
    assert last > 4 * 50_000
    assert kept < 1_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_what_was_kept_is_given_back_though_something_lies_above_it():
    script = """
import torch
from diascope import hardware
def resident():
    return hardware._resident() >> 20
torch.empty(1 << 20).fill_(1)
before = resident()
with hardware.memory_kept():
    large = torch.empty(1 << 28, dtype=torch.uint8).fill_(1)
    small = [torch.empty(10) for _ in range(10_000)]
    del large
    kept = resident()
print(kept - before, resident() - before)
"""
    run = [sys.executable, "-c", script]
    told = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    kept, after = map(int, told.split())
    assert kept > 250
    assert after < 50
