# SPDX-License-Identifier: GPL-3.0-or-later
"""Covariances: learnt from channels drawn from known ones, kept in a file, refused by name."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support.tiny_grids import SMALL, covariances, drawn, numerology
from wavesfm_core.bundle.covariance import AXES, Covariances
from wavesfm_core.errors import InputError

KNOWN = covariances(SMALL)


def parts(**changes: object) -> list:
    return [changes.get(name, getattr(KNOWN, name)) for name in AXES]


def test_learning_finds_what_channels_were_drawn_from() -> None:
    known = covariances(numerology(3, 4, 12, pilots=(1, 3)))
    channels = drawn(known, 6000)
    learnt = Covariances.learn(5 * batch for batch in np.array_split(channels, 7))
    for name in AXES:
        found, expected = getattr(learnt, name), getattr(known, name)
        assert np.trace(found) == pytest.approx(len(found))
        assert np.allclose(found, expected, atol=0.04)
    assert learnt.shape == (3, 4, 12)


def test_the_convention_is_h_times_its_conjugate() -> None:
    """A path of delay d turns by exp(-2j pi f d): so does the covariance over f, down its first column."""
    turn = np.exp(-2j * np.pi * np.arange(12) * 0.05)
    channels = np.broadcast_to(turn, (1, 2, 4, 12)).astype(np.complex64)
    assert np.allclose(Covariances.learn([channels]).frequency[:, 0], turn, atol=1e-6)


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    KNOWN.save(tmp_path / "c.npz")
    again = Covariances.load(tmp_path / "c.npz")
    for name in AXES:
        assert np.allclose(getattr(again, name), getattr(KNOWN, name), atol=1e-6)
        assert np.array_equal(getattr(again, name), getattr(again, name).conj().T)


def test_any_mean_power_is_scaled_to_one() -> None:
    scaled = Covariances(*parts(time=7.5 * KNOWN.time))
    assert np.allclose(scaled.time, KNOWN.time)


def test_singular_ones_pass() -> None:
    few = Covariances.learn([drawn(KNOWN, 1)])
    assert np.linalg.eigvalsh(few.frequency)[0] < 1e-6


def _negative(n: int) -> np.ndarray:
    matrix = np.eye(n)
    matrix[0, 1] = matrix[1, 0] = 1.5
    return matrix


WRONG = {
    "not square": ("space", np.ones((2, 3)), r"space: found shape \(2, 3\), expected a square matrix"),
    "no matrix": ("time", 5, "time: found shape None"),
    "empty": ("time", np.ones((0, 0)), "time: found shape"),
    "nan": ("time", np.full((4, 4), np.nan), "time: found float64 with NaN"),
    "text": ("time", np.full((4, 4), "a"), "time: found <U1"),
    "no power": ("frequency", np.zeros((12, 12)), "frequency: found a mean diagonal of 0, expected a positive one"),
    "not Hermitian": ("space", np.array([[1, 0.5], [0.2, 1]]), "space: found a matrix that differs by 0.3 from its ad"),
    "complex diagonal": ("space", np.diag([1 + 0.1j, 1]), "space: found .* expected Hermitian"),
    "not positive": ("time", _negative(4), "time: found an eigenvalue of -0.5, expected positive definite"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_matrices_are_named(case: str) -> None:
    name, matrix, message = WRONG[case]
    with pytest.raises(InputError, match=f"covariances: {message}"):
        Covariances(*parts(**{name: matrix}))


def test_another_size_is_named() -> None:
    with pytest.raises(InputError, match="covariances: frequency: found 12 x 12, expected 48 x 48, as the numerology"):
        KNOWN.require(numerology(2, 4, pilots=(1, 3)))
    KNOWN.require(SMALL)


BAD_CHANNELS = {
    "none": ([], "channels: batches: found none"),
    "shapes": ([np.ones((1, 2, 4, 12), "c8"), np.ones((1, 2, 4, 13), "c8")], r"batch 1: shape: found \(2, 4, 13\)"),
    "nan": ([np.full((1, 2, 4, 12), np.nan + 0j)], "channels, batch 0: array"),
    "real": ([np.ones((1, 2, 4, 12))], "channels, batch 0: array: found float64"),
    "dimensions": ([np.ones((2, 4, 12), "c8")], r"channels, batch 0: array: found complex64 \(2, 4, 12\)"),
    "silence": ([np.zeros((1, 2, 4, 12), "c8")], "space: found a mean diagonal of 0"),
}


@pytest.mark.parametrize("case", BAD_CHANNELS)
def test_channels_that_teach_nothing_are_named(case: str) -> None:
    batches, message = BAD_CHANNELS[case]
    with pytest.raises(InputError, match=message):
        Covariances.learn(batches)


def test_bad_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    with pytest.raises(InputError, match=r"c.npz: contents: found an unreadable archive"):
        Covariances.load(path)
    path.write_bytes(b"PK no archive")
    with pytest.raises(InputError, match=r"c.npz: contents"):
        Covariances.load(path)
    np.savez(path, space=KNOWN.space, time=KNOWN.time)
    with pytest.raises(InputError, match=r"c.npz: frequency: found nothing, expected a matrix"):
        Covariances.load(path)
    np.savez(path, space=KNOWN.space, time=_negative(4), frequency=KNOWN.frequency)
    with pytest.raises(InputError, match=r"c.npz: time: found an eigenvalue of -0.5"):
        Covariances.load(path)
    np.savez(path, space=KNOWN.space, time=np.array([object()]), frequency=KNOWN.frequency)
    with pytest.raises(InputError, match=r"c.npz: time: found Python objects"):
        Covariances.load(path)
    KNOWN.save(path)
    with pytest.raises(InputError, match=r"c.npz: space: found 2 x 2, expected 16 x 16"):
        Covariances.load(path).require(numerology())


def test_a_header_that_claims_more_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<c8", "fortran_order": False, "shape": (1 << 20, 1 << 20)}
    )  # fmt: skip
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("space.npy", header.getvalue())
    with pytest.raises(InputError, match=r"space: found 8796093022208 bytes in a member of"):
        Covariances.load(path)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a file that can be written"):
        KNOWN.save(tmp_path / "no" / "c.npz")
