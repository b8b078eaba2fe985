# SPDX-License-Identifier: GPL-3.0-or-later
"""Check of an engine against a bundle's golden outputs."""

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


PREPARE_TOLERANCE = 2e-2
"""Allowed difference of prepared tiles in standardised units; covers the roundings of FFTW and numpy near the floor."""


@dataclass(frozen=True)
class GoldenReport:
    """Largest differences of a replay from the golden tiles and outputs."""

    engine: str
    """Description of the engine."""
    tiles: int
    """Number of golden tiles."""
    prepare_difference: float
    """Largest difference of a prepared tile, in standardised units."""
    prepare_tolerance: float
    """Allowed difference of prepared tiles."""
    engine_difference: float
    """Largest difference of an output, in its unit."""
    engine_tolerance: float
    """Allowed difference of that output."""


def replay_golden(bundle: Bundle, engine: Engine) -> GoldenReport:
    """Prepare the golden inputs and run the golden tiles through an engine.

    Outputs may differ by the bundle's tolerance, or by the engine's `relative_tolerance` times the largest golden
    output where that is more.

    Parameters
    ----------
    bundle : Bundle
        Bundle with the golden inputs, tiles and outputs.
    engine : Engine
        Engine of this bundle.

    Returns
    -------
    GoldenReport
        The largest differences.

    Raises
    ------
    BundleError
        Names the stage that differs, `prepare` or `engine`, with the largest difference.
    EngineError
        The engine fails.
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
    """Largest absolute difference; infinite where shapes differ or a value is not finite."""
    if a.shape != b.shape or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    return float(np.max(np.abs(a.astype(np.float64) - b), initial=0.0))


def verify_engine(bundle: Bundle, engine: Engine) -> Engine:
    """Return the engine if it gives the golden outputs; else close it and raise as `replay_golden` does."""
    try:
        replay_golden(bundle, engine)
    except WavesfmError:
        engine.close()
        raise
    return engine
