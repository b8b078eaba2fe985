# SPDX-License-Identifier: GPL-3.0-or-later
"""Generators: published layouts, repeatability, physics, and labels that can be learnt."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from itertools import pairwise

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.recordings.iqfile import open_recording
from wavesfm_trainer.data.generators import (
    GENERATORS,
    cfr_5g,
    clusters,
    generator,
    nr_positioning,
    ntu_fi_har,
    ntu_fi_humanid,
    rf_images,
    rfs_captures,
    wifi_csi,
)
from wavesfm_trainer.data.generators.kinematics import MOTIONS, PARTS, draw_person
from wavesfm_trainer.data.generators.output import rng_for
from wavesfm_trainer.data.generators.propagation import LIGHT_M_PER_S, Scene, array_response, line_array, paths_from
from wavesfm_trainer.data.generators.published_signals import SIGNALS
from wavesfm_trainer.data.readers.base import GENERATOR_NOTE
from wavesfm_trainer.data.readers.registry import open_reader
from wavesfm_trainer.data.tasks import read_task

EMPTY = Scene((100.0, 100.0, 30.0), (0.0,) * 6, np.zeros((0, 3)), np.zeros(0))


def nearest(features: np.ndarray, answers: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
    """The answer of each row's nearest other row; with groups of the nearest of another group."""
    features = (features - features.mean(0)) / (features.std(0) + 1e-9)
    distance = ((features[:, None] - features[None]) ** 2).sum(2)
    groups = np.arange(len(features)) if groups is None else groups
    distance[groups[:, None] == groups[None]] = np.inf
    return answers[distance.argmin(1)]


def read_note(directory):
    return json.loads((directory / GENERATOR_NOTE).read_text())


# Output


def test_every_generator_opens_and_another_name_is_refused():
    for name in GENERATORS:
        assert callable(generator(name))
    with pytest.raises(ConfigurationError, match=r"data generate: name: found 'wifi'.*cfr_5g"):
        generator("wifi")


def test_a_directory_with_something_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(ConfigurationError, match="one that is not empty"):
        cfr_5g.generate(tmp_path, 1, 0)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("name", "count"), [("ntu_fi_har", 11), ("ntu_fi_humanid", 55), ("rf_images", 19), ("cfr_5g", 0)]
)
def test_too_few_examples_are_refused_before_anything_is_made(tmp_path, name, count):
    with pytest.raises(ConfigurationError, match=f"count: found {count}, expected {count + 1} or more"):
        generator(name)(tmp_path / "new", count, 0)
    assert not (tmp_path / "new").exists()


def test_processes_make_what_one_makes(tmp_path):
    cfr_5g.generate(tmp_path / "one", 3, 5)
    cfr_5g.generate(tmp_path / "two", 3, 5, jobs=2)
    for path in sorted((tmp_path / "one").glob("*.mat")):
        assert np.array_equal(loadmat(path)["cfr"], loadmat(tmp_path / "two" / path.name)["cfr"])
    assert read_note(tmp_path / "one") == read_note(tmp_path / "two")


@pytest.mark.parametrize(
    ("name", "count", "task_name", "n_examples"),
    [("cfr_5g", 2, "csi-5g", 2), ("nr_positioning", 2, "positioning", 6), ("rfs_captures", 1, "rf-spectrograms", 1)],
)
def test_the_readers_read_what_is_written(tmp_path, name, count, task_name, n_examples):
    settings = {"rates_hz": (1.5e6,), "duration_s": (0.018, 0.019)} if name == "rfs_captures" else {}
    generator(name)(tmp_path, count, 0, **settings)
    task = read_task(task_name)
    examples = list(open_reader(task.reader).read(tmp_path, task))
    assert len(examples) == n_examples
    assert examples[0].load(task.channels).std() > 0
    assert len({e.group for e in examples}) == count  # the three SNR files have the same positions


# Geometry


