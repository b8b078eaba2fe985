# SPDX-License-Identifier: GPL-3.0-or-later
"""Numerologies, channels and received slots for the tests of channel estimation, and small bundles of pilot grids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from wavesfm_core.bundle.bundle import write_bundle
from wavesfm_core.bundle.covariance import Covariances
from wavesfm_core.bundle.golden import Golden
from wavesfm_core.bundle.image_spec import ImageSpec
from wavesfm_core.bundle.ofdm_spec import OFDMSpec
from wavesfm_core.bundle.pilot_grid_spec import PilotGridSpec
from wavesfm_core.bundle.spec import BundleSpec, HeadSpec, TensorSpec
from wavesfm_core.channel.estimators import LeastSquares
from wavesfm_core.preprocess.golden_inputs import golden_inputs
from wavesfm_core.preprocess.pilot_grid import Observation
from wavesfm_core.preprocess.tile import prepare

from support import tiny_onnx

SNR_WEIGHT = 0.01  # of the tiny model: what each dB adds to every output


def numerology(
    antennas: int = 16,
    symbols: int = 14,
    subcarriers: int = 48,
    fft_size: int = 48,
    prefix: int = 6,
    pilots: tuple[int, ...] = (2, 11),
    step: int = 1,
    offset: int = 0,
    dc_null: bool = False,
) -> OFDMSpec:
    """By default the paper's."""
    count = len(pilots) * len(range(offset, subcarriers, step))
    digits = "".join(map(str, np.random.default_rng(1).integers(0, 4, count)))
    prefixes = (prefix,) * symbols
    return OFDMSpec(
        antennas, symbols, subcarriers, fft_size, prefixes, 30e3, pilots, digits, step, offset, dc_null
    )  # fmt: skip


PAPER = numerology()
COMB = numerology(4, 14, 120, 256, 18, (2, 11), 2, 1, True)
SMALL = numerology(2, 4, 12, 48, 4, (1, 3))


def paths(spec: OFDMSpec, count: int, seed: int = 0, n_paths: int = 6, latest: float = 1.0) -> np.ndarray:
    """Channels complex64 [count, A, S, F] of mean power 1: paths at random delays, up to `latest` of the prefix."""
    rng = np.random.default_rng(seed)
    delays = rng.uniform(0, latest * min(spec.prefix_samples) / spec.fft_size, (count, n_paths))
    turns = rng.uniform(-0.002, 0.002, (count, n_paths))  # of phase, from symbol to symbol
    gains = gaussian(rng, (count, spec.antennas, n_paths)) / np.sqrt(n_paths)
    over_time = np.exp(2j * np.pi * np.arange(spec.symbols)[:, None] * turns[:, None])
    over_frequency = np.exp(-2j * np.pi * spec.frequencies[:, None] * delays[:, None])
    return np.einsum("nap,nsp,nfp->nasf", gains, over_time, over_frequency, optimize=True).astype(np.complex64)


def covariances(spec: OFDMSpec, space: float = 0.7, time: float = 0.999, spread: float = 0.012) -> Covariances:
    """Exponential ones, with phases, all positive definite; spread: of the delays, in parts of a symbol."""
    lags = [np.subtract.outer(np.arange(n), np.arange(n)) for n in spec.grid_shape[:2]]
    across = np.subtract.outer(spec.frequencies, spec.frequencies)
    return Covariances(
        space ** np.abs(lags[0]) * np.exp(0.8j * lags[0]),
        time ** np.abs(lags[1]) * np.exp(0.01j * lags[1]),
        1 / (1 + 2j * np.pi * spread * across),
    )


def drawn(covs: Covariances, count: int, seed: int = 0) -> np.ndarray:
    """Gaussian channels complex64 [count, A, S, F] of these covariances."""
    noise = gaussian(np.random.default_rng(seed), (count, *covs.shape))
    roots = [
        np.linalg.cholesky(c + 1e-9 * np.eye(len(c))).astype(np.complex64)
        for c in (covs.space, covs.time, covs.frequency)
    ]
    over_grid = roots[1] @ noise.astype(np.complex64) @ roots[2].T
    return (roots[0] @ over_grid.reshape(count, len(roots[0]), -1)).reshape(over_grid.shape).astype(np.complex64)


