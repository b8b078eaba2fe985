# SPDX-License-Identifier: GPL-3.0-or-later
"""What scripts/gpu-check puts side by side: the GPU's engines, torch's own execution, and why one is not available."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.engines.availability import (
    cuda_devices,
    missing_for_onnxruntime_cuda,
    missing_for_tensorrt,
    unloadable_for_tensorrt,
)
from wavesfm_core.engines.tensorrt.library import LIBRARIES
from wavesfm_core.errors import EngineError

PRECISIONS = ("fp32", "bf16", "fp16", "int8")
PAPER_OUTPUTS = 3  # of the synthetic bundle of the paper's size
PRODUCT_SIDE = 8192  # of the square matrices whose product is timed


class NotAvailable(Exception):
    """What only opening shows: that the machine lacks what a contender needs."""


class Contender(NamedTuple):
    """One way to run a model. missing: why it is not available, "" where it is; open(bundle, largest batch): an engine
    with `run` and `close`; torch's hold no bundle's weights: they are of the paper's size, for speed only."""

    name: str
    precision: str
    missing: str
    open: Callable[[Bundle, int], Any]
    weights: bool = True


def contenders() -> list[Contender]:
    """All that are compared, those that are not available too."""
    onnxruntime, torch = missing_for_onnxruntime_cuda(), missing_for_torch()
    missing = {name: missing_for_library(name) for name in LIBRARIES}
    return [
        *(
            Contender(name, precision, missing[name], _tensorrt(name, precision))
            for name in LIBRARIES
            for precision in PRECISIONS
        ),
        Contender("onnxruntime CUDA", "fp32", onnxruntime, _onnxruntime),
        Contender("torch eager", "bf16", torch, lambda bundle, most: TorchPeer(False), False),
        Contender("torch.compile", "bf16", torch, lambda bundle, most: TorchPeer(True), False),
    ]


def missing_for_library(name: str) -> str:
    """Why `tensorrt` or `tensorrt_rtx` cannot be measured, in a few words; "" where it can."""
    if not _installed(name):
        return f"no {name}"
    return missing_for_tensorrt() or unloadable_for_tensorrt(name)


def missing_for_torch() -> str:
    """Why torch cannot be compared with, in a few words; "" where it can."""
    for package in ("torch", "safetensors", "wavesfm_trainer"):
        if not _installed(package):
            return f"no {package}"
    if not cuda_devices():
        return "no NVIDIA driver with a GPU"
    import torch

    return "" if torch.cuda.is_available() else f"a torch without CUDA ({torch.__version__})"


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _tensorrt(library: str, precision: str) -> Callable[[Bundle, int], Any]:
    def opened(bundle: Bundle, most: int) -> Any:
        from wavesfm_core.engines.tensorrt.engine import TensorRTEngine
        from wavesfm_core.engines.tensorrt.library import open_library

        return TensorRTEngine(bundle, precision, library=open_library(library), max_batch=most)

    return opened


def _onnxruntime(bundle: Bundle, most: int) -> Any:
    from wavesfm_core.engines.onnxruntime import CUDA, OnnxRuntimeSession, cuda_providers

    try:
        return OnnxRuntimeSession(bundle, providers=cuda_providers(0))
    except EngineError as error:
        if error.field == CUDA:  # it is installed, and CUDA or cuDNN is not
            raise NotAvailable(error) from error
        raise


class TorchPeer:
    """The paper's encoder with a linear head in bf16 weights, from page-locked memory and back."""

    def __init__(self, compiled: bool) -> None:
        import torch
        from wavesfm_trainer.models.task_model import TaskArgs, TaskModel
        from wavesfm_trainer.models.vit import EncoderArgs

        self._torch = torch
        model = TaskModel(EncoderArgs(size="paper"), TaskArgs(n_outputs=PAPER_OUTPUTS))
        model = model.eval().to("cuda", torch.bfloat16)
        self._model = torch.compile(model) if compiled else model
        self.description = f"torch {torch.__version__}, {'compiled' if compiled else 'eager'}, bf16"
        torch.cuda.reset_peak_memory_stats()

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """As an engine's run."""
        torch = self._torch
        with torch.inference_mode():
            tile = torch.from_numpy(inputs["tile"]).pin_memory().to("cuda", non_blocking=True)
            return {"logits": self._model(tile.bfloat16()).float().cpu().numpy()}

    @property
    def memory_bytes(self) -> int:
        """Most that was taken of the GPU so far."""
        return int(self._torch.cuda.max_memory_allocated())

    def close(self) -> None:
        """Free it all."""
        self._model = None
        self._torch.cuda.empty_cache()


def product_rate(seconds: float) -> float:
    """TFLOP/s of torch's own bf16 product of two large square matrices: what the GPU can do. Raises as torch does."""
    import torch

    a = torch.randn(PRODUCT_SIDE, PRODUCT_SIDE, device="cuda", dtype=torch.bfloat16)
    _ = a @ a
    torch.cuda.synchronize()
    done, start = 0, time.perf_counter()
    while (took := time.perf_counter() - start) < seconds:
        _ = a @ a
        torch.cuda.synchronize()
        done += 1
    return 2 * PRODUCT_SIDE**3 * done / took / 1e12
