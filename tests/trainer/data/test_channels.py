# SPDX-License-Identifier: GPL-3.0-or-later
"""Numerologies, simulated channels, pools of channels, and the error of LMMSE on them."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from itertools import islice

import h5py
import numpy as np
import pytest
from wavesfm_core.bundle.covariance import Covariances
from wavesfm_core.bundle.ofdm_spec import OFDMSpec, quadrants
from wavesfm_core.errors import BundleError, ConfigurationError, InputError
from wavesfm_trainer import cli
from wavesfm_trainer.data import channel_pool
from wavesfm_trainer.data.channel_pool import ChannelPool, write_pool
from wavesfm_trainer.data.generators import channels, sionna_grids
from wavesfm_trainer.data.generators.channels import ChannelSimulator, Scenario, channel_batches, moving_user
from wavesfm_trainer.data.generators.output import rng_for
from wavesfm_trainer.data.numerologies import NUMEROLOGIES, numerology_names, read_numerology

SMALL = OFDMSpec(4, 14, 12, 16, (2,) * 14, 30e3, (2, 11), "0123" * 6)
PAPER = read_numerology("paper")
needs_sionna = pytest.mark.skipif(find_spec("sionna") is None, reason="sionna-no-rt is not installed")


# Numerologies


def test_numerologies_that_ship():
    assert numerology_names() == ["nr106", "paper"]
    assert PAPER.grid_shape == (16, 14, 48) and PAPER.slot_samples == 14 * 54 and PAPER.pilots.shape == (2, 48)
    nr = read_numerology("nr106")
    assert nr.grid_shape == (8, 14, 1272) and nr.pilots.shape == (2, 636)
    assert nr.slot_samples / nr.rate_hz == 0.5e-3  # TS 38.211 4.3.2: two slots of 14 symbols in a millisecond at 30 kHz
    assert nr.pilot_subcarriers[:3].tolist() == [0, 2, 4] and nr.pilot_symbols == (2, 11)


def gold(start: int, count: int) -> np.ndarray:
    """TS 38.211 5.2.1, bit by bit."""
    one, two = [1] + [0] * 30, [(start >> i) & 1 for i in range(31)]
    for n in range(1600 + count):
        one.append(one[n + 3] ^ one[n])
        two.append(two[n + 3] ^ two[n + 2] ^ two[n + 1] ^ two[n])
    return np.array(one[1600 : 1600 + count]) ^ np.array(two[1600 : 1600 + count])


def test_pilots_of_nr106_are_the_demodulation_reference_signal():
    nr = read_numerology("nr106")
    for row, symbol in zip(nr.pilots, nr.pilot_symbols):
        bits = gold((2**17 * (symbol + 1)) % 2**31, 2 * 636)  # TS 38.211 6.4.1.1.1.1: slot 0, identity 0
        expected = ((1 - 2 * bits[::2]) + 1j * (1 - 2 * bits[1::2])) / np.sqrt(2)
        assert row == pytest.approx(expected, abs=1e-6)


@needs_sionna
def test_pilots_of_the_paper_are_those_that_sionna_draws():
    from sionna.phy import config, ofdm

    config.seed = 0
    grid = ofdm.ResourceGrid(
        num_ofdm_symbols=14, fft_size=48, subcarrier_spacing=30e3, cyclic_prefix_length=6, pilot_pattern="kronecker",
        pilot_ofdm_symbol_indices=[2, 11],
    )  # fmt: skip
    assert quadrants(grid.pilot_pattern.pilots[0, 0].numpy()) == PAPER.pilot_quadrants


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (None, ConfigurationError, "numerology: found nothing, expected a .yml file or one of nr106, paper"),
        ("antennas: [", ConfigurationError, "contents: found"),
        ("antennas: 4", BundleError, "symbols: found nothing"),
        ("comb: 2", BundleError, "comb: found a field that is not known"),
    ],
)
def test_numerology_that_is_none(tmp_path, text, error, message):
    path = tmp_path / "own.yml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(error, match=message):
        read_numerology(path)


def test_numerology_of_a_file(tmp_path):
    text = (NUMEROLOGIES / "paper.yml").read_text().replace("antennas: 16", "antennas: 2")
    (tmp_path / "two.yml").write_text(text)
    assert read_numerology(tmp_path / "two.yml").grid_shape == (2, 14, 48)


# Channels


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("model", {"model": "inf"}),
        ("speed_m_per_s", {"speed_m_per_s": -1.0}),
        ("speed_m_per_s", {"speed_m_per_s": float("nan")}),
        ("delay_spread_s", {"delay_spread_s": 1e-7}),
        ("delay_spread_s", {"model": "tdl-a", "delay_spread_s": 0.0}),
        ("carrier_hz", {"carrier_hz": 3.5}),
    ],
)
def test_scenario_that_is_none(field, arguments):
    with pytest.raises(ConfigurationError, match=f"scenario: {field}: found"):
        Scenario(**arguments)


@needs_sionna
@pytest.mark.parametrize("model", [*channels.CELLS, *channels.PROFILES])
def test_every_scenario(model):
    first, again = (ChannelSimulator(SMALL, Scenario(model)).batch(rng_for(4), 3) for _ in range(2))
    assert first.shape == (3, 4, 14, 12) and first.dtype == np.complex64
    assert (np.abs(first) ** 2).mean((1, 2, 3)) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(first, again)
    assert not np.allclose(first[0], first[1], atol=0.1)


def delay_spread_s(channel: np.ndarray, spec: OFDMSpec) -> float:
    """RMS of the mean power delay profile, from the curvature of the frequency correlation at small spacings."""
    pairs = np.mean(channel[..., 1:] * channel[..., :-1].conj()) / np.mean(np.abs(channel) ** 2)
    return float(np.sqrt(-2 * np.log(np.abs(pairs))) / (2 * np.pi * spec.spacing_hz))


@needs_sionna
def test_delay_spread_is_the_one_asked_for():
    many = OFDMSpec(64, 1, 12, 16, (2,), 30e3, (0,), "0123" * 3)  # so that mean power 1 weighs no example much
    for asked_s in (50e-9, 300e-9):
        simulator = ChannelSimulator(many, Scenario("tdl-a", delay_spread_s=asked_s))
        assert delay_spread_s(simulator.batch(rng_for(1), 200), many) == pytest.approx(asked_s, rel=0.1)


@needs_sionna
def test_speed_turns_the_channel_as_doppler_says():
    slow, fast = (moving_user(2, 4, Scenario("tdl-d", speed), SMALL) for speed in (3.0, 30.0))
    assert slow.shape == (4, 4, 14, 12)
    # TDL-D is a line of sight at 0.7 of the largest Doppler shift (TR 38.901 7.7.2) and 13.3 dB less of the rest.
    symbol_s = SMALL.slot_samples / SMALL.rate_hz / 14
    for channel, speed in ((slow, 3.0), (fast, 30.0)):
        symbols = channel.swapaxes(0, 1).reshape(4, 56, 12)
        turn = np.angle(np.mean(symbols[:, 1:] * symbols[:, :-1].conj()))
        assert abs(turn) == pytest.approx(2 * np.pi * 0.7 * speed / 299792458 * 3.5e9 * symbol_s, rel=0.15)


@needs_sionna
def test_subcarriers_rise_in_frequency_and_leave_out_dc():
    around = OFDMSpec(1, 2, 5, 8, (1, 1), 30e3, (0,), "01230")
    without = OFDMSpec(1, 2, 4, 8, (1, 1), 30e3, (0,), "0123", dc_null=True)
    scenario = Scenario("tdl-a", 0.0, 1e-6)
    all_five, four = (ChannelSimulator(spec, scenario).batch(rng_for(8), 6)[:, 0, 0] for spec in (around, without))
    ratio = all_five[:, [0, 1, 3, 4]] / four
    assert ratio == pytest.approx(np.broadcast_to(ratio[:, :1], ratio.shape), rel=1e-4)  # but for the power
    late = Scenario("cdl-a", 0.0, 1e-6)  # delays are positive: phase falls with frequency
    channel = ChannelSimulator(around, late).batch(rng_for(1), 300)
    assert np.angle(np.mean(channel[..., 1:] * channel[..., :-1].conj())) < -0.01


@needs_sionna
def test_the_panel_has_the_antennas_of_the_numerology():
    for antennas in (1, 2, 6):
        spec = OFDMSpec(antennas, 2, 4, 8, (1, 1), 30e3, (0,), "0123")
        assert ChannelSimulator(spec, Scenario()).batch(rng_for(0), 2).shape == (2, antennas, 2, 4)
    odd = OFDMSpec(3, 2, 4, 8, (1, 1), 30e3, (0,), "0123")
    assert ChannelSimulator(odd, Scenario("tdl-a")).batch(rng_for(0), 2).shape == (2, 3, 2, 4)
    with pytest.raises(ConfigurationError, match="antennas: found 3, expected 1, or an even number"):
        ChannelSimulator(odd, Scenario())


@needs_sionna
def test_channels_are_the_same_in_any_number_of_processes():
    scenario = Scenario("tdl-c")
    alone = list(channel_batches(25, 7, scenario, SMALL, batch=4))
    assert [len(batch) for batch in alone] == [4] * 6 + [1]
    shared = list(channel_batches(25, 7, scenario, SMALL, batch=4, processes=2))
    assert len(shared) == 7
    for one, other in zip(alone, shared):
        assert one == pytest.approx(other, abs=1e-5)
    assert not np.allclose(alone[0], alone[1], atol=0.1)
    assert not np.allclose(alone[0], next(channel_batches(4, 8, scenario, SMALL, batch=4)), atol=0.1)


@pytest.mark.parametrize("field", ["count", "batch", "processes"])
def test_streaming_of_nothing(field):
    with pytest.raises(ConfigurationError, match=f"channels: {field}: found 0"):
        next(channel_batches(**{"count": 1, "seed": 0, "scenario": Scenario(), "spec": SMALL, field: 0}))


@needs_sionna
def test_slots_of_another_numerology(tmp_path):
    comb = OFDMSpec(2, 7, 12, 16, (2,) * 7, 30e3, (1, 5), "012301" * 2, pilot_step=2, pilot_offset=1)
    sionna_grids.generate(tmp_path / "d", 3, 0, scenario=Scenario("tdl-a"), spec=comb)
    with np.load(tmp_path / "d" / "batch_00000.npz") as batch:
        sent, received, channel, snr_db = (batch[key] for key in ("x_rg", "y_rg", "h_freq", "snr_db"))
    assert received.shape == channel.shape == (3, 2, 7, 12)
    assert np.array_equal(sent[:, [1, 5]][..., 1::2], np.broadcast_to(comb.pilots, (3, 2, 6)))
    assert len(set(np.round(np.angle(sent[:, 1, ::2]).ravel(), 3))) == 4  # data between the comb's teeth
    noise = (np.abs(received - channel * sent[:, None]) ** 2).mean((1, 2, 3))
    assert 10 * np.log10(noise) == pytest.approx(-snr_db, abs=1.5)
    note = json.loads((tmp_path / "d" / "generator.json").read_text())
    assert note["settings"]["scenario"]["model"] == "tdl-a" and note["settings"]["numerology"]["pilot_offset"] == 1


# Files


def drawn(count, seed, scenario, spec, batch=64, processes=1):
    """In place of channel_batches: white channels, with no Sionna."""
    rng = np.random.default_rng(seed)
    for first in range(0, count, batch):
        shape = (min(batch, count - first), *spec.grid_shape, 2)
        yield np.float32(np.sqrt(0.5)) * rng.standard_normal(shape, np.float32).view(np.complex64)[..., 0]


@pytest.fixture
def white(monkeypatch):
    monkeypatch.setattr(channel_pool, "channel_batches", drawn)


def test_pool(tmp_path, white):
    seen = []
    write_pool(tmp_path / "p.h5", 70, 3, Scenario("uma", 30.0), SMALL, progress=lambda done, count: seen.append(done))
    pool = ChannelPool(tmp_path / "p.h5")
    assert (len(pool), pool.seed, pool.scenario, pool.spec) == (70, 3, Scenario("uma", 30.0), SMALL)
    expected = np.concatenate(list(drawn(70, 3, None, SMALL)))
    read = list(pool.batches(32))
    assert [len(batch) for batch in read] == [32, 32, 6] and read[0].dtype == np.complex64
    assert np.concatenate(read) == pytest.approx(expected, rel=1e-3, abs=1e-3)
    assert np.array_equal(pool.read(30, 4), np.concatenate(read)[30:34])
    assert [len(batch) for batch in pool.batches(32, 10, 40)] == [32, 8]
    assert seen == [64, 70]
    assert [path.name for path in tmp_path.iterdir()] == ["p.h5"]


def damage_note(**changes):
    def damage(file):
        note = json.loads(file.attrs["note"])
        file.attrs["note"] = json.dumps({**note, **changes})

    return damage


def damage_rows(array):
    def damage(file):
        del file["channels"]
        file.create_dataset("channels", data=array)

    return damage


def no_numbers(file):
    file["channels"][0, 0, 0, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.attrs.pop("note"), "note: found nothing, expected channels"),
        (lambda file: file.__delitem__("channels"), "format: found 1, keys , expected 1, with channels"),
        (damage_note(format=2), "format: found 2"),
        (damage_note(seed=None), "note: found"),
        (damage_note(scenario={"model": "moon"}), "note: found .*model"),
        (damage_note(numerology={"antennas": 4}), "note: found .*symbols"),
        (damage_rows(np.zeros((5, 4, 14, 12, 2), np.float32)), "channels: found float32"),
        (damage_rows(np.zeros((5, 4, 14, 11, 2), np.float16)), "channels: found float16 .5, 4, 14, 11, 2., expected"),
        (damage_rows(np.zeros((0, 4, 14, 12, 2), np.float16)), "channels: found"),
        (no_numbers, "channels: found values that are not finite"),
    ],
)
def test_pool_that_is_none(tmp_path, white, damage, message):
    write_pool(tmp_path / "p.h5", 5, 3, Scenario(), SMALL)
    with h5py.File(tmp_path / "p.h5", "r+") as file:
        damage(file)
    with pytest.raises(InputError, match=message):
        ChannelPool(tmp_path / "p.h5").read(0, 5)


def test_pool_that_claims_more_than_it_has(tmp_path, white):
    write_pool(tmp_path / "p.h5", 5, 3, Scenario(), SMALL)
    with h5py.File(tmp_path / "p.h5", "r+") as file:
        del file["channels"]
        file.create_dataset("channels", (10**9, 4, 14, 12, 2), np.float16, chunks=(1, 4, 14, 12, 2))
    with pytest.raises(InputError, match="size: found"):
        ChannelPool(tmp_path / "p.h5")


def test_pool_is_whole_or_not_there(tmp_path, monkeypatch):
    def broken(*arguments, **options):
        yield from islice(drawn(128, 0, None, SMALL), 1)
        raise InputError("channels", "batch", "a failure", "a batch")

    monkeypatch.setattr(channel_pool, "channel_batches", broken)
    with pytest.raises(InputError, match="a failure"):
        write_pool(tmp_path / "p.h5", 128, 0, Scenario(), SMALL)
    with pytest.raises(InputError, match="folder: found nothing"):
        write_pool(tmp_path / "none" / "p.h5", 128, 0, Scenario(), SMALL)
    assert not list(tmp_path.iterdir())


# Commands and what comes of them


def call(*arguments):
    """Exit code of the command, run in this process."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", ["wavesfm-train", *map(str, arguments)])
        cli.main()
    return ended.value.code or 0


