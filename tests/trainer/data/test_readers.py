# SPDX-License-Identifier: GPL-3.0-or-later
"""Readers of the published layouts: small fixtures of each layout, their examples, and refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.signal
from PIL import Image
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_trainer.data.cache import read_cache
from wavesfm_trainer.data.prepare import prepare_dataset
from wavesfm_trainer.data.readers.base import Raw
from wavesfm_trainer.data.readers.registry import READERS, open_reader
from wavesfm_trainer.data.readers.rfs import power_spectrogram
from wavesfm_trainer.data.tasks import Task, read_task

RNG = np.random.default_rng(0)


def read(task: Task, root: Path) -> list[Raw]:
    return list(open_reader(task.reader).read(root, task))


# NTU-Fi -----------------------------------------------------------------------------------------------------------


def amplitudes(packets: int = 20) -> np.ndarray:
    return RNG.uniform(2, 55, (342, packets))


def har(root: Path, per_class: int = 2) -> Path:
    for part in ("train_amp", "test_amp"):
        for label in read_task("human-activity").labels:
            folder = root / part / label
            folder.mkdir(parents=True)
            for i in range(per_class):
                scipy.io.savemat(folder / f"{label}{i + 1}.mat", {"CSIamp": amplitudes()})
    return root


def test_har(tmp_path: Path) -> None:
    task = read_task("human-activity")
    raws = read(task, har(tmp_path / "NTU-Fi_HAR"))
    assert len(raws) == 24
    assert {raw.published_split for raw in raws} == {"train", "test"}
    for raw in raws:
        assert task.labels[raw.target] in Path(raw.source).name
        assert f"{raw.published_split}_amp" in raw.source
    stored = scipy.io.loadmat(raws[0].source)["CSIamp"]
    loaded = raws[0].load(3)
    assert loaded.dtype == np.float32 and loaded.shape == (3, 114, 20)
    np.testing.assert_array_equal(loaded[1, 5], stored[114 + 5].astype(np.float32))


def test_har_flattened_as_the_authors_have_it(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        scipy.io.savemat(tmp_path / part / "fall7.mat", {"CSIamp": amplitudes()})
    raws = read(read_task("human-activity"), tmp_path)
    assert [(raw.target, raw.published_split) for raw in raws] == [(2, "test"), (2, "train")]


@pytest.mark.parametrize(
    ("variables", "field"),
    [
        ({"CSI": np.zeros((342, 5))}, "CSIamp"),
        ({"CSIamp": np.zeros((341, 5))}, "CSIamp"),
        ({"CSIamp": np.zeros((342, 5, 2))}, "CSIamp"),
        ({"CSIamp": np.zeros((342, 5), complex)}, "CSIamp"),
        ({"CSIamp": np.array([["text"]])}, "CSIamp"),
        ({"CSIamp": {"a": 1.0}}, "CSIamp"),
    ],
)
def test_har_of_another_layout_is_refused(tmp_path: Path, variables: dict, field: str) -> None:
    path = tmp_path / "box1.mat"
    scipy.io.savemat(path, variables)
    (raw,) = read(read_task("human-activity"), tmp_path)
    with pytest.raises(InputError) as caught:
        raw.load(3)
    assert (caught.value.where, caught.value.field) == (str(path), field)


@pytest.mark.parametrize("length", [0, 60, 128, 200, 4000, -7])
def test_a_truncated_matlab_file_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "box1.mat"
    scipy.io.savemat(path, {"CSIamp": amplitudes()}, do_compression=True)
    path.write_bytes(path.read_bytes()[:length])
    (raw,) = read(read_task("human-activity"), tmp_path)
    with pytest.raises(InputError, match=r"box1\.mat"):
        raw.load(3)


def test_har_labels_outside_the_list_and_contradictions(tmp_path: Path) -> None:
    (tmp_path / "box").mkdir()
    scipy.io.savemat(tmp_path / "box" / "circle1.mat", {"CSIamp": amplitudes()})
    with pytest.raises(InputError, match="circle in a folder box"):
        read(read_task("human-activity"), tmp_path)
    (tmp_path / "box" / "circle1.mat").rename(tmp_path / "box" / "jump1.mat")
    with pytest.raises(InputError, match="'jump', expected one of run"):
        read(read_task("human-activity"), tmp_path)


def test_human_id(tmp_path: Path) -> None:
    for part, person, names in (("train_amp", "001", ("a1", "b1")), ("test_amp", "001", ("a1",)),
                                ("test_amp", "015", ("c3",))):  # fmt: skip
        (tmp_path / part / person).mkdir(parents=True)
        for name in names:
            scipy.io.savemat(tmp_path / part / person / f"{name}.mat", {"CSIamp": amplitudes()})
    raws = read(read_task("wifi-csi"), tmp_path)
    assert [(raw.group, raw.published_split, raw.target) for raw in raws] == [
        ("001", "test", None), ("015", "test", None), ("001", "train", None), ("001", "train", None),
    ]  # fmt: skip
    persons = Task("persons", "classification", "ntu_fi_humanid", 3, labels=("001", "015"))
    assert [raw.target for raw in read(persons, tmp_path)] == [0, 1, 0, 0]
    assert raws[0].load(3).shape == (3, 114, 20)


# 5G ---------------------------------------------------------------------------------------------------------------


def test_cfr(tmp_path: Path) -> None:
    cfr = RNG.normal(size=(6, 4, 9)) + 1j * RNG.normal(size=(6, 4, 9))
    scipy.io.savemat(tmp_path / "location_17.mat", {"cfr": cfr})
    (raw,) = read(read_task("csi-5g"), tmp_path)
    assert raw.target is None and raw.group == "location_17"
    np.testing.assert_allclose(raw.load(4), np.abs(cfr).transpose(1, 0, 2), rtol=1e-6)


def test_cfr_in_matlab_7_3(tmp_path: Path) -> None:
    cfr = RNG.normal(size=(6, 4, 9)) + 1j * RNG.normal(size=(6, 4, 9))
    stored = np.empty(cfr.T.shape, [("real", "<f8"), ("imag", "<f8")])
    stored["real"], stored["imag"] = cfr.T.real, cfr.T.imag
    with h5py.File(tmp_path / "17.mat", "w") as file:
        file["cfr"] = stored
    (raw,) = read(read_task("csi-5g"), tmp_path)
    np.testing.assert_allclose(raw.load(4), np.abs(cfr).transpose(1, 0, 2), rtol=1e-6)


def test_cfr_without_phase_or_channels_is_refused(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"cfr": np.ones((6, 4, 9))})
    scipy.io.savemat(tmp_path / "b.mat", {"cfr": np.ones((6, 3, 9), complex)})
    real, three = read(read_task("csi-5g"), tmp_path)
    with pytest.raises(InputError, match=r"a\.mat: cfr: found dtype float64, expected complex"):
        real.load(4)
    with pytest.raises(InputError, match=r"b\.mat: cfr: found shape \[6, 3, 9\]"):
        three.load(4)


def positions(n: int) -> np.ndarray:
    return np.random.default_rng(5).uniform(0, (80, 60, 40), (n, 3))


def nr_files(root: Path, n: int = 10, scene: str = "outdoor", stations: int = 4) -> Path:
    root.mkdir(exist_ok=True)
    for snr in (10, 20, 50):
        suffix = "_21-11-17_03-07" if scene == "indoor" else ""
        with h5py.File(root / f"dataset_SNR{snr}_{scene}{suffix}.mat", "w") as file:
            file["features"] = np.random.default_rng(snr).normal(size=(n, stations, 16, 193))
            file["labels/position"] = positions(n)
    return root


def test_positioning(tmp_path: Path) -> None:
    task = read_task("positioning")
    nr_files(tmp_path, 5, "indoor", 5)
    raws = read(task, nr_files(tmp_path))
    assert len(raws) == 30
    assert {raw.snr_db for raw in raws} == {10.0, 20.0, 50.0}
    assert len({raw.group for raw in raws}) == 10
    with h5py.File(tmp_path / "dataset_SNR50_outdoor.mat") as file:
        np.testing.assert_array_equal(raws[23].load(4), file["features"][3].astype(np.float32))
        np.testing.assert_allclose(raws[23].target, file["labels/position"][3], rtol=1e-6)
    indoor = replace(task, channels=5, axes=("x", "y"), options={"scene": "indoor"})
    raws = read(indoor, tmp_path)
    assert len(raws) == 15 and raws[0].target.shape == (2,)


@pytest.mark.parametrize(
    ("reader", "expected"),
    [
        ("nr_positioning", "one of scene"),
        ("sionna_grids", "one of pilot_symbols, numerology"),
        ("rfs", "one of crop_s, keep"),
        ("ntu_fi_har", "none with reader ntu_fi_har"),
        ("ntu_fi_humanid", "none with reader ntu_fi_humanid"),
        ("cfr_5g", "none with reader cfr_5g"),
        ("rf_images", "none with reader rf_images"),
    ],
)
def test_an_option_that_a_reader_does_not_have_is_refused(tmp_path: Path, reader: str, expected: str) -> None:
    task = replace(read_task("channel-estimation"), reader=reader, options={"scne": "outdoor"})
    with pytest.raises(ConfigurationError, match=f"options.scne: found no such option, expected {expected}"):
        read(task, tmp_path)


@pytest.mark.parametrize(
    ("task", "key", "shapes"),
    [
        ("human-activity", "CSIamp", [(342, 20), (342, 33)]),
        ("wifi-csi", "CSIamp", [(342, 20), (342, 33)]),
        ("csi-5g", "cfr", [(8, 4, 9), (9, 4, 9)]),
        ("csi-5g", "cfr", [(8, 4, 9), (8, 4, 10)]),
    ],
)
def test_files_of_mixed_shapes_are_refused(tmp_path: Path, task: str, key: str, shapes: list) -> None:
    for name, shape in zip(("box1", "box2"), shapes):
        array = RNG.uniform(2, 55, shape) + (1j if key == "cfr" else 0)
        scipy.io.savemat(tmp_path / f"{name}.mat", {key: array})
    one, two = read(read_task(task), tmp_path)
    channels = read_task(task).channels
    assert one.load(channels).shape == one.load(channels).shape
    with pytest.raises(InputError) as caught:
        two.load(channels)
    said = f"box2.mat: {key}: found shape {list(shapes[1])}, expected {list(shapes[0])}, as {tmp_path}/box1.mat has"
    assert str(caught.value) == f"{tmp_path}/{said}"


def test_positioning_files_of_mixed_shapes_are_refused(tmp_path: Path) -> None:
    nr_files(tmp_path)
    with h5py.File(tmp_path / "dataset_SNR50_outdoor.mat", "w") as file:
        file["features"] = np.zeros((10, 4, 16, 190))
        file["labels/position"] = positions(10)
    with pytest.raises(InputError, match=r"SNR50_outdoor.mat: features: found shape \[10, 4, 16, 190\]"):
        read(read_task("positioning"), tmp_path)


def test_positions_never_leak_into_the_test(tmp_path: Path) -> None:
    """Defect D7: 3 x 3876 files of the same 3876 positions, split at random by the authors."""
    task = replace(read_task("positioning"), height=16, width=16)
    note = prepare_dataset(task, nr_files(tmp_path / "raw", 12), tmp_path / "out.h5")
    groups = [set(read_cache(tmp_path / "out.h5", name).group) for name in ("train", "validation", "test")]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert note["split"]["method"] == "group" and note["split"]["groups_on_two_sides"] == 0
    assert len(set().union(*groups)) == 12


def _features(*shape: int, dtype: str = "<f8"):
    def change(file: h5py.File) -> None:
        del file["features"]
        file.create_dataset("features", shape, dtype)

    return change


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda file: file.__delitem__("features"), "features"),
        (lambda file: file.__delitem__("labels/position"), "labels/position"),
        (lambda file: file["labels/position"].__setitem__((2, 1), np.nan), "labels/position"),
        (_features(9, 4, 16, 193), "labels/position"),
        (_features(10, 5, 16, 193), "features"),
        (_features(10, 4, 10**6, 10**6), "features"),
        (_features(10, 4, 1, 1, dtype="S4"), "features"),
    ],
)
def test_positioning_of_another_layout_is_refused(tmp_path: Path, change, field: str) -> None:
    nr_files(tmp_path)
    with h5py.File(tmp_path / "dataset_SNR10_outdoor.mat", "r+") as file:
        change(file)
    with pytest.raises(InputError, match="dataset_SNR10_outdoor") as caught:
        read(read_task("positioning"), tmp_path)
    assert caught.value.field == field


def test_positioning_without_its_scene(tmp_path: Path) -> None:
    nr_files(tmp_path, 2, "indoor", 5)
    with pytest.raises(InputError, match="outdoor"):
        read(read_task("positioning"), tmp_path)
    with pytest.raises(InputError, match="nowhere"):
        read(read_task("positioning"), tmp_path / "nowhere")


def test_a_truncated_hdf5_file_is_refused(tmp_path: Path) -> None:
    nr_files(tmp_path)
    path = tmp_path / "dataset_SNR20_outdoor.mat"
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(InputError, match="SNR20"):
        [raw.load(4) for raw in read(read_task("positioning"), tmp_path)]


# Sionna grids -----------------------------------------------------------------------------------------------------


def complex_array(*shape: int) -> np.ndarray:
    return (RNG.normal(size=shape) + 1j * RNG.normal(size=shape)).astype(np.complex64)


def grids(count: int = 3) -> dict[str, np.ndarray]:
    return {
        "x_rg": complex_array(count, 14, 48),
        "y_rg": complex_array(count, 16, 14, 48),
        "h_freq": complex_array(count, 16, 14, 48),
        "snr_db": np.linspace(-10, 20, count).astype(np.float32),
    }


def test_grids(tmp_path: Path) -> None:
    batch = grids()
    np.savez(tmp_path / "batch_0.npz", **batch)
    np.savez(tmp_path / "batch_1.npz", **grids(2))
    raws = read(read_task("channel-estimation"), tmp_path)
    assert len(raws) == 5
    np.testing.assert_allclose([raw.snr_db for raw in raws[:3]], batch["snr_db"])
    image, target = raws[2].load(2), raws[2].load_target()
    assert image.shape == (2, 17, 96) and target.shape == (2, 16, 672) and target.dtype == np.float32
    np.testing.assert_array_equal(image[0, 0, :48], batch["x_rg"][2, 2].real)
    np.testing.assert_array_equal(image[1, 0, 48:], batch["x_rg"][2, 11].imag)
    np.testing.assert_array_equal(image[0, 6, 48:], batch["y_rg"][2, 5, 11].real)
    np.testing.assert_array_equal(target[1, 5, 48 * 7 : 48 * 8], batch["h_freq"][2, 5, 7].imag)


def test_the_authors_prepared_examples(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    x, h = RNG.normal(size=(2, 17, 96)).astype(np.float32), RNG.normal(size=(2, 16, 672)).astype(np.float32)
    np.savez(tmp_path / "train" / "0.npz", x=x, h=h, snr_db=7.5)
    (raw,) = read(read_task("channel-estimation"), tmp_path)
    np.testing.assert_array_equal(raw.load(2), x)
    np.testing.assert_array_equal(raw.load_target(), h)
    assert (raw.snr_db, raw.published_split) == (7.5, "train")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"h_freq": np.zeros((3, 8, 14, 48), np.complex64)}, "h_freq"),
        ({"x_rg": np.zeros((3, 14, 48), np.float32)}, "x_rg"),
        ({"y_rg": np.full((3, 16, 14, 48), np.nan, np.complex64)}, "y_rg"),
        ({"snr_db": np.zeros((3, 2), np.float32)}, "snr_db"),
        ({"snr_db": np.array([1, None, 2], object)}, "snr_db"),
        ({"y_rg": None}, "y_rg"),
    ],
)
def test_grids_of_another_layout_are_refused(tmp_path: Path, changes: dict, field: str) -> None:
    arrays = {name: a for name, a in {**grids(), **changes}.items() if a is not None}
    np.savez(tmp_path / "batch_0.npz", **arrays)
    with pytest.raises(InputError, match=r"batch_0\.npz") as caught:
        read(read_task("channel-estimation"), tmp_path)
    assert caught.value.field in (field, "x_rg" if field == "snr_db" else field)


@pytest.mark.parametrize("length", [0, 100, 5000, -10])
def test_a_truncated_npz_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "batch_0.npz"
    np.savez(path, **grids())
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(InputError, match=r"batch_0\.npz"):
        read(read_task("channel-estimation"), tmp_path)


def test_grids_are_for_tasks_of_a_channel(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="task positioning: grid: found nothing, expected antennas, symbols"):
        read(replace(read_task("positioning"), reader="sionna_grids"), tmp_path)


def test_pilot_symbols_outside_the_grid(tmp_path: Path) -> None:
    np.savez(tmp_path / "batch_0.npz", **grids())
    task = replace(read_task("channel-estimation"), options={"pilot_symbols": [2, 14]})
    with pytest.raises(ConfigurationError, match="pilot_symbols"):
        read(task, tmp_path)


# RF-S -------------------------------------------------------------------------------------------------------------


def capture(path: Path, samples: np.ndarray, description: object, side_file: bool = False) -> None:
    with path.open("wb") as file:
        np.save(file, samples)
        np.save(file, np.zeros(3))
        if side_file:
            path.with_suffix(".json").write_text(json.dumps(description))
        else:
            record = np.empty(1, object)
            record[0] = description
            np.lib.format.write_array(file, record)


DESCRIPTION = {"center_freq": 2.4e9, "note": "center_freq", "effective_sample_rate": 1_000_000, "gain": 30.0}


def iq(n: int) -> np.ndarray:
    return RNG.normal(size=(2, n)).astype(np.float32)


@pytest.mark.parametrize("side_file", [False, True])
def test_captures(tmp_path: Path, side_file: bool) -> None:
    samples = iq(16_000 * 2 + 500)
    capture(tmp_path / "wifi_1.npy", samples, DESCRIPTION, side_file)
    raws = read(read_task("rf-spectrograms"), tmp_path)
    assert [(raw.group, raw.log10_rate) for raw in raws] == [("wifi_1", 6.0)] * 2
    expected = power_spectrogram((samples[0] + 1j * samples[1])[16_000:32_000].astype(np.complex64))
    np.testing.assert_array_equal(raws[1].load(1), expected)
    assert expected.shape == (1, 1024, 31)


def test_the_spectrogram_is_scipys() -> None:
    samples = (RNG.normal(size=9000) + 1j * RNG.normal(size=9000)).astype(np.complex64)
    window = scipy.signal.windows.hann(1024, sym=False)
    oracle = scipy.signal.ShortTimeFFT(window, 512, 1.0, fft_mode="centered", scale_to="magnitude")
    expected = oracle.spectrogram(samples.astype(np.complex128), p0=0, p1=9000 // 512)
    np.testing.assert_allclose(power_spectrogram(samples)[0], expected, rtol=1e-3, atol=1e-9)


def test_a_tone_of_one_is_a_row_of_one() -> None:
    tone = np.exp(2j * np.pi * 256 / 1024 * np.arange(8192)).astype(np.complex64)
    row = power_spectrogram(tone)[0, 512 + 256, 1:]
    np.testing.assert_allclose(row, 1, rtol=1e-4)


class Evil:
    """Unpickling it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_in_a_capture_is_unpickled(tmp_path: Path) -> None:
    trap = tmp_path / "touched"
    capture(tmp_path / "a.npy", iq(20_000), {**DESCRIPTION, "evil": Evil(trap)})
    (raw,) = read(read_task("rf-spectrograms"), tmp_path)
    assert raw.log10_rate == 6.0 and raw.load(1).shape == (1, 1024, 31)
    assert not trap.exists()


