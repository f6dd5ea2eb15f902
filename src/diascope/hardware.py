"""What this machine is, and the arithmetic it gains from."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import torch

Precision = Literal["32-true", "bf16-mixed"]
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # malloc.h
_MAPPED = 65_536  # blocks: glibc's own limit
_WORTH_TRIMMING = 128 << 20  # bytes: below it, looking through all that is free costs more
_AVX512_BF16 = "_is_avx512_bf16_supported"  # of torch.cpu
_NO_MEMORY = ("out of memory", "can't allocate memory", "alloc_failed", "std::bad_alloc")


def gains_from_bf16(device: torch.device) -> bool:
    """Tell whether bfloat16 convolutions, and their input gradients, are faster on `device`.

    On a CPU with AMX or AVX-512 BF16 (AMD from Zen 4 on, some of Intel's): `python -m
    benchmarks.bf16` measures both speed and correctness. Without either bfloat16 is emulated, and
    slower than float32. On a GPU, tensor cores of compute capability 8.0 or above.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and (_has("_is_amx_tile_supported") or _has(_AVX512_BF16))


def best_precision(device: torch.device) -> Precision:
    """Return the mixed precision that training on `device` gains from.

    Some convolutions are left out of it on CPUs (`diascope.training.convolutions`).
    """
    return "bf16-mixed" if gains_from_bf16(device) else "32-true"


def _has(unit: str) -> bool:
    probe = getattr(torch.cpu, unit, None)
    return bool(probe and probe())


def keep_memory() -> None:
    """Have the C library keep freed memory for the next tensors, where it is glibc.

    By default it gives tensors above 32 MB back to the system, which then clears every page of
    the next one: some 4% of the time of a PGD step of a ResNet-18 on 32 images of 128, one thread.
    It holds for the whole process, whose peak of memory grows by some per cent.
    """
    with _KEEPING.lock:
        _KEEPING.always = True
        _set_malloc(0, (1 << 31) - 1)


@contextmanager
def memory_kept() -> Iterator[None]:
    """Do as `keep_memory` does for as long as this lasts.

    What is freed after is given back, and so is what was kept, if the process has grown by 128 MB.
    """
    with _KEEPING.lock:
        if _KEEPING.depth == 0 and not _KEEPING.always:
            _set_malloc(0, (1 << 31) - 1)
            _KEEPING.before = _resident()
        _KEEPING.depth += 1
    try:
        yield
    finally:
        with _KEEPING.lock:
            _KEEPING.depth -= 1
            if _KEEPING.depth == 0 and not _KEEPING.always:
                _set_malloc(_MAPPED, 64 << 20)
                if _resident() - _KEEPING.before > _WORTH_TRIMMING:
                    _trim()


class _Keeping:
    """Who wants freed memory to be kept."""

    def __init__(self) -> None:
        self.always, self.depth = False, 0
        self.lock = threading.RLock()  # a finaliser may end one while another is begun
        self.before = 0  # bytes of memory in use when the first began


_KEEPING = _Keeping()


def _new_lock() -> None:
    """Let go, in a process that was forked, of what a thread of its parent held."""
    _KEEPING.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


def _set_malloc(mapped: int, trim: int) -> None:
    """Have glibc map up to so many blocks of 32 MB and above, and keep `trim` bytes of the rest.

    With 65,536 and 64 MB that is how it behaves by itself once a block of 32 MB was freed.
    """
    if libc := _glibc():
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_M_MMAP_MAX, mapped)
        libc.mallopt(_M_TRIM_THRESHOLD, trim)


def _trim() -> None:
    """Give the pages of all freed memory back, those between what is in use as well."""
    if libc := _glibc():
        libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def _resident() -> int:
    """Return the bytes of memory that this process has in use, 0 where the system does not say."""
    try:
        with open("/proc/self/statm") as told:
            return int(told.read().split()[1]) * mmap.PAGESIZE
    except OSError:
        return 0


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out, on the host or on a device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return any(words in text for words in _NO_MEMORY)


def describe() -> dict[str, Any]:
    """Return the machine as plain values, for the record of a run."""
    return {
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "bf16": gains_from_bf16(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
    }


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            return next(
                line.split(":")[1].strip() for line in lines if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
