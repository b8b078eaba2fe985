# SPDX-License-Identifier: GPL-3.0-or-later
"""What a GPU's engines need and this machine lacks, found without importing TensorRT or pycuda where not said."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util

from ..errors import EngineError
from .tensorrt.library import LIBRARIES, open_library


def cuda_devices() -> int:
    """How many GPUs the NVIDIA driver shows; 0 where there is no driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def missing_for_tensorrt() -> str:
    """Why TensorRT cannot be used here, in a few words; "" where nothing is missing."""
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
    """Why what is installed cannot be loaded, found by importing it; "" where it can. library: as in `open_library`."""
    try:
        open_library(library)
        importlib.import_module("pycuda.driver")
    except (EngineError, ImportError) as error:
        return f"installed but not loaded ({error})"
    return ""


def missing_for_onnxruntime_cuda() -> str:
    """Why onnxruntime cannot use a GPU here, in a few words; "" where nothing is missing."""
    if not _installed("onnxruntime"):
        return "no onnxruntime"
    if not cuda_devices():
        return "no NVIDIA driver with a GPU"
    import onnxruntime

    from .onnxruntime import CUDA

    return "" if CUDA in onnxruntime.get_available_providers() else "an onnxruntime without CUDA (not onnxruntime-gpu)"


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