def test_delay_and_gain_follow_the_distance():
    offsets_hz = np.linspace(-40e6, 40e6, 161)
    antenna = np.array([[10.0, 10.0, 5.0]])
    for distance_m in (12.0, 30.0, 75.0):
        paths = paths_from(EMPTY, np.array([10.0 + distance_m, 10.0, 5.0]))
        cfr = array_response(paths, antenna, 3.5e9, offsets_hz)[0]
        slope = np.polyfit(offsets_hz, np.unwrap(np.angle(cfr)), 1)[0]
        assert -slope / (2 * np.pi) * LIGHT_M_PER_S == pytest.approx(distance_m, rel=1e-6)
        assert np.abs(cfr) == pytest.approx(1 / distance_m, rel=1e-9)


def test_phase_along_the_array_follows_the_angle():
    antennas = line_array(np.array([0.0, 0.0, 5.0]), 0.0, 16, 3.5e9)
    for degrees in (-50, 0, 20):
        user = 1e4 * np.array([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees)), 0.0]) + np.array([0, 0, 5.0])
        cfr = array_response(paths_from(EMPTY, user), antennas, 3.5e9, np.zeros(1))[:, 0]
        step = np.mean(np.angle(cfr[1:] / cfr[:-1]))
        assert step == pytest.approx(np.pi * np.sin(np.deg2rad(degrees)), abs=0.01)


def test_a_wall_is_a_mirror():
    scene = Scene((100.0, 100.0, 30.0), (0.5, 0, 0, 0, 0, 0), np.zeros((0, 3)), np.zeros(0))
    paths = paths_from(scene, np.array([4.0, 10.0, 5.0]))
    assert paths.points.tolist() == [[4.0, 10.0, 5.0], [-4.0, 10.0, 5.0]]
    assert paths.weight.tolist() == [1.0, -0.5]


# WiFi sensing


@cache
def activity_examples() -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """CSIamp as [3, 6, 2000] (every 19th subcarrier), activities and persons of 4 persons in one room."""
    made = [ntu_fi_har.amplitudes(0, index, persons=4, rooms=1) for index in range(48)]
    csi = [m[0].reshape(3, 114, 2000)[:, ::19] for m in made]
    return csi, np.array([m[1] for m in made]), np.array([m[2] for m in made])


def doppler(csi: np.ndarray) -> np.ndarray:
    """Mean power per 2 Hz of Doppler in each of 8 half seconds: [8, 126]."""
    fluctuation = csi - csi.mean(2, keepdims=True)
    windows = fluctuation.reshape(3, 6, 8, 250) * np.hanning(250)
    return (np.abs(np.fft.rfft(windows, axis=3)) ** 2).mean((0, 1))


def activity_features(csi: np.ndarray) -> np.ndarray:
    edges = (1, 2, 3, 5, 8, 12, 18, 27, 40, 60)
    power = doppler(csi)
    bands = np.log(np.stack([power[:, a:b].mean(1) for a, b in pairwise(edges)], 1) + 1e-3)
    return np.concatenate([bands.mean(0), bands.std(0), [bands[5:].mean() - bands[:3].mean()]])


def test_har_layout(tmp_path):
    ntu_fi_har.generate(tmp_path / "d", 12, 3)
    root = tmp_path / "d" / "NTU-Fi_HAR"
    names = sorted(str(p.relative_to(root)) for p in root.rglob("*.mat"))
    activities = ("box", "circle", "clean", "fall", "run", "walk")
    assert names == [f"test_amp/{a}/{a}0.mat" for a in activities] + [f"train_amp/{a}/{a}1.mat" for a in activities]
    file = loadmat(root / names[4])
    assert [k for k in file if not k.startswith("__")] == ["CSIamp"]
    assert file["CSIamp"].shape == (342, 2000) and file["CSIamp"].dtype == np.float64
    assert np.array_equal(file["CSIamp"], ntu_fi_har.amplitudes(3, 0)[0])  # run0 is example 0
    note = read_note(tmp_path / "d")
    assert note["generator"] == "ntu_fi_har" and note["seed"] == 3
    assert note["examples"]["NTU-Fi_HAR/train_amp/box/box1.mat"] == {"activity": "box", "person": 1, "room": 1}


