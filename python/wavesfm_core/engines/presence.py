"""What a GPU's engines need and this machine lacks, found without importing any of it."""

from __future__ import annotations

import ctypes
import importlib.util

from .trt_library import LIBRARIES


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
    if not _installed("pycuda"):
        missing.append("no pycuda")
    if not cuda_devices():
        missing.append("no NVIDIA driver with a GPU")
    return ", ".join(missing)


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