@pytest.mark.parametrize(
    "description",
    [
        {"center_freq": 2.4e9},
        {"center_freq": 2.4e9, "effective_sample_rate": "fast"},
        {"center_freq": 2.4e9, "effective_sample_rate": -1.0},
        {"center_freq": 2.4e9, "effective_sample_rate": np.float64(1e6)},
        None,
    ],
)
def test_a_capture_without_a_plain_rate_says_how_to_mend_it(tmp_path: Path, description: object) -> None:
    capture(tmp_path / "a.npy", iq(20_000), description)
    with pytest.raises(InputError, match=r"write a\.json beside it"):
        read(read_task("rf-spectrograms"), tmp_path)


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (lambda path: np.save(path, np.zeros((3, 9000), np.float32)), "record 1"),
        (lambda path: np.save(path, np.zeros((2, 9000), np.complex64)), "record 1"),
        (lambda path: np.save(path, iq(9000)), "contents"),
        (lambda path: path.write_bytes(b"not npy"), "contents"),
        (lambda path: (np.save(path, iq(9000)), path.write_bytes(path.read_bytes()[:5000])), "record 1"),
        (lambda path: capture(path, iq(9000), {**DESCRIPTION, "effective_sample_rate": 1e6}), "length"),
        (lambda path: capture(path, iq(9000), {**DESCRIPTION, "effective_sample_rate": 1e3}), "sample rate"),
        (lambda path: capture(path, iq(9000), {**DESCRIPTION, "effective_sample_rate": 9e11}), "sample rate"),
    ],
)
def test_captures_of_another_layout_are_refused(tmp_path: Path, write, found: str) -> None:
    write(tmp_path / "a.npy")
    with pytest.raises(InputError, match=r"a\.npy") as caught:
        read(read_task("rf-spectrograms"), tmp_path)
    assert caught.value.field == found