def test_har_splits_as_published():
    tests = sum(turn * 44 % 200 < 44 for turn in range(200))
    assert (6 * tests, 6 * (200 - tests)) == (264, 936)


def test_csi_is_of_the_published_size_and_depends_on_seed_and_index():
    csi = ntu_fi_har.amplitudes(0, 1)[0]
    assert csi.min() >= 0 and csi.max() < 57.2  # 10 bit I and Q
    assert 36 < csi.mean() < 46 and 0.5 < csi.std() < 8
    assert not np.array_equal(csi, ntu_fi_har.amplitudes(1, 1)[0])
    assert not np.array_equal(csi, ntu_fi_har.amplitudes(0, 121)[0])  # the same activity, person and room


def test_moving_response_is_the_sum_of_its_paths():
    room, person = wifi_csi.draw_room(rng_for(0, 0)), draw_person(rng_for(0, 1))
    track = MOTIONS["walk"](rng_for(0, 2), person, wifi_csi.TIME_S)[:, ::500]
    csi = wifi_csi.moving_response(room, person, track, room.place, 0.0)
    at = track + np.array([*room.place, 0.0])
    expected = np.zeros((3, 114, 4), complex)
    for part in range(len(PARTS)):
        to = np.linalg.norm(at[part] - room.transmitter, axis=1)
        back = np.linalg.norm(at[part][None] - room.antennas[:, None], axis=2)
        gain = wifi_csi.BODY_M * person.build * wifi_csi.REFLECTS[part] / (to * back)
        turns = (to + back)[:, None] * 5.19e9 + (to + back[:1])[:, None] * wifi_csi.OFFSETS_HZ[:, None]
        expected += gain[:, None] * np.exp(-2j * np.pi * turns / LIGHT_M_PER_S)
    assert np.abs(csi - expected).max() < 2e-5 * np.abs(expected).max()


def test_activities_move_as_named():
    time_s, speeds = wifi_csi.TIME_S, {}
    for name, motion in MOTIONS.items():
        tracks = [motion(rng_for(1, i), draw_person(rng_for(2, i)), time_s) for i in range(8)]
        speeds[name] = np.mean([np.linalg.norm(np.diff(t, axis=1), axis=2) * 500 for t in tracks], axis=0)
    torso = {name: speed[0].mean() for name, speed in speeds.items()}
    hands = {name: speed[5:7].mean() for name, speed in speeds.items()}
    assert 0.8 < torso["walk"] < 1.6 and 2.0 < torso["run"] < 3.6
    assert max(torso["box"], torso["circle"]) < 0.5 and min(hands["box"], hands["circle"]) > 1.0
    assert speeds["fall"][0, :1800].max() > 5 * speeds["fall"][0, 1600:].mean()
    late = np.array([MOTIONS["fall"](rng_for(1, i), draw_person(rng_for(2, i)), time_s)[:, -1, 2] for i in range(8)])
    assert late[:, :2].max() < 0.4  # lying


def test_doppler_differs_by_activity_as_expected():
    csi, activities, _ = activity_examples()
    power = np.array([doppler(x) for x in csi])
    hertz = 2 * np.arange(power.shape[2])
    high = np.array([p[:, hertz > 30].sum() / p[:, hertz > 1].sum() for p in power])
    level = {a: np.median(high[activities == a]) for a in set(activities)}
    assert level["run"] > 1.5 * level["walk"] > level["clean"]
    late_share = power[:, 6:, 1:].sum((1, 2)) / power[:, :, 1:].sum((1, 2))
    lying = {a: np.median(late_share[activities == a]) for a in set(activities)}
    assert lying["fall"] < 0.5 * min(lying["run"], lying["walk"], lying["box"], lying["clean"])


