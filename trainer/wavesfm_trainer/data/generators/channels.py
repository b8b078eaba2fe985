# SPDX-License-Identifier: GPL-3.0-or-later
"""Uplink channels of 3GPP TR 38.901 on any numerology's grid, with Sionna: from one user antenna to A station antennas.

System-level models (umi, uma, rma) draw the user's position, large-scale parameters and clusters for each example. tdl
and cdl models (clause 7.7) have one power delay profile, scaled to a delay spread. Path loss and shadowing are off, and
every example has mean power 1, so that the noise alone determines the SNR.
"""

from __future__ import annotations

import math
import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.bundle.ofdm_spec import OFDMSpec
from wavesfm_core.checks import require_rules
from wavesfm_core.errors import ConfigurationError

from .output import rng_for

CELLS = ("umi", "uma", "rma")
PROFILES = tuple(f"{kind}-{letter}" for kind in ("tdl", "cdl") for letter in "abcde")
NOMINAL_DELAY_SPREAD_S = 100e-9  # TR 38.901 table 7.7.3-1
BATCH = 64
Grid = NDArray[np.complex64]


@dataclass(frozen=True)
class Scenario:
    """The propagation scenario of a user.

    Raises
    ------
    ConfigurationError : a value outside its range, or a contradiction; the error names the field.
    """

    model: str = "umi"
    """Channel model: "umi", "uma", "rma", "tdl-a" to "tdl-e", or "cdl-a" to "cdl-e"."""
    speed_m_per_s: float = 3.0
    """Speed of the user; its direction is drawn for each example."""
    delay_spread_s: float | None = None
    """RMS delay spread of tdl and cdl models (None: 100 ns); the system-level models draw it."""
    carrier_hz: float = 3.5e9
    """Carrier frequency."""

    def __post_init__(self) -> None:
        if self.model in PROFILES and self.delay_spread_s is None:
            object.__setattr__(self, "delay_spread_s", NOMINAL_DELAY_SPREAD_S)
        spread_s = self.delay_spread_s
        rules = {
            "model": (self.model in CELLS + PROFILES, f"one of {', '.join(CELLS + PROFILES)}"),
            "speed_m_per_s": (0 <= self.speed_m_per_s <= 300, "0 to 300 m/s"),
            "delay_spread_s": (
                spread_s is None or (self.model in PROFILES and 0 < spread_s <= 1e-5),
                "no value for umi, uma and rma, which draw it, and above 0 to 1e-5 s for a tdl or cdl model",
            ),
            "carrier_hz": (0.5e9 <= self.carrier_hz <= 100e9, "0.5e9 to 100e9 Hz"),
        }
        require_rules("scenario", self, rules)


class ChannelSimulator:
    """Channels of one scenario on the grid of one numerology, in batches of any size.

    Parameters
    ----------
    spec : OFDM slot parameters.
    scenario : propagation scenario.

    Raises
    ------
    ConfigurationError : Sionna is not installed, or a system-level or cdl model has an odd number of antennas above 1.
    """

    def __init__(self, spec: OFDMSpec, scenario: Scenario) -> None:
        try:
            from sionna.phy import channel
        except ImportError as error:
            raise ConfigurationError("channels", "sionna", str(error), "the package sionna-no-rt") from error
        self.spec, self.scenario = spec, scenario
        self._to_grid = channel.cir_to_ofdm_channel
        self._draw = _profile(spec, scenario) if scenario.model in PROFILES else _cell(spec, scenario)

    def batch(self, rng: np.random.Generator, count: int, slots: int = 1) -> Grid:
        """Channels of `count` users.

        Parameters
        ----------
        rng : seeds Sionna's generators; equal states give equal batches.
        count : number of examples.
        slots : consecutive slots of each user; the symbols of a slot are taken as equally long.

        Returns
        -------
        complex64 [count, A, slots * S, F], mean power 1 per example.
        """
        import torch
        from sionna.phy import config

        config.seed = int(rng.integers(2**63))
        spec = self.spec
        symbols_per_s = spec.symbols * spec.rate_hz / spec.slot_samples
        frequencies_hz = spec.frequencies * spec.spacing_hz
        with torch.no_grad():
            gains, delays_s = self._draw(count, slots * spec.symbols, symbols_per_s)
            grid = self._to_grid(torch.as_tensor(frequencies_hz, dtype=delays_s.dtype), gains, delays_s)
        channel = grid[:, 0, :, 0, 0].cpu().numpy().astype(np.complex64)
        power = np.mean(np.abs(channel) ** 2, axis=(1, 2, 3), keepdims=True)
        return np.ascontiguousarray(channel / np.sqrt(power))