def test_other_iq_and_tiffs_side_by_side(tmp_path: Path) -> None:
    samples = complex_array(40_000)
    samples.tofile(tmp_path / "ism_868M_1M.cf32")
    meta = {"global": {"core:datatype": "cf32_le", "core:sample_rate": 1e6, "core:version": "1.0.0"},
            "captures": [{"core:sample_start": 0}], "annotations": []}  # fmt: skip
    (tmp_path / "sigmf").mkdir()
    (tmp_path / "sigmf" / "lte.sigmf-meta").write_text(json.dumps(meta))
    samples.tofile(tmp_path / "sigmf" / "lte.sigmf-data")
    power = RNG.uniform(0, 1, (1024, 40)).astype(np.float32)
    Image.fromarray(power).save(tmp_path / "fc_2400MHz_fs_25.0MHz_cap_7_12.tiff")
    (tmp_path / "notes.txt").write_text("passed over")
    raws = read(read_task("rf-spectrograms"), tmp_path)
    tiff, *crops = raws
    np.testing.assert_array_equal(tiff.load(1)[0], power)
    assert tiff.group == "cap_7" and tiff.log10_rate == pytest.approx(np.log10(25e6))
    assert [raw.group for raw in crops] == ["ism_868M_1M", "ism_868M_1M", "lte", "lte"]
    np.testing.assert_array_equal(crops[0].load(1), power_spectrogram(samples[:16_000]))
    np.testing.assert_array_equal(crops[3].load(1), power_spectrogram(samples[16_000:32_000]))


