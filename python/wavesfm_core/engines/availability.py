# SPDX-License-Identifier: GPL-3.0-or-later
"""Packages and devices that the engines of a GPU need."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util

from ..errors import EngineError
from .tensorrt.library import LIBRARIES, open_library


def cuda_devices() -> int:
    """Number of GPUs of the NVIDIA driver; 0 without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def missing_for_tensorrt() -> str:
    """Missing packages and devices of the engine `tensorrt`, without importing them; "" where nothing is missing."""
    missing = []
    if not any(_installed(name) for name in LIBRARIES):
        missing.append("neither tensorrt nor tensorrt_rtx")
    if not _installed("onnx"):
        missing.append("no onnx")
    if not _installed("pycuda"):
        missing.append("no pycuda")
    if not cuda_devices():
        missing.append("no NVIDIA driver with a GPU")
    return ", ".join(missing)


def unloadable_for_tensorrt(library: str = "auto") -> str:
    """Reason why the installed packages cannot be imported; "" where they can. library: as in `open_library`."""
    try:
        open_library(library)
        importlib.import_module("pycuda.driver")
    except (EngineError, ImportError) as error:
        return f"installed but not loaded ({error})"
    return ""


def missing_for_onnxruntime_cuda() -> str:
    """Reason why onnxruntime cannot use a GPU; "" where it can."""
    if not _installed("onnxruntime"):
        return "no onnxruntime"
    if not cuda_devices():
        return "no NVIDIA driver with a GPU"
    import onnxruntime

    from .onnxruntime import CUDA

    return "" if CUDA in onnxruntime.get_available_providers() else "an onnxruntime without CUDA (not onnxruntime-gpu)"


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
