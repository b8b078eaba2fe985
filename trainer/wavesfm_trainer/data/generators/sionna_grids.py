"""MIMO-OFDM resource grids over the urban micro-cell of 3GPP TR 38.901, for channel estimation, with Sionna.

Layout: `batch_<i>.npz` with x_rg complex64 [64, 14, 48] (what was sent), y_rg complex64 [64, 16, 14, 48] (received),
h_freq complex64 [64, 16, 14, 48] (the channel), snr_db float32 [64]. `count` is in examples; the last batch may be
smaller. One user with one vertical omnidirectional antenna sends to 4 x 2 dual-polarised elements (16 ports) at
3.5 GHz, 30 kHz, FFT 48, normal prefix, pilots on symbols 2 and 11, QPSK between; the channel has mean power 1 in every
example, so that SNR is what `snr_db` says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.errors import ConfigurationError

from .output import draws, finish, start

CARRIER_HZ, SPACING_HZ, SPEED_M_PER_S = 3.5e9, 30e3, 3.0
N_SYMBOLS, N_SUBCARRIERS, N_ANTENNAS, PREFIX_SAMPLES = 14, 48, 16, 6
PILOT_SYMBOLS = (2, 11)
BATCH = 64
PILOT_SEED = 0
Grid = NDArray[np.complex64]


@dataclass(frozen=True)
class GridBatch:
    """B examples: sent [B, 14, 48], received and channel [B, 16, 14, 48], complex64; snr_db float32 [B]."""

    sent: Grid
    received: Grid
    channel: Grid
    snr_db: NDArray[np.float32]


class UplinkSimulator:
    """Sionna's chain from bits to the received grid, built once, for batches of any size."""

    def __init__(self) -> None:
        try:
            from sionna.phy import channel, config, mapping, ofdm
        except ImportError as error:
            raise ConfigurationError("sionna_grids", "sionna", str(error), "the package sionna-no-rt") from error
        config.seed = PILOT_SEED  # Sionna draws the pilots here: the same in every set, as a standard's would be
        self._grid = ofdm.ResourceGrid(
            num_ofdm_symbols=N_SYMBOLS,
            fft_size=N_SUBCARRIERS,
            subcarrier_spacing=SPACING_HZ,
            cyclic_prefix_length=PREFIX_SAMPLES,
            pilot_pattern="kronecker",
            pilot_ofdm_symbol_indices=list(PILOT_SYMBOLS),
        )
        self._umi = _micro_cell(channel.tr38901)
        self._topology = channel.gen_single_sector_topology
        self._channel = channel.GenerateOFDMChannel(self._umi, self._grid, normalize_channel=True)
        self._apply = channel.ApplyOFDMChannel()
        self._bits = mapping.BinarySource()
        self._qpsk = mapping.Mapper("qam", 2)
        self._fill = ofdm.ResourceGridMapper(self._grid)

    def batch(self, rng: np.random.Generator, snr_db: NDArray[np.float32]) -> GridBatch:
        """Simulate as many examples as snr_db [B] has.

        Sionna's own generators are seeded from `rng`: the same draws give the same batch.
        """
        import torch
        from sionna.phy import config

        config.seed = int(rng.integers(2**63))
        n = len(snr_db)
        self._umi.reset_topology()  # or Sionna keeps the former batch's size
        speed = {"min_ut_velocity": SPEED_M_PER_S, "max_ut_velocity": SPEED_M_PER_S}
        with torch.no_grad():
            self._umi.set_topology(*self._topology(n, 1, "umi", **speed))
            channel = self._channel(n)  # [n, rx, rx antennas, tx, tx antennas, symbols, subcarriers]
            bits = self._bits([n, 1, 1, 2 * self._grid.num_data_symbols])
            sent = self._fill(self._qpsk(bits))
            noise_power = torch.as_tensor(10 ** (-np.asarray(snr_db, np.float32) / 10), device=sent.device)
            received = self._apply(sent, channel, noise_power)
        return GridBatch(
            _array(sent[:, 0, 0]), _array(received[:, 0]), _array(channel[:, 0, :, 0, 0]), np.float32(snr_db)
        )


def _micro_cell(tr38901: Any) -> Any:
    """The UMi model with its antennas; path loss and shadowing off, as SNR is set by the noise."""
    base = tr38901.PanelArray(
        num_rows_per_panel=4, num_cols_per_panel=2, polarization="dual", polarization_type="cross",
        antenna_pattern="38.901", carrier_frequency=CARRIER_HZ,
    )  # fmt: skip
    user = tr38901.Antenna(
        polarization="single", polarization_type="V", antenna_pattern="omni", carrier_frequency=CARRIER_HZ
    )
    return tr38901.UMi(
        carrier_frequency=CARRIER_HZ, o2i_model="low", ut_array=user, bs_array=base, direction="uplink",
        enable_pathloss=False, enable_shadow_fading=False,
    )  # fmt: skip


def _array(tensor: Any) -> Grid:
    return np.ascontiguousarray(tensor.cpu().numpy().astype(np.complex64))


def batches(
    count: int, seed: int, snr_db: tuple[float, float] = (-10.0, 20.0), snr_step_db: float = 0.0, batch: int = BATCH
) -> Iterator[GridBatch]:
    """`count` examples in batches of `batch`, the last one smaller; batch i is a function of (seed, i, its size).

    snr_db: drawn uniformly in this range for each example; with snr_step_db from low, low + step, ... high.
    ConfigurationError when the range is empty or a number is not positive.
    """
    low, high = snr_db
    if not low <= high:
        raise ConfigurationError("sionna_grids", "snr_db", snr_db, "the lower bound first")
    for name, value in (("count", count), ("batch", batch)):
        if value < 1:
            raise ConfigurationError("sionna_grids", name, value, "1 or more")
    if snr_step_db < 0:
        raise ConfigurationError("sionna_grids", "snr_step_db", snr_step_db, "0 (uniform) or more")
    simulator = UplinkSimulator()
    for index, first in enumerate(range(0, count, batch)):
        rng = draws(seed, index)
        size = min(batch, count - first)
        if snr_step_db:
            steps = np.arange(low, high + snr_step_db / 2, snr_step_db)
            snr = rng.choice(steps, size)
        else:
            snr = rng.uniform(low, high, size)
        yield simulator.batch(rng, snr.astype(np.float32))


def generate(
    directory: Path, count: int, seed: int, snr_db: tuple[float, float] = (-10.0, 20.0), snr_step_db: float = 0.0
) -> None:
    """Write `count` examples into batches of 64; see `batches` for the arguments and errors."""
    directory = start(directory, count)
    files = {}
    for index, made in enumerate(batches(count, seed, snr_db, snr_step_db)):
        name = f"batch_{index:05d}.npz"
        np.savez(directory / name, x_rg=made.sent, y_rg=made.received, h_freq=made.channel, snr_db=made.snr_db)
        files[name] = {"examples": len(made.snr_db)}
    settings = {
        "count": count, "snr_db": list(snr_db), "snr_step_db": snr_step_db, "model": "Sionna UMi, TR 38.901",
        "carrier_hz": CARRIER_HZ, "spacing_hz": SPACING_HZ, "speed_m_per_s": SPEED_M_PER_S,
        "pilot_symbols": list(PILOT_SYMBOLS),
    }  # fmt: skip
    finish(directory, "sionna_grids", seed, settings, files)