def test_a_share_of_the_crops_is_kept(tmp_path: Path) -> None:
    complex_array(160_000).tofile(tmp_path / "ism_868M_1M.cf32")
    complex_array(160_000).tofile(tmp_path / "lte_868M_1M.cf32")
    task = read_task("rf-spectrograms")
    raws = read(replace(task, options={"keep": {"ism*": 0.5}}), tmp_path)
    assert [raw.group for raw in raws].count("ism_868M_1M") == 5
    assert [raw.group for raw in raws].count("lte_868M_1M") == 10
    with pytest.raises(ConfigurationError, match="keep"):
        read(replace(task, options={"keep": {"ism*": 2}}), tmp_path)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_raw_iq_of_unknown_rate_and_pictures_that_are_no_powers(tmp_path: Path) -> None:
    complex_array(40_000).tofile(tmp_path / "a.cf32")
    with pytest.raises(InputError, match=r"a\.cf32: sample rate"):
        read(read_task("rf-spectrograms"), tmp_path)
    (tmp_path / "a.cf32").unlink()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "b.tiff")
    (raw,) = read(read_task("rf-spectrograms"), tmp_path)
    with pytest.raises(InputError, match="mode L"):
        raw.load(1)
    (tmp_path / "b.tiff").write_bytes(b"II*\0broken")
    with pytest.raises(InputError, match=r"b\.tiff: contents"):
        raw.load(1)


