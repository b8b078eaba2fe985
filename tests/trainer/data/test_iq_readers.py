# SPDX-License-Identifier: GPL-3.0-or-later
"""Readers of published IQ data sets: small files in their layouts."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_trainer.data.prepare import prepare_dataset
from wavesfm_trainer.data.readers.iq_pictures import IqPictures, complex_samples
from wavesfm_trainer.data.readers.registry import open_reader
from wavesfm_trainer.data.tasks import Task

LABELS = ("BPSK", "QPSK", "FM")


def task(reader, kind="classification", **options):
    labels = LABELS if kind == "classification" else ()
    changes = {"height": 32, "width": 32, "shares": (0.5, 0.25, 0.25), "decibel_floor": 1e-6}
    return Task("t", kind, reader, 1, labels=labels, options=options, **changes)


def tones(n, length=128):
    """Examples float32 [n, length, 2] whose frequency is their class: -0.25, 0, 0.25 of the rate."""
    turns = 0.25 * (np.arange(n) % 3 - 1)[:, None] * np.arange(length)
    return np.stack([np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)], axis=-1).astype(np.float32)


def check(raws, n=12):
    assert [raw.target for raw in raws] == [k % 3 for k in range(n)]
    for raw in raws:
        picture = raw.load(1)
        assert picture.shape[1] == 16
        peak = picture[0].mean(axis=1).argmax()
        assert peak == {0: 4, 1: 8, 2: 12}[raw.target]  # the lowest frequency is in the first row


# --- RML2018.01A


def write_rml2018(path, n=12, **changes):
    hot = np.eye(3, dtype=np.int64)[np.arange(n) % 3]
    arrays = {"X": tones(n), "Y": hot, "Z": np.full((n, 1), 6, np.int64)} | changes
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return path


def test_rml2018_examples_have_class_and_snr(tmp_path):
    write_rml2018(tmp_path / "GOLD_XYZ_OSC.0001_1024.hdf5")
    raws = list(open_reader("rml2018").read(tmp_path, task("rml2018")))
    check(raws)
    assert {raw.snr_db for raw in raws} == {6.0}
    assert len(list(open_reader("rml2018").read(tmp_path, task("rml2018", every=5)))) == 3
    note = prepare_dataset(task("rml2018", rate_hz=1e6), tmp_path, tmp_path / "out.h5")
    assert note["labels"] == list(LABELS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X": np.zeros((12, 128), np.float32)}, r"X: found shape \[12, 128\], expected shape \['any', 'any', 2\]"),
        ({"Y": np.zeros((12, 3))}, r"\[0\]: Y: found 0 classes, expected one"),
        ({"Y": np.zeros((12, 4))}, r"Y: found shape \[12, 4\], expected shape \[12, 3\]"),
        ({"Z": np.zeros((11, 1))}, r"Z: found shape \[11, 1\]"),
    ],
)
def test_rml2018_refuses_other_layouts(tmp_path, changes, message):
    write_rml2018(tmp_path / "a.hdf5", **changes)
    with pytest.raises(InputError, match=message):
        list(open_reader("rml2018").read(tmp_path, task("rml2018")))


# --- npz


@pytest.mark.parametrize("layout", ["pairs last", "pairs first", "complex", "indices", "indices of labels"])
def test_npz_in_every_usual_shape(tmp_path, layout):
    values, names = tones(12), np.array(LABELS)[np.arange(12) % 3]
    arrays = {"X": values, "y": names, "snr": np.arange(12)}
    if layout == "pairs first":
        arrays["X"] = values.transpose(0, 2, 1)
    elif layout == "complex":
        arrays["X"] = values[..., 0] + 1j * values[..., 1]
    elif layout == "indices":
        arrays["y"] = np.arange(12) % 3
    elif layout == "indices of labels":
        arrays |= {"y": 2 - np.arange(12) % 3, "labels": np.array(LABELS[::-1])}
    np.savez(tmp_path / "a.npz", **arrays)
    raws = list(open_reader("iq_npz").read(tmp_path, task("iq_npz")))
    check(raws)
    assert [raw.snr_db for raw in raws] == list(range(12))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": np.array(["AM"] * 12)}, "label: found 'AM', expected one of BPSK, QPSK, FM"),
        ({"y": np.arange(12)}, "y: found 0 to 11, expected 0 to 2"),
        ({"y": np.zeros(11, int)}, "y: found 11 values, expected 12"),
        ({"y": np.zeros(12)}, "y: found float64, expected names of labels"),
        ({"X": np.zeros(12)}, r"X: found shape \[12\]"),
        ({"X": np.array([None] * 12, object)}, "X: found Python objects"),
    ],
)
def test_npz_refuses_other_layouts(tmp_path, changes, message):
    np.savez(tmp_path / "a.npz", **({"X": tones(12), "y": np.arange(12) % 3} | changes))
    with pytest.raises(InputError, match=message):
        list(open_reader("iq_npz").read(tmp_path, task("iq_npz")))


def test_a_pickle_is_no_archive(tmp_path):
    (tmp_path / "RML2016.10a_dict.npz").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(InputError, match="contents: found an unreadable archive"):
        list(open_reader("iq_npz").read(tmp_path, task("iq_npz")))


# --- TorchSig


def write_torchsig(path, n=12, several=False, **changes):
    with h5py.File(path, "w") as file:
        for row, pairs in enumerate(tones(n)):
            group = file.create_group(str(row))
            group["data"] = pairs[:, 0] + 1j * pairs[:, 1]
            for k in range(2 if several else 1):
                signal = group.create_group(f"metadata/{k}")
                signal["class_name"], signal["snr_db"], signal["sample_rate"] = LABELS[row % 3], 9.0, 1e7
                for name, value in changes.items():
                    del signal[name]
                    if value is not None:
                        signal[name] = value
    return path


def test_torchsig_hdf5_has_class_snr_and_rate(tmp_path):
    write_torchsig(tmp_path / "data.h5")
    raws = list(open_reader("torchsig").read(tmp_path, task("torchsig")))
    check(raws)
    assert {(raw.snr_db, raw.log10_rate) for raw in raws} == {(9.0, 7.0)}


def test_torchsig_wideband_examples_are_for_pretraining(tmp_path):
    write_torchsig(tmp_path / "data.h5", several=True)
    raws = list(open_reader("torchsig").read(tmp_path, task("torchsig", "pretraining")))
    assert len(raws) == 12 and raws[0].target is None and np.isnan(raws[0].snr_db)
    with pytest.raises(InputError, match=r"signals: found 2, expected one: examples of several are for pre-training"):
        list(open_reader("torchsig").read(tmp_path, task("torchsig")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_name": "AM"}, "label: found 'AM'"),
        ({"class_name": None}, "class_name: found None, expected a name"),
        ({"snr_db": np.zeros(3)}, "metadata: found an array, expected one value"),
    ],
)
def test_torchsig_refuses_other_metadata(tmp_path, changes, message):
    write_torchsig(tmp_path / "data.h5", **changes)
    with pytest.raises(InputError, match=message):
        list(open_reader("torchsig").read(tmp_path, task("torchsig")))


def test_torchsig_without_examples_is_refused(tmp_path):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["X"] = np.zeros(3)
    with pytest.raises(InputError, match=r"groups: found X, expected 0, 1, \.\.\. with data"):
        list(open_reader("torchsig").read(tmp_path, task("torchsig")))
    with pytest.raises(InputError, match="files: found none"):
        (tmp_path / "empty").mkdir()
        list(open_reader("torchsig").read(tmp_path / "empty", task("torchsig")))


def write_zarr(folder, targets, compressor=None, **changes):
    """A Zarr array of version 2 without compression, as its specification has it."""
    folder.mkdir(parents=True)
    pairs = tones(len(targets))
    values = (pairs[..., 0] + 1j * pairs[..., 1]).astype("<c8")
    note = {
        "zarr_format": 2, "shape": list(values.shape), "chunks": [5, values.shape[1]], "dtype": "<c8", "order": "C",
        "compressor": compressor, "fill_value": [0.0, 0.0], "filters": None,
    } | changes  # fmt: skip
    (folder / ".zarray").write_text(json.dumps(note))
    (folder / ".zattrs").write_text(json.dumps({str(k): target for k, target in enumerate(targets)}))
    for chunk in range(0, len(values), 5):
        part = np.zeros((5, values.shape[1]), "<c8")
        part[: len(values[chunk : chunk + 5])] = values[chunk : chunk + 5]
        (folder / f"{chunk // 5}.0").write_bytes(part.tobytes())
    return folder


@pytest.mark.parametrize("shape", ["name", "tuple", "list of tuples", "object"])
def test_torchsig_zarr_targets(tmp_path, shape):
    pytest.importorskip("zarr")
    names = [LABELS[k % 3] for k in range(12)]
    wrap = {
        "name": lambda name: name,
        "tuple": lambda name: [name, 12.0],
        "list of tuples": lambda name: [[name, 0.1, 0.2]],
        "object": lambda name: {"class_name": name},
    }[shape]
    write_zarr(tmp_path / "data" / "0000000000.zarr", [wrap(name) for name in names])
    check(list(open_reader("torchsig").read(tmp_path, task("torchsig"))))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"zarr_format": 3}, r"\.zarray: found format 3"),
        ({"dtype": "|O"}, r"dtype: found \|O, expected numbers"),
        ({"shape": [12, 1 << 39]}, "row: found 549755813888 numbers"),
        ({"chunks": [1 << 30, 128]}, "chunks: found 1099511627776 bytes, expected at most 1 GiB"),
        ({"shape": [13, 128]}, "attributes: found 12 targets, expected|found 12 targets"),
    ],
)
def test_zarr_folders_are_checked_before_they_are_read(tmp_path, changes, message):
    write_zarr(tmp_path / "a.zarr", list(LABELS) * 4, **changes)
    with pytest.raises(InputError, match=message):
        list(open_reader("torchsig").read(tmp_path, task("torchsig")))


# --- what they share


def test_pictures_have_the_mean_power_one_and_a_size_that_fits():
    assert IqPictures().size(128) == 16 and IqPictures().size(4096) in (64, 128)
    assert IqPictures(fft_size=256).size(128) == 128
    samples = 5 * np.exp(2j * np.pi * 0.25 * np.arange(1024)).astype(np.complex64)
    picture = IqPictures(fft_size=32).picture(samples)
    assert picture.shape[:2] == (1, 32) and picture.max() == pytest.approx(1.0, rel=1e-3)
    with pytest.raises(ConfigurationError, match="fft_size"):
        IqPictures(fft_size=33)


@pytest.mark.parametrize("values", [np.zeros((3, 4)), np.zeros(128), np.zeros((8, 2)), np.zeros(4, np.complex64)])
def test_samples_of_other_shapes_are_refused(values):
    with pytest.raises(InputError, match="samples"):
        complex_samples(values, "a[0]")
