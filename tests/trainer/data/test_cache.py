# SPDX-License-Identifier: GPL-3.0-or-later
"""Prepared data sets: contents, statistics of the training part only, and atomic writing."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from wavesfm_core.bundle.image_spec import ImageSpec
from wavesfm_core.bundle.spec import to_dict
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_core.preprocess.tile import prepare
from wavesfm_trainer.data import tile_dataset as tiles
from wavesfm_trainer.data.cache import read_cache, read_note, write_cache
from wavesfm_trainer.data.readers.base import Raw
from wavesfm_trainer.data.tasks import Task
from wavesfm_trainer.signals import LABELS

SIZE = {"height": 16, "width": 16}
CLASSES = Task("toy", "classification", "rf_images", 2, labels=("a", "b"), **SIZE)
PLACES = Task("places", "position", "nr_positioning", 1, axes=("x", "y"), split="group", **SIZE)
CHANNELS = Task("channels", "channel", "sionna_grids", 1, grid=(2, 3, 4), range=(-1.0, 1.0), **SIZE)
PLAIN = Task("plain", "pretraining", "rfs", 1, shares=(0.8, 0.2, 0.0), **SIZE)


def array(seed: int, channels: int = 2, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(channels, 9, 20)) * scale).astype(np.float32)


def labelled(n: int = 40) -> list[Raw]:
    return [Raw(array(i), i % 2, f"file{i}", f"g{i}") for i in range(n)]


def whole_task(task: Task) -> list[Raw]:
    rng = np.random.default_rng(9)
    if task.kind == "classification":
        return labelled()
    target = {"position": lambda: rng.normal(size=2) * 30, "channel": lambda: rng.normal(size=(2, 2, 12))}
    make = target.get(task.kind, lambda: None)
    return [
        Raw(lambda i=i: array(i, 1), make(), f"file{i}", f"g{i}", log10_rate=6.5, snr_db=float(i)) for i in range(30)
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "toy.h5"


@pytest.mark.parametrize("task", [CLASSES, PLACES, CHANNELS, PLAIN], ids=lambda task: task.kind)
def test_every_kind_comes_back(path: Path, task: Task) -> None:
    raws = whole_task(task)
    note = write_cache(path, task, raws, seed=4)
    everything = read_cache(path)
    assert everything.note == note == read_note(path)
    assert everything.source == tuple(raw.source for raw in raws)
    assert everything.group == tuple(raw.group for raw in raws)
    assert everything.image.dtype == np.float16 and everything.image.shape == (len(raws), task.channels, 16, 16)
    for row in (0, 7):
        expected = prepare(raws[row].load(task.channels), everything.spec)
        np.testing.assert_allclose(everything.standardised([row])[0], expected, atol=0.02)
    if task.kind == "pretraining":
        assert everything.target is None
    else:
        np.testing.assert_allclose(everything.target, np.stack([raw.load_target() for raw in raws]), rtol=1e-6)
        assert everything.target.dtype == (np.int64 if task.labels else np.float32)
    if task.kind == "classification":
        assert everything.log10_rate is None and everything.snr_db is None
    else:
        np.testing.assert_array_equal(everything.snr_db, np.arange(30, dtype=np.float32))


def test_splits_are_disjoint_and_complete(path: Path) -> None:
    """Defect D7: three splits, each example in one of them, and no way to be handed another one by default."""
    note = write_cache(path, CLASSES, labelled(), seed=4)
    parts = {name: read_cache(path, name) for name in ("train", "validation", "test")}
    assert {name: len(part) for name, part in parts.items()} == note["split"]["sizes"]
    sources = [source for part in parts.values() for source in part.source]
    assert len(sources) == len(set(sources)) == 40
    assert all(set(part.target) == {0, 1} for part in parts.values())


def test_statistics_come_from_the_training_split_alone(path: Path) -> None:
    """The validation and test examples are a hundred times larger and change nothing (authors: over all data)."""
    raws = labelled()
    write_cache(path, CLASSES, raws, seed=4)
    held_back = {source for name in ("validation", "test") for source in read_cache(path, name).source}
    loud = [replace(raw, array=raw.array * (100 if raw.source in held_back else 1)) for raw in raws]
    before = read_note(path)["preprocess"]
    assert write_cache(path, CLASSES, loud, seed=4)["preprocess"] == before
    train = read_cache(path, "train")
    assert train.image.min() == 0 and train.image.max() == 1
    standardised = train.standardised()
    np.testing.assert_allclose(standardised.mean(axis=(0, 2, 3)), 0, atol=2e-3)
    np.testing.assert_allclose(standardised.std(axis=(0, 2, 3)), 1, atol=2e-3)
    assert np.abs(read_cache(path, "test").image).max() > 10


def test_target_extremes_come_from_the_training_split_alone(path: Path) -> None:
    note = write_cache(path, PLACES, whole_task(PLACES), seed=1)
    train, test = read_cache(path, "train"), read_cache(path)
    np.testing.assert_allclose(note["target_low"], train.target.min(axis=0))
    np.testing.assert_allclose(note["target_high"], train.target.max(axis=0))
    assert (test.target.min(axis=0) < note["target_low"]).any() or (test.target.max(axis=0) > note["target_high"]).any()


def test_known_bounds_go_before_measured_ones(path: Path) -> None:
    note = write_cache(path, replace(CLASSES, bounds=(-8.0, 8.0)), labelled())
    assert (note["preprocess"]["low"], note["preprocess"]["high"]) == (-8.0, 8.0)
    assert abs(note["preprocess"]["mean"][0] - 0.5) < 0.02


def test_range_and_decibels(path: Path) -> None:
    task = replace(PLAIN, decibel_floor=1e-12, range=(-1.0, 1.0))
    raws = [Raw(array(i, 1) ** 2, None, f"file{i}") for i in range(20)]
    write_cache(path, task, raws)
    train = read_cache(path, "train")
    assert train.spec.decibel_floor == 1e-12
    assert train.image.min() == -1 and train.image.max() == 1
    assert -130 < train.spec.low < train.spec.high < 20


def test_an_example_is_one_piece_of_the_file(path: Path) -> None:
    """Defect D11: chunks of 256 examples, compressed, cost 205 MB for each read."""
    write_cache(path, CLASSES, labelled())
    with h5py.File(path) as file:
        assert file["image"].chunks is None and file["image"].compression is None


def test_examples_outlive_the_file(path: Path) -> None:
    """Defects D6 and D12: nothing is read from the file after loading, so that no handle is shared by workers."""
    write_cache(path, CLASSES, labelled())
    examples = read_cache(path, "train")
    path.unlink()
    assert examples.image.flags.owndata and np.isfinite(examples.standardised()).all()


def test_eager_and_lazy_examples_give_the_same_bytes(tmp_path: Path) -> None:
    raws = labelled()
    lazy = [replace(raw, array=lambda raw=raw: raw.array) for raw in raws]
    write_cache(tmp_path / "a.h5", CLASSES, raws, seed=2)
    write_cache(tmp_path / "b.h5", CLASSES, iter(lazy), seed=2)
    np.testing.assert_array_equal(read_cache(tmp_path / "a.h5").image, read_cache(tmp_path / "b.h5").image)


def test_progress_counts_to_the_end(path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_cache(path, CLASSES, labelled(), progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    assert seen[-1][0] == seen[-1][1] == 40 + 28


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (Raw(np.zeros((3, 4, 4), np.float32), 0, "bad"), "shape"),
        (Raw(np.zeros((4, 4), np.float32), 0, "bad"), "shape"),
        (Raw(np.full((2, 4, 4), np.nan, np.float32), 0, "bad"), "values"),
        (Raw(np.zeros((2, 4, 4), np.complex64), 0, "bad"), "numbers"),
        (Raw(np.full((2, 4, 4), 1e300), 0, "bad"), "values"),
        (Raw(array(0), 2, "bad"), "label"),
        (Raw(array(0), None, "bad"), "label"),
    ],
)
def test_a_bad_example_is_named_and_leaves_nothing(path: Path, bad: Raw, field: str) -> None:
    with pytest.raises(InputError) as caught:
        write_cache(path, CLASSES, [*labelled(), *[bad] * 9])
    assert (caught.value.where, caught.value.field) == ("bad", field)
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("target", [np.zeros(3), np.array([np.nan, 1.0]), None])
def test_a_bad_target_is_named(path: Path, target: np.ndarray | None) -> None:
    raws = [*whole_task(PLACES), *(Raw(array(0, 1), target, "bad", f"h{i}") for i in range(9))]
    with pytest.raises(InputError, match="bad: target"):
        write_cache(path, PLACES, raws)


def test_a_coordinate_that_never_changes_is_named(path: Path) -> None:
    raws = [replace(raw, target=np.array([raw.target[0], 1.5])) for raw in whole_task(PLACES)]
    with pytest.raises(InputError, match="axis y"):
        write_cache(path, PLACES, raws)


def test_a_channel_that_never_changes_is_named(path: Path) -> None:
    raws = labelled()
    for raw in raws:
        raw.array[1] = 3
    with pytest.raises(InputError, match="channel 1"):
        write_cache(path, CLASSES, raws)


def test_a_failed_write_keeps_the_former_cache(path: Path) -> None:
    write_cache(path, CLASSES, labelled())
    before = path.read_bytes()
    raws = labelled()
    raws[17].array = np.full((2, 4, 4), np.inf, np.float32)
    with pytest.raises(InputError, match="file17"):
        write_cache(path, CLASSES, raws)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


DIE_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
import numpy as np
from wavesfm_trainer.data.cache import write_cache
from wavesfm_trainer.data.readers.base import Raw
from wavesfm_trainer.data.tasks import Task
rng = np.random.default_rng(0)
raws = [Raw(rng.normal(size=(1, 4, 4)).astype(np.float32), None, f"file{i}") for i in range(10)]
def die(done, total):
    if done == total - 2:
        os.kill(os.getpid(), signal.SIGKILL)
task = Task("plain", "pretraining", "rfs", 1, shares=(0.8, 0.2, 0.0))
write_cache(Path(sys.argv[1]), task, raws, progress=die)
"""