def test_no_captures_at_all(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("empty")
    with pytest.raises(InputError, match="files: found none"):
        read(read_task("rf-spectrograms"), tmp_path)
    with pytest.raises(InputError, match="path: found nothing"):
        read(read_task("rf-spectrograms"), tmp_path / "nowhere")


# Pictures ---------------------------------------------------------------------------------------------------------


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (12, 20)) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


def test_pictures(tmp_path: Path) -> None:
    task = read_task("rf-classification")
    pixels = picture(tmp_path / "on-off-keying_03_x.png")
    picture(tmp_path / "radioteletype_1.png", 1)
    (tmp_path / "wifi").mkdir()
    picture(tmp_path / "wifi" / "anything.png", 2)
    raws = read(task, tmp_path)
    assert [task.labels[raw.target] for raw in raws] == ["on-off-keying", "Radioteletype", "wifi"]
    loaded = raws[0].load(1)
    assert loaded.shape == (1, 20, 12) and loaded.min() >= 0 and loaded.max() <= 1
    corner = pixels[0, -1] @ np.array([0.299, 0.587, 0.114]) / 255  # top right comes to the top left
    assert loaded[0, 0, 0] == pytest.approx(corner, abs=1e-5)
    turned = np.asarray(Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90), float)
    np.testing.assert_allclose(loaded[0], turned @ [0.299, 0.587, 0.114] / 255, atol=1e-5)


