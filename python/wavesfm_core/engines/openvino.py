# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenVINO on the CPU: bf16 where the processor computes it natively, float32 elsewhere."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import EngineError
from ..packages import install_command
from .native import NativeEngine

if TYPE_CHECKING:
    from ..bundle.bundle import Bundle

BF16_RELATIVE_TOLERANCE = 0.05
"""Allowed difference as a share of the largest output: bf16 keeps 8 bits, and the errors of a dozen layers add up."""


class OpenVinoEngine(NativeEngine):
    """See `Engine`; the CPU plugin tuned for latency.

    Parameters
    ----------
    bundle : Bundle
        Bundle to run.
    threads : int
        Threads; 0 for all cores.
    precision : str
        "auto", "f32" or "bf16".

    Raises
    ------
    EngineError
        openvino is missing or of a version from 2026 on, which corrupts the heap, or refuses the model.
    BundleError
        The model's tensors are not those of bundle.json.
    """

    def __init__(self, bundle: Bundle, threads: int = 0, precision: str = "auto") -> None:
        super().__init__(bundle, "openvino", library(), threads, precision)
        assert self.native is not None
        self.relative_tolerance = BF16_RELATIVE_TOLERANCE if self.native.precision == "bf16" else 0.0


def library() -> str:
    """Return the path of OpenVINO's C library.

    Returns
    -------
    str
        That of the installed package `openvino`, or the name that the loader knows where a distribution installed it.

    Raises
    ------
    EngineError
        The package is missing.
    """
    spec = importlib.util.find_spec("openvino")
    if spec is None or not spec.submodule_search_locations:
        raise EngineError("engine openvino", "runtime", "no package openvino", install_command("openvino"))
    found = sorted(Path(spec.submodule_search_locations[0], "libs").glob("libopenvino_c.so*"))
    return str(found[-1]) if found else "libopenvino_c.so"
