# SPDX-License-Identifier: GPL-3.0-or-later
"""Synchronisation of slots by their known pilots. The C++ library follows the slots and measures the carrier offset."""

from __future__ import annotations

from .. import _kernels
from .._kernels import threshold_over_mean
from ..bundle.ofdm_spec import OFDMSpec
from ..errors import ConfigurationError
from ..preprocess.slot_layout import slot_layout
from ..types import Samples

__all__ = ["PilotSearch", "reach_samples", "threshold_over_mean"]


def reach_samples(spec: OFDMSpec) -> int:
    """Range around the start in which paths lie: the shortest prefix of a pilot symbol, or the comb's range."""
    return _kernels.reach_samples(slot_layout(spec))


class PilotSearch:
    """Search for the start of a slot at any sample.

    The metric of a start is the mean, over antennas and pilot symbols, of the share of the received power that has the
    waveform of the pilot symbol (0 to 1). It does not depend on phases of antennas and symbols or gains of antennas.
    Where successive searches stay below the threshold, the mean of up to 8 of them is compared too.

    Parameters
    ----------
    spec : OFDMSpec
        Parameters of the slots.

    Raises
    ------
    ConfigurationError
        Too few antennas, pilot symbols or subcarriers: independent noise would resemble the pilots too often.
    """

    def __init__(self, spec: OFDMSpec) -> None:
        self._native = _kernels.PilotSearch(slot_layout(spec))
        if self._native.threshold >= 1:
            expected = "more antennas, pilot symbols or subcarriers, or sync by tag"
            terms = spec.antennas * len(spec.pilot_symbols)
            found = f"{terms} pilot symbols of {spec.subcarriers} subcarriers, which noise resembles too often"
            raise ConfigurationError("slots", "sync", found, expected)

    @property
    def threshold(self) -> float:
        """Threshold of the last search, from the scatter of its metric: noise exceeds it once in 1e12 samples."""
        return self._native.threshold

    @property
    def span_samples(self) -> int:
        """Samples from the start of a slot to the end of its last pilot symbol."""
        return self._native.span_samples

    def find(self, samples: Samples) -> tuple[int | None, float]:
        """Find the start of a slot.

        The start is the first significant path around the strongest one. Successive searches must cover adjoining
        ranges of equal length, one slot each; another length begins anew.

        Parameters
        ----------
        samples : ndarray
            complex64 [A, n]; the starts 0 to n - span_samples are tried.

        Returns
        -------
        start : int or None
            Index of the start; None where it is not found.
        metric : float
            Metric of the best start.
        """
        return self._native.find(samples)