def test_a_picture_of_an_unknown_label_or_broken(tmp_path: Path) -> None:
    picture(tmp_path / "wifi_1.png")
    picture(tmp_path / "zigbee_1.png")
    with pytest.raises(InputError, match=r"zigbee_1\.png: label: found 'zigbee'"):
        read(read_task("rf-classification"), tmp_path)
    (tmp_path / "zigbee_1.png").unlink()
    whole = (tmp_path / "wifi_1.png").read_bytes()
    (raw,) = read(read_task("rf-classification"), tmp_path)
    for data in (b"", whole[:50], whole[: len(whole) // 2], b"GIF89a" + whole):
        (tmp_path / "wifi_1.png").write_bytes(data)
        with pytest.raises(InputError, match=r"wifi_1\.png: contents"):
            raw.load(1)


# The authors' caches ----------------------------------------------------------------------------------------------


def authors_csi(path: Path, labels: list[int], files: list[str]) -> Path:
    with h5py.File(path, "w") as file:
        file["csi"] = np.random.default_rng(3).normal(size=(len(labels), 3, 8, 8)).astype(np.float32)
        file["label"] = np.array(labels, np.int64)
        file["source_file"] = files
    return path


def test_the_authors_csi_cache(tmp_path: Path) -> None:
    task = replace(read_task("human-activity"), reader="authors_cache")
    files = ["train_amp/run/run1.mat", "test_amp/clean/clean9.mat"]
    path = authors_csi(tmp_path / "has.h5", [0, 5], files)
    raws = read(task, path)
    assert [(raw.target, raw.published_split) for raw in raws] == [(0, "train"), (5, "test")]
    with h5py.File(path) as file:
        np.testing.assert_array_equal(raws[1].load(3), file["csi"][1])


def test_the_authors_labels_are_checked_against_the_files(tmp_path: Path) -> None:
    task = replace(read_task("human-activity"), reader="authors_cache")
    with pytest.raises(InputError, match=r"0 \(run\) for test_amp/clean/clean9\.mat"):
        read(task, authors_csi(tmp_path / "a.h5", [0], ["test_amp/clean/clean9.mat"]))
    with pytest.raises(InputError, match="label: found 6"):
        read(task, authors_csi(tmp_path / "b.h5", [6], ["x.mat"]).rename(tmp_path / "a.h5"))


def test_the_authors_positions(tmp_path: Path) -> None:
    task = replace(read_task("positioning"), reader="authors_cache")
    (tmp_path / "train").mkdir()
    with h5py.File(tmp_path / "train" / "0.h5", "w") as file:
        file["features"], file["position"] = np.ones((4, 16, 193)), np.array([1.0, 2.0, 3.0])
    (raw,) = read(task, tmp_path)
    assert raw.load(4).shape == (4, 16, 193) and raw.published_split == "train"
    assert raw.target.tolist() == [1, 2, 3] and raw.group == "1.000,2.000,3.000"
    with h5py.File(tmp_path / "train" / "0.h5", "w") as file:
        file["features"], file["position"] = np.ones((2, 4, 16, 193)), np.array([[1.0, 2.0, 3.0], [4, 5, np.inf]])
    with pytest.raises(InputError, match=r"0\.h5\[1\]: position"):
        read(task, tmp_path)


def test_the_authors_iq(tmp_path: Path) -> None:
    task = Task("rml", "classification", "authors_cache", 2, labels=("BPSK", "QPSK"))
    with h5py.File(tmp_path / "rml.h5", "w") as file:
        file["sample"], file["label"] = np.ones((3, 2, 1, 128), np.float32), np.array([0, 1, 1])
        file["snr"] = np.array([-20, 0, 18], np.int16)
    raws = read(task, tmp_path)
    assert [(raw.target, raw.snr_db) for raw in raws] == [(0, -20.0), (1, 0.0), (1, 18.0)]
    assert raws[0].load(2).shape == (2, 1, 128)
    with h5py.File(tmp_path / "rml.h5", "r+") as file:
        del file["label"]
    with pytest.raises(InputError, match="expected label"):
        read(task, tmp_path)


# All together -----------------------------------------------------------------------------------------------------


def small(name: str) -> Task:
    return replace(read_task(name), height=16, width=16)


def test_prepare_human_activity(tmp_path: Path) -> None:
    har(tmp_path / "raw", 4)
    note = prepare_dataset(small("human-activity"), tmp_path / "raw", tmp_path / "has.h5", seed=3)
    assert note["labels"] == ["run", "walk", "fall", "box", "circle", "clean"]
    assert note["split"] == {
        "method": "published", "seed": 3, "shares": [0.9, 0.1, 0.0], "groups_on_two_sides": 0,
        "sizes": {"train": 18, "validation": 6, "test": 24},
    }  # fmt: skip
    assert note["sources"] == {"root": "raw", "found": 48, "examples": 48}
    test = read_cache(tmp_path / "has.h5", "test")
    assert all("test_amp" in source for source in test.source)
    assert note["labels"][test.target[0]] in Path(test.source[0]).name


def test_prepare_channel_estimation_and_pretraining(tmp_path: Path) -> None:
    np.savez(tmp_path / "batch_0.npz", **grids(12))
    prepare_dataset(small("channel-estimation"), tmp_path, tmp_path / "ce.h5")
    train = read_cache(tmp_path / "ce.h5", "train")
    assert train.target.shape[1:] == (2, 16, 672) and train.snr_db is not None
    assert train.image.min() == -1 and train.image.max() == 1
    for i in range(6):
        cfr = complex_array(5, 4, 7)
        (tmp_path / "5g").mkdir(exist_ok=True)
        scipy.io.savemat(tmp_path / "5g" / f"{i}.mat", {"cfr": cfr})
    prepare_dataset(small("csi-5g"), tmp_path / "5g", tmp_path / "5g.h5")
    assert read_cache(tmp_path / "5g.h5", "train").image.shape == (5, 4, 16, 16)


def test_what_a_generator_noted_is_kept(tmp_path: Path) -> None:
    root = har(tmp_path / "raw", 4)
    files = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.mat"))
    about = {name: {"person": int(Path(name).stem[-1])} for name in files}
    note = {"generator": "ntu_fi_har", "seed": 7, "settings": {"persons": 4}, "examples": about}
    (root / "generator.json").write_text(json.dumps(note))
    task = replace(small("human-activity"), shares=(0.5, 0.25, 0.25))
    made = prepare_dataset(task, root, tmp_path / "has.h5", split="group")
    assert made["sources"] == {"root": "raw", "found": 48, "examples": 48, "generator": "ntu_fi_har", "seed": 7,
                               "settings": {"persons": 4}}  # fmt: skip
    persons = [set(read_cache(tmp_path / "has.h5", name).group) for name in ("train", "validation", "test")]
    assert [len(group) for group in persons] == [2, 1, 1]
    assert set.union(*persons) == {f"person {i}" for i in range(1, 5)}
    (root / "generator.json").write_text("[]")
    with pytest.raises(InputError, match=r"generator\.json: examples"):
        read(task, root)


def test_a_limit_takes_from_every_class(tmp_path: Path) -> None:
    har(tmp_path / "raw", 4)
    note = prepare_dataset(small("human-activity"), tmp_path / "raw", tmp_path / "has.h5", limit=24)
    assert note["sources"] == {"root": "raw", "found": 48, "examples": 24}
    with pytest.raises(ConfigurationError, match="limit"):
        prepare_dataset(small("human-activity"), tmp_path / "raw", tmp_path / "has.h5", limit=0)


def test_every_published_reader_opens_and_others_are_refused() -> None:
    published = ("ntu_fi_har", "ntu_fi_humanid", "cfr_5g", "nr_positioning", "sionna_grids", "rfs", "rf_images")
    for name in (*published, "authors_cache"):
        assert open_reader(name).name == name
    assert set(published) < set(READERS)
    with pytest.raises(ConfigurationError, match="matlab"):
        open_reader("matlab")
    with pytest.raises(ConfigurationError, match="tiles"):
        open_reader("tiles")