def received(spec: OFDMSpec, channels: np.ndarray, snr_db: float, seed: int = 0) -> np.ndarray:
    """Grids of these channels: QPSK data between the pilots, white noise 10^(-snr_db / 10)."""
    rng = np.random.default_rng(seed + 1000)
    sent = np.exp(0.5j * np.pi * (0.5 + rng.integers(0, 4, channels.shape[-2:])))
    sent[np.ix_(spec.pilot_symbols, spec.pilot_subcarriers)] = spec.pilots
    noise = gaussian(rng, channels.shape) * 10 ** (-snr_db / 20)
    return (channels * sent + noise).astype(np.complex64)


def gaussian(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Circular, of mean power 1."""
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)


def nmse_db(estimates: np.ndarray, channels: np.ndarray) -> float:
    """Mean squared error over the mean power of the channels, in dB."""
    return float(10 * np.log10(np.mean(np.abs(estimates - channels) ** 2) / np.mean(np.abs(channels) ** 2)))


def model_weights(spec: OFDMSpec) -> np.ndarray:
    """float32 [2 P A Fp + 1, 2 A S F]: from a tile to least squares, linearly interpolated; SNR_WEIGHT in the last."""
    (n_pilots, n_carriers), antennas = spec.pilots.shape, spec.antennas
    size = n_pilots * antennas * n_carriers
    units = np.eye(size, dtype=np.complex64).reshape(size, n_pilots, antennas, n_carriers).transpose(0, 2, 1, 3)
    ones = np.ones(size)
    spread = LeastSquares(spec).estimate(np.empty(0, np.complex64), Observation(units, ones, ones)).real
    rows = np.zeros((n_pilots, 2, antennas * n_carriers, 2, antennas * spec.symbols * spec.subcarriers), np.float32)
    for part in (0, 1):
        rows[:, part, :, part] = spread.reshape(n_pilots, antennas * n_carriers, -1)
    last = np.full((1, rows.shape[-1] * 2), SNR_WEIGHT, np.float32)
    return np.concatenate([rows.reshape(2 * size, -1), last])


def make_grid_bundle(
    directory: Path, spec: OFDMSpec = SMALL, layout: str = "least_squares", covs: Covariances | None = None
) -> Path:
    """Write a bundle of pilot grids and return its directory.

    least_squares: the model gives linearly interpolated least squares and SNR_WEIGHT for each dB; image: any numbers.
    """
    image = ImageSpec(2, -12.0, 12.0, (0.0, 0.1), (0.5, 0.4), -1.0, 1.0, height=32, width=40)
    preprocess = PilotGridSpec(spec, layout, image if layout == "image" else None)
    head = HeadSpec("channel", grid=spec.grid_shape)
    inputs = [TensorSpec("tile", (-1, *preprocess.tile_shape), "tile")]
    if layout == "least_squares":
        inputs.append(TensorSpec("snr_db", (-1, 1), "snr_db"))
        weights = model_weights(spec)
        onnx = tiny_onnx.grid_model(preprocess.tile_shape, weights, head.output_shape)
    else:
        onnx = tiny_onnx.image_model(preprocess.tile_shape, head.output_shape, "channel")
    outputs = (TensorSpec("channel", (-1, *head.output_shape)),)
    contract = BundleSpec(
        f"tiny-{layout}", preprocess, tuple(inputs), outputs, head, "", 1e-3, (0.0, 0.0), "CC0-1.0", "none"
    )
    grids = tuple(received(spec, paths(spec, 2, seed=9), 12.0))
    tiles = tuple(prepare(grid, preprocess) for grid in grids)
    golden = Golden(grids, np.zeros(2), tiles, {})
    fed = golden_inputs(contract, golden)
    if layout == "least_squares":
        features = np.concatenate([fed["tile"].reshape(2, -1), fed["snr_db"]], axis=1)
        made = (features @ weights).reshape(2, *head.output_shape)
    else:
        made = tiny_onnx.image_oracle(fed["tile"], head.output_shape)
    golden = Golden(grids, golden.rate_hz, tiles, {"channel": made})
    return write_bundle(directory, contract, onnx, golden, "# tiny\n", covs).path
