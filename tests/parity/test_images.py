# SPDX-License-Identifier: GPL-3.0-or-later
"""The image kernel and the image tiles against the oracle, and the paper's other orders of the same steps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import oracle
from wavesfm_core import _kernels
from wavesfm_core.bundle.image_spec import ImageSpec
from wavesfm_core.preprocess.tile import prepare

SPEC = ImageSpec(2, low=-3.0, high=5.0, mean=(0.4, 0.5), std=(0.1, 0.25), height=30, width=20)
SHAPES = [(1, 342, 2000), (4, 16, 193), (2, 17, 96), (3, 1, 1), (1, 224, 224), (2, 1016, 3)]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_kernel_resizes_as_the_oracle(shape: tuple[int, int, int]) -> None:
    image = noise(*shape)
    np.testing.assert_allclose(_kernels.resize(image, 224, 224), oracle.resized(image, 224, 224), rtol=0, atol=5e-6)


@settings(max_examples=40)
@given(st.integers(1, 3), *(st.integers(1, 70) for _ in range(4)))
def test_any_sizes(channels: int, rows: int, columns: int, height: int, width: int) -> None:
    image = noise(channels, rows, columns)
    got = _kernels.resize(image, height, width)
    assert (got.dtype, got.shape) == (np.float32, (channels, height, width))
    np.testing.assert_allclose(got, oracle.resized(image, height, width), rtol=0, atol=5e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_kernel_is_torchs_antialiased_bicubic(shape: tuple[int, int, int]) -> None:
    torch = pytest.importorskip("torch", reason="the second source of the resize is torch")
    image = noise(*shape)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(image.astype(np.float64))[None],
        size=(224, 224),
        mode="bicubic",
        antialias=True,
        align_corners=False,
    )[0].numpy()
    np.testing.assert_allclose(_kernels.resize(image, 224, 224), theirs, rtol=0, atol=5e-6)


VARIANTS = {
    "unit range": {},
    "minus one to one": {"range_low": -1.0},
    "enlarging": {"height": 224, "width": 224},
    "decibels": {"decibel_floor": 1e-12, "low": -120.0, "high": -0.5},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_tiles_are_the_oracles(variant: str) -> None:
    spec = dataclasses.replace(SPEC, **VARIANTS[variant])
    array = np.abs(noise(2, 41, 57)) ** 20 * 1e-3 if spec.decibel_floor else noise(2, 41, 57)
    got = prepare(array.astype(np.float32), spec)
    assert (got.dtype, got.shape) == (np.float32, spec.tile_shape)
    np.testing.assert_allclose(got, oracle.image_tile(array.astype(np.float32), spec), rtol=0, atol=oracle.IMAGE)


def test_the_order_of_channel_estimation_gives_the_same_numbers() -> None:
    """Range, standardise, and the resize last of all, as the paper has it for pilots."""
    array = noise(2, 17, 96)
    ranged = (array - SPEC.low) / (SPEC.high - SPEC.low)
    standard = (ranged - np.array(SPEC.mean)[:, None, None]) / np.array(SPEC.std)[:, None, None]
    last = oracle.resized(standard, SPEC.height, SPEC.width)
    np.testing.assert_allclose(prepare(array, SPEC), last, rtol=0, atol=oracle.IMAGE)


def test_decibels_of_silence_are_the_floor() -> None:
    spec = ImageSpec(1, low=-120.0, high=0.0, mean=(0.0,), std=(1.0,), decibel_floor=1e-12, height=4, width=4)
    np.testing.assert_allclose(prepare(np.zeros((1, 9, 9), np.float32), spec), 0.0, atol=1e-6)
    np.testing.assert_allclose(prepare(np.ones((1, 9, 9), np.float32), spec), 1.0, atol=1e-6)


KERNEL_REFUSALS = {
    "rank": (np.zeros((3, 3), np.float32), 4, 4, "image: found 2 dimensions, expected 3"),
    "no channels": (np.zeros((0, 3, 3), np.float32), 4, 4, "channels: found 0"),
    "no rows": (np.zeros((1, 0, 3), np.float32), 4, 4, "rows: found 0"),
    "no columns": (np.zeros((1, 3, 0), np.float32), 4, 4, "columns: found 0"),
    "height": (np.zeros((1, 3, 3), np.float32), 0, 4, "height: found 0, expected 1 to 65536"),
    "width": (np.zeros((1, 3, 3), np.float32), 4, 65537, "width: found 65537"),
    "output": (np.zeros((1, 3, 3), np.float32), 65536, 65536, r"channels \* height \* width: found 4294967296"),
    "between": (np.zeros((1, 65536, 1), np.float32), 1, 65536, r"rows \* width: found 4294967296"),
}


@pytest.mark.parametrize("case", KERNEL_REFUSALS)
def test_the_kernel_refuses_sizes_before_it_allocates(case: str) -> None:
    image, height, width, message = KERNEL_REFUSALS[case]
    with pytest.raises(ValueError, match=message):
        _kernels.resize(image, height, width)


def test_the_kernel_converts_nothing_silently() -> None:
    with pytest.raises(TypeError):
        _kernels.resize(np.zeros((1, 3, 3)), 4, 4)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        _kernels.resize(np.zeros((1, 3, 3), np.float32), -1, 4)
