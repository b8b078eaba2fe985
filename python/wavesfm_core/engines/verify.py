# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether an engine computes what the bundle's golden outputs say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..bundle.bundle import GOLDEN, Bundle
from ..errors import BundleError, WavesfmError
from ..preprocess.golden_inputs import golden_inputs
from ..preprocess.tile import prepare

if TYPE_CHECKING:
    from ..engines.base import Engine


PREPARE_TOLERANCE = 2e-2  # standardised units; covers FFTW's and numpy's different roundings near the dB floor


@dataclass(frozen=True)
class GoldenReport:
    """The largest differences of a replay: of the prepared tiles, in standardised units, and of the outputs."""

    engine: str
    tiles: int
    prepare_difference: float
    prepare_tolerance: float
    engine_difference: float
    engine_tolerance: float


def replay_golden(bundle: Bundle, engine: Engine) -> GoldenReport:
    """Prepare the golden IQ, arrays or grids and run the golden tiles through `engine`.

    Raises BundleError naming the stage that differs, `prepare` or `engine`, with the largest difference. The outputs
    may differ by the bundle's tolerance, or by the engine's `relative_tolerance` times the largest golden output where
    that is more (an engine of lower precision than float32).
    """
    golden = bundle.golden()
    source = f"{bundle.path / GOLDEN}: input"
    prepared = [prepare(a, bundle.spec.preprocess, f"{source} {i}") for i, a in enumerate(golden.inputs)]
    apart = max((_largest(a, b) for a, b in zip(prepared, golden.tiles, strict=True)), default=0.0)
    if not apart <= PREPARE_TOLERANCE:
        raise BundleError(
            bundle.path, "golden stage prepare", f"a difference of {apart:.3g}", f"at most {PREPARE_TOLERANCE:g}"
        )
    outputs = engine.run(golden_inputs(bundle.spec, golden))
    worst, allowed = 0.0, bundle.spec.tolerance
    for name, expected in golden.outputs.items():
        tolerance = max(bundle.spec.tolerance, engine.relative_tolerance * float(np.max(np.abs(expected))))
        difference = _largest(outputs[name], expected)
        if not difference <= tolerance:
            stage = f"golden stage engine ({engine.description}), output {name}"
            raise BundleError(bundle.path, stage, f"a difference of {difference:.3g}", f"at most {tolerance:.3g}")
        if difference >= worst:
            worst, allowed = difference, tolerance
    return GoldenReport(engine.description, len(golden.tiles), apart, PREPARE_TOLERANCE, worst, allowed)


def _largest(a: np.ndarray, b: np.ndarray) -> float:
    """The largest absolute difference; infinite where shapes differ or a value is not finite."""
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    return float(np.max(np.abs(a.astype(np.float64) - b), initial=0.0))


def proven(bundle: Bundle, engine: Engine) -> Engine:
    """The engine, which gives the bundle's golden outputs; one that does not is closed. Raises as `replay_golden`."""
    try:
        replay_golden(bundle, engine)
    except WavesfmError:
        engine.close()
        raise
    return engine
