"""Measurements in processes of their own: forked after the imports, so that each begins from the same memory."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measuring


def in_own_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns in a forked process, which has this one's objects; only one thread may run here."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(function(*arguments)))
    process.start()
    sender.close()  # so that the end of the process ends the pipe
    try:
        return receiver.recv()
    except EOFError:
        raise SystemExit(f"{function.__name__} failed in its process") from None
    finally:
        process.join()


def seconds_and_megabytes(ask: Callable[[], Any], before: int) -> tuple[float, float, Any]:
    """Processor seconds of a call, its peak memory beyond `before` bytes, and what it returned."""
    restart_peak()
    seconds, found = measuring.timed(ask)
    return seconds, (own_memory("VmHWM") - before) / 2**20, found


def restart_peak() -> None:
    """Give freed memory back to the system where it can be, and begin the peak anew."""
    gc.collect()
    getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)
    Path("/proc/self/clear_refs").write_text("5")


def own_memory(key: str = "VmRSS") -> int:
    """Resident bytes of this process without those of files, which come and go with the system: now, or "VmHWM"."""
    return resident(key) - resident("RssFile") - resident("RssShmem")


def resident(key: str) -> int:
    """Resident bytes of this process: "VmRSS", "VmHWM" for the peak, or a part of them."""
    return 1024 * int(re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text())[1])