def test_activities_can_be_learnt_and_a_held_back_person_is_no_easier():
    csi, activities, persons = activity_examples()
    features = np.array([activity_features(x) for x in csi])
    known = np.mean(nearest(features, activities) == activities)
    strange = np.mean(nearest(features, activities, persons) == activities)
    assert known > 0.5 and strange > 0.35  # chance: 0.17
    assert strange <= known + 0.05


def test_humanid_layout(tmp_path, monkeypatch):
    monkeypatch.setattr(ntu_fi_humanid, "amplitudes", lambda seed, i: (np.zeros((342, 2000)), *who(i), 0))

    def who(index):
        return ntu_fi_humanid.PERSONS[index % 14], "abc"[index // 14 % 3]

    ntu_fi_humanid.generate(tmp_path / "d", 56, 0, compress=True)
    paths = sorted((tmp_path / "d" / "NTU-Fi-HumanID").rglob("*.mat"))
    assert len(paths) == 56
    assert {p.parent.name for p in paths} == {*(f"{n:03d}" for n in range(1, 14)), "015"}
    assert {p.parent.parent.name for p in paths} == {"train_amp", "test_amp"}
    assert all(re.fullmatch(r"[abc]\d+", p.stem) for p in paths)
    assert loadmat(paths[0])["CSIamp"].shape == (342, 2000)
    tests = sum(number * 13 % 20 < 13 for number in range(20))
    assert (14 * 3 * tests, 14 * 3 * (20 - tests)) == (546, 294)


def test_humanid_has_each_persons_own_gait():
    csi, person, condition, _ = ntu_fi_humanid.amplitudes(0, 15)
    assert csi.shape == (342, 2000) and (person, condition) == ("002", "b")
    assert np.array_equal(csi, ntu_fi_humanid.amplitudes(0, 15)[0])
    foot = PARTS.index("left_foot")
    rows, who = [], []
    for number in range(6):
        gait = draw_person(rng_for(0, 1, number))
        for turn in range(4):
            track = MOTIONS["walk"](rng_for(9, number, turn), gait, wifi_csi.TIME_S)
            lift = track[foot, :, 2] - track[foot, :, 2].mean()
            strides_hz = np.argmax(np.abs(np.fft.rfft(lift, 16000))[:400]) * 500 / 16000
            rows.append([strides_hz * 20, lift.std() * 100, track[1, :, 2].mean() * 20])
            who.append(number)
    assert np.mean(nearest(np.array(rows), np.array(who)) == np.array(who)) > 0.6  # chance: 0.17


# 5G


def test_cfr_layout_and_smoothness(tmp_path):
    cfr_5g.generate(tmp_path / "d", 4, 0)
    paths = sorted((tmp_path / "d").glob("*.mat"))
    assert [p.name for p in paths] == [f"location_{n:03d}.mat" for n in (1, 2, 3, 4)]
    cfr = loadmat(paths[2])["cfr"]
    assert cfr.shape == (64, 4, 272) and cfr.dtype == np.complex64
    assert np.array_equal(cfr, cfr_5g.response(0, 2, 4))
    assert np.array_equal(cfr, np.rint(cfr.real) + 1j * np.rint(cfr.imag))  # steps of the converter
    repeats = np.abs(cfr)
    assert np.abs(np.diff(repeats, axis=0)).mean() < 0.3 * repeats.mean()  # repeats that follow each other are alike
    assert np.linalg.norm(cfr_5g.location(100, 476) - cfr_5g.location(101, 476)) < 0.5
    assert read_note(tmp_path / "d")["examples"]["location_001.mat"]["position_m"] == [27.0, 6.0, 1.2]


def test_cfr_levels_are_within_a_step_of_the_gain_and_spectra_are_not_flat():
    made = [np.abs(cfr_5g.response(0, i, 40)) for i in range(0, 40, 2)]
    levels_db = [20 * np.log10(np.sqrt(np.mean(one**2)) / cfr_5g.LEVEL) for one in made]
    assert np.ptp(levels_db) < cfr_5g.GAIN_STEP_DB + 3 * 2 * cfr_5g.STEP_ERROR_DB + 3  # and fading
    explained = 1 - np.mean([one.var() for one in made]) / np.var(made)
    assert explained < 0.6  # the mean of a sample does not tell it all


def test_clusters_have_the_power_and_delays_of_their_table():
    rng, offsets_hz = np.random.default_rng(0), np.arange(256) * 360e3
    for letter in "AD":
        model = clusters.profile(letter)
        assert model.powers.sum() == pytest.approx(1) and model.line_of_sight == (letter == "D")
        drawn = [
            clusters.response(rng, model, 100e-9, 0.3, 0.0, 4, offsets_hz, np.zeros(1), 0.0, 0.0) for _ in range(60)
        ]
        assert np.mean(np.abs(drawn) ** 2) == pytest.approx(1, abs=0.1)
        taps = np.mean(np.abs(np.fft.ifft(np.array(drawn)[:, 0], axis=-1)) ** 2, axis=(0, 1))
        delays_s = np.arange(256) / (256 * 360e3)
        mean_s = np.sum(taps * delays_s) / taps.sum()
        expected_s = 100e-9 * np.sum(model.powers * model.delays)
        assert mean_s == pytest.approx(expected_s, abs=40e-9)
    assert clusters.indoor_path_loss_db(10, 3.5e9, True) == pytest.approx(32.4 + 17.3 + 20 * np.log10(3.5))
    assert clusters.indoor_path_loss_db(50, 3.5e9, False) > clusters.indoor_path_loss_db(50, 3.5e9, True)
    with pytest.raises(ConfigurationError, match="no table of CDL-Z"):
        clusters.profile("z")


SITE = nr_positioning.draw_site(0, "outdoor")
LEVEL = nr_positioning.reference_level(SITE, 0, "outdoor")


def received_at(user):
    return nr_positioning.received(SITE, nr_positioning.channel(SITE, user))


def test_positioning_layout(tmp_path):
    nr_positioning.generate(tmp_path / "d", 5, 0)
    positions = []
    for snr in (10, 20, 50):
        path = tmp_path / "d" / f"dataset_SNR{snr}_outdoor.mat"
        assert path.read_bytes()[:10] == b"MATLAB 7.3" and path.read_bytes()[126:128] == b"IM"
        with h5py.File(path) as file:
            assert sorted(file) == ["features", "labels"] and list(file["labels"]) == ["position"]
            assert file["features"].shape == (5, 4, 16, 193) and file["features"].dtype == np.float64
            assert file["labels/position"].shape == (5, 3)
            positions.append(file["labels/position"][:])
            again = nr_positioning.features(rng_for(0, 3, 3, snr), received_at(positions[-1][3]), snr, LEVEL)
            assert np.array_equal(file["features"][3], again)
    assert np.array_equal(positions[0], positions[1]) and np.array_equal(positions[0], positions[2])
    assert (positions[0] >= 0).all() and (positions[0] <= (80, 60, 40)).all()


FILL_THE_DISK = """
import resource, sys
from wavesfm_trainer import cli
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
sys.argv = ["wavesfm-train", "data", "generate", sys.argv[1], sys.argv[2], "--count", "12"]
cli.main()
"""


@pytest.mark.parametrize(("name", "limit"), [("nr_positioning", 500_000), ("cfr_5g", 100_000)])
def test_a_full_disk_while_generating_is_one_sentence(tmp_path, name, limit):
    """See test_cache: a limit on the size of files, in a process of its own, fails a write as a full disk does."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", FILL_THE_DISK, name, str(tmp_path / "d"), str(limit)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and "File too large" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "d" / GENERATOR_NOTE).exists()
    if name == "nr_positioning":
        assert not list((tmp_path / "d").iterdir())


def test_positioning_indoor_has_five_stations_and_another_scene_is_refused(tmp_path):
    nr_positioning.generate(tmp_path / "d", 2, 0, scene="indoor")
    with h5py.File(tmp_path / "d" / "dataset_SNR50_indoor_21-11-16_23-11.mat") as file:
        assert file["features"].shape == (2, 5, 16, 193)
    with pytest.raises(ConfigurationError, match="scene: found 'moon', expected one of outdoor, indoor"):
        nr_positioning.generate(tmp_path / "e", 2, 0, scene="moon")


def test_positioning_noise_is_the_files_snr():
    clean = received_at(np.array([30.0, 20.0, 1.5]))
    quiet = nr_positioning.features(rng_for(0), clean, 200, LEVEL)
    for snr_db in (10, 20, 50):
        noise = nr_positioning.features(rng_for(1), clean, snr_db, LEVEL) - quiet
        signal = quiet - nr_positioning.CENTRE
        assert 10 * np.log10(np.mean(signal**2) / np.mean(noise**2)) == pytest.approx(snr_db, abs=1.0)


def test_positioning_keeps_the_level():
    """At the nearest station, what power control leaves of the path loss: a fifth, and the errors of gain steps."""
    users = [nr_positioning.draw_position(rng_for(5, i), "outdoor") for i in range(60)]
    lost = [nr_positioning.channel(SITE, user) for user in users]
    raw_db = [10 * np.log10(np.mean(np.abs(one) ** 2, axis=(1, 2)).max()) for one in lost]
    kept = [nr_positioning.features(rng_for(0), nr_positioning.received(SITE, one), 50, LEVEL) for one in lost]
    kept_db = [20 * np.log10(one.std(axis=(1, 2)).max()) for one in kept]
    slope = np.polyfit(raw_db, kept_db, 1)[0]
    assert slope == pytest.approx(1 - nr_positioning.POWER_CONTROL, abs=0.1)
    assert np.std(kept_db) < 0.6 * np.std(raw_db)


def test_position_shows_in_the_features():
    n = 150
    users = np.array([nr_positioning.draw_position(rng_for(0, 2, i), "outdoor") for i in range(n)])
    made = np.array(
        [nr_positioning.features(rng_for(4, i), received_at(user), 20, LEVEL) for i, user in enumerate(users)]
    )
    beams = np.abs(np.fft.fft2(made - made.mean((2, 3), keepdims=True)))[..., :97].reshape(n, -1)
    beams *= beams.std(0)  # nearest() divides by it: count strong delays and angles more
    error_m = np.linalg.norm(nearest(beams, users) - users, axis=1)
    chance_m = np.linalg.norm(users[::-1] - users, axis=1)
    assert np.median(error_m) < 0.4 * np.median(chance_m)
    here = np.array([30.0, 20.0, 1.5])

    def alike(moved_m):
        there = nr_positioning.channel(SITE, here + np.array([moved_m, 0, 0]))
        return np.corrcoef(nr_positioning.channel(SITE, here).real.ravel(), there.real.ravel())[0, 1]

    assert alike(0.02) > 0.8 and alike(0.02) > alike(10.0) + 0.5


# Channel estimation


def test_sionna_grids(tmp_path):
    pytest.importorskip("sionna.phy", reason="sionna-no-rt is not installed")
    from wavesfm_trainer.data.generators import sionna_grids

    sionna_grids.generate(tmp_path / "d", 66, 0, snr_db=(0.0, 15.0), snr_step_db=5.0)
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == ["batch_00000.npz", "batch_00001.npz", GENERATOR_NOTE]
    first, last = (np.load(tmp_path / "d" / f"batch_0000{i}.npz") for i in (0, 1))
    assert {k: (v.shape, str(v.dtype)) for k, v in first.items()} == {
        "x_rg": ((64, 14, 48), "complex64"),
        "y_rg": ((64, 16, 14, 48), "complex64"),
        "h_freq": ((64, 16, 14, 48), "complex64"),
        "snr_db": ((64,), "float32"),
    }
    assert last["y_rg"].shape == (2, 16, 14, 48)
    sent, received, channel, snr_db = (first[k] for k in ("x_rg", "y_rg", "h_freq", "snr_db"))
    assert set(snr_db) == {0.0, 5.0, 10.0, 15.0}
    assert np.abs(sent) == pytest.approx(1, abs=1e-5)  # QPSK and pilots
    assert (sent[:, [2, 11]] == sent[0, [2, 11]]).all() and (sent[0, 2] == last["x_rg"][0, 2]).all()  # pilots
    assert (np.abs(channel) ** 2).mean((1, 2, 3)) == pytest.approx(1, abs=1e-3)
    estimate = received[:, :, [2, 11]] / sent[:, None, [2, 11]]
    nmse_db = 10 * np.log10((np.abs(estimate - channel[:, :, [2, 11]]) ** 2).mean((1, 2, 3)))
    assert nmse_db == pytest.approx(-snr_db, abs=0.6)
    again = list(sionna_grids.batches(66, 0, (0.0, 15.0), 5.0))
    assert np.array_equal(again[0].received, received) and np.array_equal(again[1].channel, last["h_freq"])


@pytest.mark.parametrize(
    ("field", "arguments"), [("snr_db", {"snr_db": (5.0, 1.0)}), ("snr_step_db", {"snr_step_db": -1.0})]
)
def test_sionna_grids_refuses_what_makes_no_sense(field, arguments):
    from wavesfm_trainer.data.generators import sionna_grids

    with pytest.raises(ConfigurationError, match=f"sionna_grids: {field}: found"):
        next(sionna_grids.batches(1, 0, **arguments))


# Spectrograms


def test_rf_pictures_layout(tmp_path, monkeypatch):
    real = rf_images.picture
    monkeypatch.setattr(
        rf_images, "picture", lambda s, label, n: real(s, label, n) if n == 0 and label == "vor" else BLANK
    )
    rf_images.generate(tmp_path / "d", 100, 0)
    names = sorted(p.name for p in (tmp_path / "d").glob("*.png"))
    assert len(names) == 100 and all(re.fullmatch(r"[A-Za-z0-9-]+_\d+\.png", name) for name in names)
    assert {name.partition("_")[0] for name in names} == set(SIGNALS)
    with Image.open(tmp_path / "d" / "vor_0.png") as picture:
        assert picture.mode == "RGB" and picture.size == (256, 256)
        assert np.array_equal(np.asarray(picture), real(0, "vor", 0))
    per_label = read_note(tmp_path / "d")["settings"]["per_label"]
    assert sum(per_label.values()) == 100 and max(per_label.values()) > 4 * min(per_label.values())


BLANK = np.zeros((256, 256, 3), np.uint8)


def test_labels_of_the_pictures_are_the_published_ones():
    published = (
        "ads-b airband ais automatic-picture-transmission bluetooth cellular digital-audio-broadcasting "
        "digital-speech-decoder fm lora morse on-off-keying packet pocsag Radioteletype remote-keyless-entry "
        "RS41-Radiosonde sstv vor wifi"
    )
    assert list(SIGNALS) == published.split() == list(rf_images.SHARES)
    assert sum(rf_images.counts(3620).values()) == 3620 and min(rf_images.counts(20).values()) == 1


def spectrum(label: str, seed: int, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies in Hz and power of an emission of a label, in dB of its largest."""
    emission = SIGNALS[label].make(rng_for(seed), seconds, SIGNALS[label].views[0].low_hz)
    assert len(emission.iq) >= seconds * emission.rate_hz - 1
    power = np.abs(np.fft.fft(emission.iq * np.hanning(len(emission.iq)))) ** 2
    return np.fft.fftfreq(len(power), 1 / emission.rate_hz), 10 * np.log10(power / power.max() + 1e-12)


def test_a_vor_has_its_carrier_and_subcarrier():
    hertz, power = spectrum("vor", 0, 2.0)
    assert abs(hertz[power.argmax()]) < 1
    beside = (np.abs(np.abs(hertz) - 9960) < 700) & (power > -40)
    assert beside.sum() > 20 and power[(np.abs(hertz) > 4000) & (np.abs(hertz) < 9000)].max() < -40
    near = np.abs(np.abs(hertz) - 30) < 1
    assert power[near].max() == pytest.approx(20 * np.log10(0.15), abs=1)


def test_radioteletype_is_two_tones():
    for seed in range(4):
        hertz, power = spectrum("Radioteletype", seed, 4.0)
        strong = np.sort(hertz[power > -12])
        gap_hz = strong[strong > 0].min() - strong[strong < 0].max()
        assert min(abs(2 * np.median(strong[strong > 0]) - shift) for shift in (170, 450, 850)) < 30
        assert gap_hz > 60


def test_sstv_stays_between_sync_and_white_and_morse_is_keyed():
    hertz, power = spectrum("sstv", 1, 3.0)
    level = 10 ** (power / 10)
    assert level[(hertz > -600) & (hertz < 600)].sum() > 0.97 * level.sum()
    emission = SIGNALS["morse"].make(rng_for(3), 4.0, 12e3)
    share = np.mean(np.abs(emission.iq) > 0.1)
    assert 0.2 < share < 0.8


def outline(picture: np.ndarray) -> list[float]:
    """How uneven, how peaked and how smooth a picture is along frequency and along time."""
    grey = picture.astype(float).mean(2)
    grey = np.clip((grey - np.median(grey)) / grey.std(), -1, 5)[:, 26:-26]  # without the receiver's edges
    told = []
    for profile in (grey.mean(0), grey.mean(1)):
        profile = profile - profile.mean()
        spread = profile.std() + 1e-3
        told += [np.log(spread), np.log(profile.max() / spread)]
        told += [np.mean(profile[n:] * profile[:-n]) / spread**2 for n in (1, 6, 24)]
    return told


def test_pictures_tell_their_labels():
    labels = ("ads-b", "digital-audio-broadcasting", "fm", "vor", "wifi")
    made = [(outline(rf_images.picture(1, label, number)), label) for label in labels for number in range(5)]
    features, answers = np.array([row for row, _ in made]), np.array([label for _, label in made])
    assert np.mean(nearest(features, answers) == answers) > 0.4  # chance: 0.2


def test_captures_are_readable_sigmf(tmp_path):
    settings = {"rates_hz": (1.5e6,), "duration_s": (0.01, 0.012)}
    rfs_captures.generate(tmp_path / "d", 3, 1, **settings)
    note = read_note(tmp_path / "d")
    metas = sorted((tmp_path / "d").glob("*.sigmf-meta"))
    assert [m.name for m in metas] == sorted(note["examples"]) and len(metas) == 3
    for path in metas:
        index = int(path.stem.rpartition("_")[2])
        made = rfs_captures.capture(1, index, **settings)
        with open_recording(path) as recording:
            assert recording.rate_hz == 1.5e6 and recording.n_samples == len(made.iq)
            assert recording.centre_hz == pytest.approx(made.centre_hz)
            assert 15_000 <= recording.n_samples <= 18_000
        raw = np.fromfile(path.with_suffix(".sigmf-data"), "<i2").astype(np.float32) / 32768
        assert np.abs(raw.view(np.complex64) - made.iq).max() < 1e-4
        annotations = json.loads(path.read_text())["annotations"]
        assert [a["core:label"] for a in annotations] == [label for label, _, _ in made.signals]
        assert all(a["core:freq_lower_edge"] < a["core:freq_upper_edge"] for a in annotations)


def test_captures_cover_the_published_rates_and_bands():
    assert min(rfs_captures.RATES_HZ) == 10e6 and max(rfs_captures.RATES_HZ) == 60e6
    assert sum(band.share for band in rfs_captures.BANDS) == pytest.approx(1)
    assert max(band.centre_hz[1] for band in rfs_captures.BANDS) < 6e9
    with pytest.raises(ConfigurationError, match="rates_hz"):
        rfs_captures.generate("unused", 1, 0, rates_hz=(1e3,))