def run_script(script: str, path: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, str(path)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


FILL_THE_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from wavesfm_core.errors import InputError
from wavesfm_trainer.data.cache import write_cache
from wavesfm_trainer.data.readers.base import Raw
from wavesfm_trainer.data.tasks import Task
rng = np.random.default_rng(0)
raws = [Raw(rng.normal(size=(1, 4, 4)).astype(np.float32), None, f"file{i}") for i in range(10)]
task = Task("plain", "pretraining", "rfs", 1, shares=(0.8, 0.2, 0.0))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    write_cache(Path(sys.argv[1]), task, raws)
except InputError as error:
    sys.stdout.write(str(error))
"""


def test_a_full_disk_while_writing_leaves_nothing(path: Path) -> None:
    """A limit on the size of files fails a write as a full disk does, with another error number.

    In a process of its own: the limit holds for all that a process writes, pytest's own output too.
    """
    done = run_script(FILL_THE_DISK, path)
    assert done.returncode == 0, done.stderr
    assert "disk: found File too large, expected room for" in done.stdout and str(path) in done.stdout
    assert os.listdir(path.parent) == []


def test_a_kill_while_writing_leaves_no_half_cache(path: Path) -> None:
    done = run_script(DIE_WHILE_WRITING, path)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not path.exists()
    with pytest.raises(InputError, match="file"):
        read_cache(path)


def test_truncated_foreign_and_altered_files_are_refused(path: Path) -> None:
    write_cache(path, CLASSES, labelled())
    whole = path.read_bytes()
    for length in (0, 100, len(whole) // 2, len(whole) - 2000):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=str(path)):
            read_cache(path, "train")
    path.write_bytes(b"no cache at all" * 100)
    with pytest.raises(InputError, match="HDF5"):
        read_cache(path)


def altered(path: Path, change) -> None:
    write_cache(path, CLASSES, labelled())
    with h5py.File(path, "r+") as file:
        change(file)


def _without(name: str):
    return lambda file: file.__delitem__(name)


def _replaced(name: str, data):
    def change(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, data=data)

    return change


def _note(**changes):
    def change(file: h5py.File) -> None:
        file.attrs["note"] = json.dumps({**json.loads(file.attrs["note"]), **changes})

    return change


def _claim_gigabytes(file: h5py.File) -> None:
    del file["image"]
    file.create_dataset("image", (40, 2, 4096, 4096), np.float16)
    note = json.loads(file.attrs["note"])
    note["preprocess"].update(height=4096, width=4096)
    file.attrs["note"] = json.dumps(note)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (_without("image"), "image"),
        (_without("target"), "target"),
        (_without("split"), "split"),
        (_replaced("image", np.zeros((40, 2, 16, 15), np.float16)), "image"),
        (_replaced("image", np.zeros((40, 2, 16, 16), np.float64)), "image"),
        (_replaced("target", np.zeros(39, np.int64)), "target"),
        (_replaced("target", np.full(40, 2, np.int64)), "target"),
        (_replaced("target", np.zeros(40, np.float32)), "target"),
        (_claim_gigabytes, "size"),
        (_note(format=2), "format"),
        (_note(preprocess={"kind": "sound"}), "kind"),
        (lambda file: file.attrs.__delitem__("note"), "note"),
    ],
)
def test_what_is_wrong_in_a_cache_is_named(path: Path, change, field: str) -> None:
    altered(path, change)
    with pytest.raises(Exception) as caught:
        read_cache(path, "train")
    assert getattr(caught.value, "field", None) == field, caught.value
    assert str(path) in str(caught.value)


def test_an_unknown_and_an_empty_split(path: Path) -> None:
    write_cache(path, PLAIN, whole_task(PLAIN))
    with pytest.raises(ConfigurationError, match="'val'"):
        read_cache(path, "val")
    with pytest.raises(InputError, match="split test"):
        read_cache(path, "test")


def test_no_folder_for_the_cache(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="folder"):
        write_cache(tmp_path / "none" / "toy.h5", CLASSES, labelled())


SPEC = SpectrogramSpec(fft_size=64, hop_samples=64, frames_averaged=1, rows_per_tile=32, height=16, width=16)


def shards(directory: Path, seed: int, n: int) -> Path:
    rng = np.random.default_rng(seed)
    made = tiles.Tiles(
        rng.integers(0, 200, (n, 16, 16), np.uint8),
        np.arange(n) % len(LABELS),
        np.full(n, 6, np.float32),
        np.full(n, 20, np.float32),
        np.full(n, 32, np.int32),
    )
    directory.mkdir()
    np.savez(directory / "shard-00000.npz", **vars(made))
    note = {"spec": to_dict(SPEC), "labels": LABELS, "drawn": LABELS, "seed": seed}
    (directory / "cache.json").write_text(json.dumps(note))
    return directory


def test_a_directory_of_tiles_is_split_by_number(tmp_path: Path) -> None:
    shards(tmp_path / "tiles", 1, 60)
    everything = read_cache(tmp_path / "tiles")
    parts = [read_cache(tmp_path / "tiles", name) for name in ("train", "validation", "test")]
    assert everything.image.dtype == np.uint8 and everything.image.shape == (60, 1, 16, 16)
    assert sorted(s for part in parts for s in part.source) == sorted(everything.source)
    assert [len(part) for part in parts] == [54, 3, 3]
    assert isinstance(everything.spec, SpectrogramSpec)
    assert len({part.spec for part in parts}) == 1
    np.testing.assert_allclose(parts[0].standardised().mean(), 0, atol=1e-4)
    np.testing.assert_allclose(parts[0].standardised().std(), 1, atol=1e-4)
    assert everything.log10_rate is not None and everything.note["labels"][0] == "noise"


def test_folders_of_tiles_are_the_splits(tmp_path: Path) -> None:
    for seed, (name, n) in enumerate({"train": 40, "validation": 20, "test": 20}.items()):
        shards(tmp_path / name, seed, n)
    train, test = read_cache(tmp_path, "train"), read_cache(tmp_path, "test")
    assert (len(train), len(test)) == (40, 20)
    assert train.spec == test.spec
    np.testing.assert_allclose(train.standardised().mean(), 0, atol=1e-4)
    with pytest.raises(ConfigurationError, match="split"):
        read_cache(tmp_path)


def test_the_specs_kind_travels(path: Path) -> None:
    assert write_cache(path, CLASSES, labelled())["preprocess"]["kind"] == "image"
    assert isinstance(read_cache(path).spec, ImageSpec)


def test_replacing_a_leaking_split_is_noted(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    raws = [replace(raw, group=f"g{i // 2}") for i, raw in enumerate(whole_task(PLACES))]
    with caplog.at_level(logging.WARNING):
        note = write_cache(path, PLACES, raws, split="random")
    assert note["split"]["groups_on_two_sides"] > 0
    assert write_cache(path, PLACES, raws)["split"]["groups_on_two_sides"] == 0


def test_a_file_that_vanishes_while_reading_is_named(path: Path) -> None:
    raws = labelled()
    raws[5].array = lambda: np.fromfile(path.parent / "gone.bin", np.float32)
    with pytest.raises(InputError, match="file5: file: found No such file"):
        write_cache(path, CLASSES, raws)
