# SPDX-License-Identifier: GPL-3.0-or-later
"""Tile shards: contents, resuming, growing, and refusal of tiles of another kind."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.errors import InputError
from wavesfm_core.preprocess.tile import prepare
from wavesfm_trainer.data import tile_dataset as tiles_module
from wavesfm_trainer.data.tile_dataset import make_shard, read_shard_note, read_shards, write_shards
from wavesfm_trainer.signals.dataset import SignalDataset

SPEC = SpectrogramSpec(fft_size=64, hop_samples=64, frames_averaged=1, rows_per_tile=64)
LABELS = ("ook-ism", "noise", "lora")


def dataset(seed=1, labels=LABELS):
    return SignalDataset(seed, SPEC.tile_samples, SPEC.min_samples, labels=labels)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(tiles_module, "SHARD_TILES", 4)


def test_a_shard_holds_the_kernels_tiles_to_half_a_step():
    shard, plain = make_shard(dataset(), SPEC, 2, 5), SPEC.unscaled()
    assert len(shard) == 5
    for i in range(5):
        example = dataset()[2 + i]
        tile = prepare(example.iq, plain)[0]
        assert tile.min() >= 0
        assert tile.max() <= 1
        assert np.abs(shard.picture[i] / 255 - tile).max() <= 0.5 / 255 + 1e-6
        assert LABELS[shard.label[i]] == example.label
        assert shard.log10_rate[i] == pytest.approx(np.log10(example.rate_hz))
        assert shard.snr_db[i] == pytest.approx(example.snr_db)
        assert shard.rows[i] == len(example.iq) // 64
    assert shard.picture.dtype == np.uint8
    assert shard.picture.shape == (5, 224, 224)


def test_rows_of_a_last_row_that_averages_fewer_frames():
    spec = SpectrogramSpec(fft_size=64, hop_samples=64, frames_averaged=2, rows_per_tile=64)
    source = SignalDataset(1, 64 * 9, 64 * 9, partial_share=0, labels=("noise",))
    assert make_shard(source, spec, 0, 1).rows.tolist() == [5]


def test_an_example_of_digital_silence_is_replaced_by_one_of_its_class():
    class Cut(SignalDataset):
        def __getitem__(self, index):
            example = super().__getitem__(index)
            return replace(example, iq=0 * example.iq) if index == 2 else example

    source = Cut(1, SPEC.tile_samples, SPEC.min_samples, labels=LABELS)
    shard, whole = make_shard(source, SPEC, 0, 6), make_shard(dataset(), SPEC, 0, 6)
    assert np.array_equal(shard.label, whole.label)
    assert [np.array_equal(a, b) for a, b in zip(shard.picture, whole.picture)] == [True, True, False, True, True, True]
    assert np.array_equal(make_shard(source, SPEC, 2, 1).picture, shard.picture[2:3])

    class Silent(Cut):
        def __getitem__(self, index):
            return replace(super().__getitem__(0), iq=np.zeros(SPEC.min_samples, np.complex64))

    with pytest.raises(InputError, match=r"example 5: samples: found digital silence in 20 draws"):
        make_shard(Silent(1, SPEC.tile_samples, SPEC.min_samples, labels=LABELS), SPEC, 5, 1)


@pytest.mark.usefixtures("small_shards")
def test_a_cache_is_written_and_read_back(tmp_path):
    write_shards(tmp_path, dataset(), SPEC, 10)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache.json"] + [f"shard-0000{i}.npz" for i in range(3)]
    found, direct = read_shards(tmp_path), make_shard(dataset(), SPEC, 0, 10)
    for name, values in vars(direct).items():
        assert np.array_equal(getattr(found, name), values)
        assert getattr(found, name).dtype == values.dtype
    assert len(read_shards(tmp_path, 6)) == 6
    note = read_shard_note(tmp_path)
    assert (note["labels"], note["seed"]) == (list(LABELS), 1)
    assert SpectrogramSpec(**note["spec"]) == SPEC


@pytest.mark.usefixtures("small_shards")
def test_a_cache_resumes_and_grows(tmp_path):
    write_shards(tmp_path, dataset(), SPEC, 6)
    first = tmp_path / "shard-00000.npz"
    before = first.stat()
    (tmp_path / "shard-00001.npz").unlink()
    write_shards(tmp_path, dataset(), SPEC, 6)
    assert len(read_shards(tmp_path)) == 6
    write_shards(tmp_path, dataset(), SPEC, 8)  # the last shard had two tiles
    assert np.array_equal(read_shards(tmp_path).picture, make_shard(dataset(), SPEC, 0, 8).picture)
    after = first.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.usefixtures("small_shards")
def test_shards_may_start_later(tmp_path):
    write_shards(tmp_path, dataset(), SPEC, 4, offset=3)
    assert [p.name for p in tmp_path.glob("*.npz")] == ["shard-00003.npz"]
    assert np.array_equal(read_shards(tmp_path).picture, make_shard(dataset(), SPEC, 12, 4).picture)


@pytest.mark.usefixtures("small_shards")
def test_folders_of_one_directory_are_read_together(tmp_path):
    write_shards(tmp_path / "b", dataset(), SPEC, 2)
    write_shards(tmp_path / "a", dataset(seed=2), SPEC, 3)
    together = read_shards(tmp_path)
    apart = [read_shards(tmp_path / name) for name in ("a", "b")]
    assert np.array_equal(together.picture, np.concatenate([tiles.picture for tiles in apart]))
    assert read_shard_note(tmp_path)["seed"] == 2
    write_shards(tmp_path / "c", dataset(labels=("noise", "lora")), SPEC, 2)
    with pytest.raises(InputError, match=r"c/cache\.json: labels: found \['noise', 'lora'\]"):
        read_shards(tmp_path)


def test_a_shard_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    def fails(file, **arrays):
        file.write(b"half a file")
        raise OSError("disk full")

    monkeypatch.setattr(tiles_module.np, "savez", fails)
    with pytest.raises(OSError, match="disk full"):
        tiles_module._write_shard(str(tmp_path), dataset(), SPEC, 0, 2)
    assert not list(tmp_path.glob("shard-*.npz"))
    with pytest.raises(InputError, match="at least one shard"):
        read_shards(tmp_path)


@pytest.mark.parametrize(
    ("source", "spec", "field"),
    [
        (dataset(seed=2), SPEC, "seed"),
        (dataset(labels=("noise", "lora")), SPEC, "labels"),
        (dataset(), SpectrogramSpec(fft_size=64, hop_samples=64, rows_per_tile=64), "spec"),
    ],
)
@pytest.mark.usefixtures("small_shards")
def test_tiles_of_another_kind_do_not_mix(tmp_path, source, spec, field):
    write_shards(tmp_path, dataset(), SPEC, 2)
    with pytest.raises(InputError, match="another directory") as caught:
        write_shards(tmp_path, source, spec, 8)
    assert caught.value.field == field
    assert len(read_shards(tmp_path)) == 2


def test_what_is_no_cache_is_refused_by_file(tmp_path):
    with pytest.raises(InputError, match=r"cache\.json: file: found nothing"):
        read_shard_note(tmp_path)
    (tmp_path / "cache.json").write_text(json.dumps({"spec": {}}))
    with pytest.raises(InputError, match=r"cache\.json: contents: found KeyError\('labels'\)"):
        read_shard_note(tmp_path)
    (tmp_path / "shard-00000.npz").write_bytes(b"PK\x03\x04 not a shard")
    with pytest.raises(InputError, match=r"shard-00000\.npz: contents"):
        read_shards(tmp_path)


def test_statistics_are_of_values_in_0_to_1():
    picture = np.zeros((4, 224, 224), np.uint8)
    picture[:2] = 255
    assert tiles_module._statistics(picture) == pytest.approx((0.5, 0.5))