@needs_sionna
def test_commands(tmp_path, capsys):
    learn, test = tmp_path / "learn.h5", tmp_path / "test.h5"
    for path, seed in ((learn, 0), (test, 1)):
        assert call("data", "channels", path, "--count", 96, "--seed", seed, "--scenario", "tdl-a") == 0
    assert call("data", "grids", tmp_path / "grids", "--count", 2, "--scenario", "cdl-b", "--numerology", "nr106") == 0
    with np.load(tmp_path / "grids" / "batch_00000.npz") as batch:
        assert batch["y_rg"].shape == (2, 8, 14, 1272)
    assert call("data", "covariances", learn, tmp_path / "c.npz", "--count", 64) == 0
    assert Covariances.load(tmp_path / "c.npz").shape == (16, 14, 48)
    assert call("data", "channels", tmp_path / "x.h5", "--count", 1, "--delay-spread", 30) == 2
    assert "scenario: delay_spread_s: found 3e-08" in capsys.readouterr().err
    assert call("data", "reference", learn, test, "--out", tmp_path / "table.json") == 0
    assert "LMMSE" in capsys.readouterr().out
    table = json.loads((tmp_path / "table.json").read_text())
    assert table["snrs_db"] == [-10, -5, 0, 5, 10, 15, 20]
    nmse_db = {name: np.array(values) for name, values in table["nmse_db"].items()}
    assert nmse_db["LS at pilots"] == pytest.approx(-np.array(table["snrs_db"]), abs=0.1)
    assert (nmse_db["LMMSE time-frequency"] < nmse_db["LS linear"] - 3).all()
    measured, known = nmse_db["the same, SNR measured"], nmse_db["LMMSE space-time-frequency"]
    assert measured == pytest.approx(known, abs=0.3)


def test_reference_of_what_was_learnt(tmp_path, white, capsys):
    write_pool(tmp_path / "a.h5", 4, 3, Scenario(), SMALL)
    write_pool(tmp_path / "b.h5", 4, 4, Scenario(), PAPER)
    assert call("data", "reference", tmp_path / "a.h5", tmp_path / "a.h5") == 2
    assert "channels that were not learnt from" in capsys.readouterr().err
    assert call("data", "reference", tmp_path / "a.h5", tmp_path / "b.h5") == 2
    assert "numerology.antennas" in capsys.readouterr().err


@needs_sionna
def test_walk(tmp_path):
    from wavesfm_core.channel.uplink import load_channels

    options = ("--slots", 3, "--seed", 5, "--scenario", "tdl-a", "--speed", 30, "--delay-spread", 300)
    assert call("data", "walk", tmp_path / "w.npz", *options) == 0
    loaded, spec = load_channels(tmp_path / "w.npz", PAPER)
    expected = moving_user(5, 3, Scenario("tdl-a", 30.0, 300e-9), PAPER)
    assert spec == PAPER
    assert loaded == pytest.approx(expected, rel=1e-3, abs=1e-3)