def _cell(spec: OFDMSpec, scenario: Scenario) -> Callable[[int, int, float], tuple[Any, Any]]:
    """A function of (count, symbols, symbols per second) that draws gains and delays of a system-level model."""
    from sionna.phy.channel import gen_single_sector_topology, tr38901

    kind = {"umi": tr38901.UMi, "uma": tr38901.UMa, "rma": tr38901.RMa}[scenario.model]
    indoors = {} if scenario.model == "rma" else {"o2i_model": "low"}
    user, base = _arrays(spec.antennas, scenario.carrier_hz)
    model = kind(
        carrier_frequency=scenario.carrier_hz, ut_array=user, bs_array=base, direction="uplink",
        enable_pathloss=False, enable_shadow_fading=False, **indoors,
    )  # fmt: skip
    speed = {"min_ut_velocity": scenario.speed_m_per_s, "max_ut_velocity": scenario.speed_m_per_s}

    def draw(count: int, symbols: int, symbols_per_s: float) -> tuple[Any, Any]:
        model.reset_topology()  # otherwise Sionna keeps the size of the previous batch
        model.set_topology(*gen_single_sector_topology(count, 1, scenario.model, **speed))
        return model(symbols, symbols_per_s)

    return draw


def _profile(spec: OFDMSpec, scenario: Scenario) -> Callable[[int, int, float], tuple[Any, Any]]:
    """A function that draws from a tdl model (independent antennas) or a cdl model (a panel at the table's angles)."""
    from sionna.phy.channel import tr38901

    kind, _, letter = scenario.model.partition("-")
    options: dict[str, Any] = {
        "delay_spread": scenario.delay_spread_s, "carrier_frequency": scenario.carrier_hz,
        "min_speed": scenario.speed_m_per_s, "max_speed": scenario.speed_m_per_s,
    }  # fmt: skip
    if kind == "tdl":
        return tr38901.TDL(letter.upper(), num_rx_ant=spec.antennas, **options)
    user, base = _arrays(spec.antennas, scenario.carrier_hz)
    return tr38901.CDL(letter.upper(), ut_array=user, bs_array=base, direction="uplink", **options)


def _arrays(antennas: int, carrier_hz: float) -> tuple[Any, Any]:
    """The user's vertical omnidirectional antenna, and the station's panel of cross-polarised pairs.

    The panel is as square as the number of pairs allows, and taller than wide otherwise: 4 x 2 for 16 antennas, 2 x 2
    for 8.
    """
    from sionna.phy.channel import tr38901

    if antennas > 1 and antennas % 2:
        raise ConfigurationError("channels", "antennas", antennas, "1, or an even number: pairs of two polarisations")
    pairs = max(antennas // 2, 1)
    columns = max(n for n in range(1, math.isqrt(pairs) + 1) if pairs % n == 0)
    polarised = ("dual", "cross") if antennas > 1 else ("single", "V")
    base = tr38901.PanelArray(
        num_rows_per_panel=pairs // columns, num_cols_per_panel=columns, polarization=polarised[0],
        polarization_type=polarised[1], antenna_pattern="38.901", carrier_frequency=carrier_hz,
    )  # fmt: skip
    user = tr38901.Antenna(
        polarization="single", polarization_type="V", antenna_pattern="omni", carrier_frequency=carrier_hz
    )
    return user, base


def channel_batches(
    count: int, seed: int, scenario: Scenario, spec: OFDMSpec, batch: int = BATCH, processes: int = 1
) -> Iterator[Grid]:
    """Channels in batches; batch i is a function of (seed, i, its size) for any number of processes.

    Parameters
    ----------
    count : number of examples.
    seed : of the channels.
    scenario : propagation scenario.
    spec : OFDM slot parameters.
    batch : examples of a batch; the last one may be smaller.
    processes : more than 1: batches are computed ahead, two per process.

    Yields
    ------
    complex64 [n, A, S, F], mean power 1 per example.

    Raises
    ------
    ConfigurationError : a number below 1, or as ChannelSimulator.
    """
    for name, value in (("count", count), ("batch", batch), ("processes", processes)):
        if value < 1:
            raise ConfigurationError("channels", name, value, "1 or more")
    jobs = ((spec, scenario, seed, i, min(batch, count - first)) for i, first in enumerate(range(0, count, batch)))
    if processes == 1:
        yield from (_batch(*job) for job in jobs)
        return
    # Spawned, not forked: the caller may have threads (torch, OpenMP) that a fork would leave locked.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, initializer=_one_thread) as pool:
        ahead: deque[Future[Grid]] = deque()
        try:
            for job in jobs:
                ahead.append(pool.submit(_batch, *job))
                if len(ahead) > 2 * processes:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@lru_cache(maxsize=1)
def _simulator(spec: OFDMSpec, scenario: Scenario) -> ChannelSimulator:
    return ChannelSimulator(spec, scenario)


def _batch(spec: OFDMSpec, scenario: Scenario, seed: int, index: int, size: int) -> Grid:
    return _simulator(spec, scenario).batch(rng_for(seed, index), size)


def moving_user(seed: int, slots: int, scenario: Scenario, spec: OFDMSpec) -> Grid:
    """The channel of one user in consecutive slots; a function of the arguments.

    Returns
    -------
    complex64 [slots, A, S, F], mean power 1.

    Raises
    ------
    ConfigurationError : less than one slot, or as ChannelSimulator.
    """
    if slots < 1:
        raise ConfigurationError("channels", "slots", slots, "1 or more")
    channel = ChannelSimulator(spec, scenario).batch(rng_for(seed, 0), 1, slots)[0]
    return np.ascontiguousarray(channel.reshape(spec.antennas, slots, spec.symbols, spec.subcarriers).swapaxes(0, 1))
