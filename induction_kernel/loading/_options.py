"""Options of `load` that all sources share: device, dtype, number of devices, device map."""

from __future__ import annotations

from typing import Any

import torch

from .._given import is_whole
from ..errors import Refused

__all__ = ["checked_options"]

_PLANS = ("auto", "balanced", "balanced_low_0", "sequential")


def checked_options(
    device: str | torch.device | None,
    dtype: str | torch.dtype | None,
    n_devices: int | None,
    device_map: Any,
) -> dict[str, Any]:
    """Those of the four that are given, in the form that torch and TransformerLens take.

    Raises:
        Refused: a device or dtype that torch does not know or this machine does not have; a device map beside a device.
        TypeError: an `n_devices` that is not a number, a `device_map` that is neither a plan nor a mapping.
    """
    if device_map is not None and (device is not None or n_devices is not None):
        other = "device" if device is not None else "n_devices"
        raise Refused(
            f"device_map says where every part goes, so {other} must be left out: pass only one of them"
        )
    given = {
        "device": None if device is None else _device(device),
        "dtype": None if dtype is None else _dtype(dtype),
        "n_devices": None if n_devices is None else _n_devices(n_devices),
        "device_map": None if device_map is None else _device_map(device_map),
    }
    return {key: value for key, value in given.items() if value is not None}


def _device(device: str | torch.device) -> str:
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise Refused(f'device must be one torch knows, such as "cpu" or "cuda", got {device!r}') from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise Refused(f'device {device!r} is not available here: torch sees no CUDA device; use "cpu"')
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise Refused(
            f"device {device!r} is not available here: torch sees {torch.cuda.device_count()} CUDA devices"
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise Refused(f'device {device!r} is not available here: torch sees no MPS device; use "cpu"')
    if chosen.type == "meta":
        raise Refused('device "meta" holds no weights: nothing could be measured; use "cpu"')
    return str(chosen)


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    chosen = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if chosen not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise Refused(
            'dtype must be a floating point type, "float16", "bfloat16", "float32" or "float64" (as a string or '
            f"torch's own), got {dtype!r}"
        )
    return chosen


def _n_devices(n_devices: int) -> int:
    if not is_whole(n_devices):
        raise TypeError(f"n_devices must be a whole number, got {n_devices!r}")
    there = torch.cuda.device_count()
    if not 1 <= n_devices <= max(1, there):
        raise Refused(
            f"n_devices must be from 1 to the number of CUDA devices that torch sees here, {there}, "
            f"got {n_devices}"
        )
    return n_devices


def _device_map(device_map: Any) -> Any:
    if isinstance(device_map, str) and device_map in _PLANS:
        return device_map
    if isinstance(device_map, dict) and device_map:
        for part, device in device_map.items():
            if device != "disk":
                try:
                    _device(f"cuda:{device}" if isinstance(device, int) else device)
                except Refused as error:
                    raise Refused(f"device_map[{part!r}]: {error}") from error
        return device_map
    wanted = f'one of {", ".join(_PLANS)}, or a mapping from parts to devices such as {{"": "cpu"}}'
    if isinstance(device_map, str | dict):
        raise Refused(f"device_map must be {wanted}, got {device_map!r}")
    raise TypeError(f"device_map must be {wanted}, got {type(device_map).__name__}: {device_map!r:.80}")
