# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles: what is written is read, what is wrong is refused by name, and nothing is half written."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.tiny_grids import SMALL, covariances, make_grid_bundle
from wavesfm_core.bundle.bundle import Bundle, bundle_inputs, write_bundle
from wavesfm_core.bundle.golden import Golden
from wavesfm_core.engines import open_engine
from wavesfm_core.engines.fake import FakeEngine
from wavesfm_core.engines.verify import replay_golden
from wavesfm_core.errors import BundleError, ConfigurationError


@pytest.fixture
def copy(fake_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(fake_bundle, tmp_path / "copy"))


def edit(bundle: Path, change: Callable[[dict], object]) -> None:
    values = json.loads((bundle / "bundle.json").read_text())
    change(values)
    (bundle / "bundle.json").write_text(json.dumps(values))


def edit_golden(bundle: Path, change: Callable[[dict], object]) -> None:
    with np.load(bundle / "golden.npz") as archive:
        arrays = dict(archive)
    change(arrays)
    np.savez_compressed(bundle / "golden.npz", **arrays)


def test_open_reads_what_was_written(fake_bundle: Path) -> None:
    bundle = Bundle.open(fake_bundle)
    assert bundle.spec.head.labels == ("noise", "left", "right")
    assert bundle.spec.preprocess.tile_samples == 2048
    assert bundle.id == "fake@" + bundle.spec.sha256[:12]
    assert bundle.model_path.read_bytes()[:1] == b"\x08"
    assert (fake_bundle / "README.md").read_text() == "# fake\n"
    assert [len(iq) for iq in bundle.golden().inputs] == [2048, 700]


@pytest.mark.parametrize("name", ["model.onnx", "bundle.json", "golden.npz", "README.md"])
def test_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=rf"{name}: file: found nothing"):
        Bundle.open(copy)


@pytest.mark.parametrize("name", ["model.onnx", "bundle.json", "golden.npz"])
def test_empty_file_is_named(copy: Path, name: str) -> None:
    (copy / name).write_bytes(b"")
    with pytest.raises(BundleError, match=rf"{name}: size: found 0 bytes"):
        Bundle.open(copy)


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"found nothing, expected a directory"):
        Bundle.open(tmp_path / "none")


@pytest.mark.parametrize("version", [0, 2, "1", None, True])
def test_unknown_schema_version_is_named(copy: Path, version: object) -> None:
    edit(copy, lambda values: values.update(schema_version=version))
    with pytest.raises(BundleError, match=rf"schema_version: found {version}, expected 1"):
        Bundle.open(copy)


@pytest.mark.parametrize("key", ["preprocess", "inputs", "outputs", "head", "sha256", "tolerance", "rates_hz", "name"])
def test_missing_key_is_named(copy: Path, key: str) -> None:
    edit(copy, lambda values: values.pop(key))
    with pytest.raises(BundleError, match=rf"bundle.json: {key}: found nothing"):
        Bundle.open(copy)


WRONG = {
    "labels": (lambda v: v["head"]["labels"].append("more"), r"outputs\[0\].shape"),
    "tile shape": (lambda v: v["inputs"][0].update(shape=[-1, 1, 100, 224]), "inputs.tile.shape"),
    "no tile": (lambda v: v["inputs"].pop(0), "no input with source tile"),
    "no source": (lambda v: v["inputs"][1].update(source=""), "inputs.log10_rate.source"),
    "twice": (lambda v: v["inputs"][1].update(name="tile"), "tensor names"),
    "tolerance": (lambda v: v.update(tolerance=0), "tolerance: found 0"),
    "type": (lambda v: v["preprocess"].update(fft_size="64"), "fft_size: found '64'"),
    "rule": (lambda v: v["preprocess"].update(fft_size=63), "fft_size: found 63"),
    "unknown": (lambda v: v.update(surprise=1), "surprise: found a field that is not known"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_field_is_named(copy: Path, case: str) -> None:
    change, message = WRONG[case]
    edit(copy, change)
    with pytest.raises(BundleError, match=message):
        Bundle.open(copy)


@pytest.mark.parametrize("text", ["", "{", "[]", "\ufeff{}", '{"schema_version": 1, "a": ' + "[" * 100000])
def test_bundle_json_that_is_none(copy: Path, text: str) -> None:
    (copy / "bundle.json").write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match=r"bundle.json"):
        Bundle.open(copy)


def test_altered_model_has_another_hash(copy: Path) -> None:
    data = bytearray((copy / "model.onnx").read_bytes())
    data[-1] ^= 1
    (copy / "model.onnx").write_bytes(data)
    with pytest.raises(BundleError, match=r"model.onnx: sha256: found [0-9a-f]{64}, expected [0-9a-f]{64}"):
        Bundle.open(copy)


def test_bundle_json_too_large_is_not_read(copy: Path) -> None:
    with (copy / "bundle.json").open("ab") as file:
        file.truncate((1 << 20) + 1)
    with pytest.raises(BundleError, match=r"bundle.json: size: found 1048577 bytes"):
        Bundle.open(copy)


def test_replay_passes_where_outputs_agree(fake_bundle: Path) -> None:
    bundle = Bundle.open(fake_bundle)
    engine = Scripted(bundle, bundle.golden().outputs["logits"] + np.float32(9e-4))
    report = replay_golden(bundle, engine)
    assert report.tiles == 2
    assert report.prepare_difference == 0
    assert report.engine_difference == pytest.approx(9e-4, rel=1e-2)


class Scripted(FakeEngine):
    """Answers with given logits."""

    def __init__(self, bundle: Bundle, logits: np.ndarray, relative_tolerance: float = 0.0) -> None:
        super().__init__(bundle)
        self.logits, self.relative_tolerance = logits, relative_tolerance

    def run(self, inputs: dict) -> dict:
        return {"logits": self.logits}


@pytest.mark.parametrize("wrong", [2e-3, np.nan, np.inf])
def test_replay_names_the_engine_stage(fake_bundle: Path, wrong: float) -> None:
    bundle = Bundle.open(fake_bundle)
    logits = bundle.golden().outputs["logits"].copy()
    logits[1, 2] += wrong
    with pytest.raises(BundleError, match=r"golden stage engine \(fake\), output logits: found a difference of"):
        replay_golden(bundle, Scripted(bundle, logits))


def test_an_engine_of_lower_precision_may_differ_by_a_part_of_the_largest_output(fake_bundle: Path) -> None:
    bundle = Bundle.open(fake_bundle)
    logits = bundle.golden().outputs["logits"]
    largest = np.abs(logits).max()
    replay_golden(bundle, Scripted(bundle, logits + np.float32(0.009 * largest), relative_tolerance=0.01))
    with pytest.raises(BundleError, match=r"golden stage engine"):
        replay_golden(bundle, Scripted(bundle, logits + np.float32(0.011 * largest), relative_tolerance=0.01))


def test_replay_names_the_prepare_stage(copy: Path) -> None:
    def shift(arrays: dict) -> None:
        arrays["tile_1"][0, 100, 100] += 0.05

    edit_golden(copy, shift)
    bundle = Bundle.open(copy)
    engine = Scripted(bundle, bundle.golden().outputs["logits"])
    with pytest.raises(BundleError, match=r"golden stage prepare: found a difference of 0.05, expected at most 0.02"):
        replay_golden(bundle, engine)


WRONG_GOLDEN = {
    "rates": (lambda a: a.pop("rate_hz"), "rate_hz: found nothing"),
    "tile": (lambda a: a.pop("tile_1"), "tile_1: found nothing"),
    "iq": (lambda a: a.pop("iq_0"), "iq_0: found nothing"),
    "output": (lambda a: a.pop("out_logits"), "out_logits: found nothing"),
    "tile shape": (lambda a: a.update(tile_0=a["tile_0"][:, :, :5]), r"tile_0: found float32 \(1, 224, 5\)"),
    "tile dtype": (lambda a: a.update(tile_0=a["tile_0"].astype("f8")), "tile_0: found float64"),
    "output shape": (lambda a: a.update(out_logits=a["out_logits"][:1]), r"out_logits: found float32 \(1, 3\)"),
    "iq dtype": (lambda a: a.update(iq_1=a["iq_1"].real), "iq_1: found float32"),
}


@pytest.mark.parametrize("case", WRONG_GOLDEN)
def test_wrong_golden_array_is_named(copy: Path, case: str) -> None:
    change, message = WRONG_GOLDEN[case]
    edit_golden(copy, change)
    with pytest.raises(BundleError, match=message):
        Bundle.open(copy).golden()


def member(shape: tuple[int, ...], descr: str, payload: bytes) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": descr, "fortran_order": False, "shape": shape})
    return out.getvalue() + payload


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (member((1 << 40,), "<f8", b"1234"), "8796093022208 bytes in a member of"),
        (member((1 << 40, 1 << 40), "<f8", b""), "bytes in a member of"),
        (member((1,), "|O", b"cos\nsystem\n(S'false'\ntR."), "Python objects"),
        (b"no array", "an unreadable archive"),
    ],
)
def test_golden_headers_are_not_trusted(tmp_path: Path, content: bytes, message: str) -> None:
    with zipfile.ZipFile(tmp_path / "golden.npz", "w") as archive:
        archive.writestr("rate_hz.npy", content)
    with pytest.raises(BundleError, match=message):
        Golden.load(tmp_path / "golden.npz", "iq")


def test_golden_that_would_unpack_to_too_much(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "golden.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("rate_hz.npy", bytes(65 << 20))
    with pytest.raises(BundleError, match=r"size of the arrays"):
        Golden.load(tmp_path / "golden.npz", "iq")


@pytest.mark.parametrize("cut", [1, 100, 2000])
def test_truncated_golden(copy: Path, cut: int) -> None:
    data = (copy / "golden.npz").read_bytes()
    (copy / "golden.npz").write_bytes(data[:-cut])
    with pytest.raises(BundleError, match=r"golden.npz"):
        Bundle.open(copy).golden()


def test_rewriting_replaces_the_bundle_and_leaves_nothing_else(copy: Path) -> None:
    bundle = Bundle.open(copy)
    (copy / "stale").write_text("x")
    again = write_bundle(copy, bundle.spec, bundle.model_path.read_bytes() + b"\x12\x00", bundle.golden(), "new")
    assert again.id != bundle.id
    assert sorted(os.listdir(copy)) == ["README.md", "bundle.json", "golden.npz", "model.onnx"]
    assert os.listdir(copy.parent) == ["copy"]


def test_a_refused_write_leaves_the_old_bundle(copy: Path) -> None:
    bundle = Bundle.open(copy)
    golden = bundle.golden()
    with pytest.raises(BundleError, match=r"tile_0"):
        wrong = Golden(golden.inputs, golden.rate_hz, tuple(t[:, 1:] for t in golden.tiles), golden.outputs)
        write_bundle(copy, bundle.spec, b"other", wrong, "new")
    with pytest.raises(BundleError, match=r"model.onnx: size: found 0 bytes"):
        write_bundle(copy, bundle.spec, b"", golden, "new")
    assert Bundle.open(copy) == bundle
    assert os.listdir(copy.parent) == ["copy"]


def test_a_directory_of_other_things_is_not_replaced(fake_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all of it")
    bundle = Bundle.open(fake_bundle)
    with pytest.raises(BundleError, match=r"other files"):
        write_bundle(tmp_path, bundle.spec, b"x", bundle.golden(), "")
    assert (tmp_path / "thesis.txt").read_text() == "all of it"


def test_a_place_that_cannot_be_written(fake_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    bundle = Bundle.open(fake_bundle)
    with pytest.raises(BundleError, match=r"expected a place that can be written"):
        write_bundle(tmp_path / "file" / "bundle", bundle.spec, b"x", bundle.golden(), "")


@pytest.fixture(scope="module")
def grid_bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each layout; the first with covariances."""
    directory = tmp_path_factory.mktemp("grids")
    covs = covariances(SMALL)
    return {
        "least_squares": make_grid_bundle(directory / "ls", covs=covs),
        "image": make_grid_bundle(directory / "image", layout="image"),
    }


@pytest.mark.parametrize("layout", ["least_squares", "image"])
def test_a_bundle_of_pilot_grids_is_read_as_written(grid_bundles: dict[str, Path], layout: str) -> None:
    bundle = Bundle.open(grid_bundles[layout])
    preprocess = bundle.spec.preprocess
    assert (preprocess.kind, preprocess.layout, preprocess.numerology) == ("pilot_grid", layout, SMALL)
    golden = bundle.golden()
    assert [grid.shape for grid in golden.inputs] == [SMALL.grid_shape] * 2
    report = replay_golden(bundle, open_engine(bundle, "cpu", precision="f32"))
    assert report.prepare_difference == 0 and report.engine_difference < 1e-4


def test_replay_of_grids_notices_another_snr(grid_bundles: dict[str, Path], tmp_path: Path) -> None:
    """The tiny model adds the SNR: a golden output made with another one is found out."""
    path = Path(shutil.copytree(grid_bundles["least_squares"], tmp_path / "copy"))
    edit_golden(path, lambda arrays: arrays.update(out_channel=arrays["out_channel"] + np.float32(0.01)))
    bundle = Bundle.open(path)
    with pytest.raises(BundleError, match="golden stage engine"):
        replay_golden(bundle, open_engine(bundle, "cpu", precision="f32"))


def test_covariances_travel_in_the_bundle(grid_bundles: dict[str, Path]) -> None:
    covs = Bundle.open(grid_bundles["least_squares"]).covariances()
    assert np.allclose(covs.frequency, covariances(SMALL).frequency, atol=1e-6)
    with pytest.raises(BundleError, match=r"covariances.npz: covariances: found nothing"):
        Bundle.open(grid_bundles["image"]).covariances()
    assert "covariances" not in json.loads((grid_bundles["image"] / "bundle.json").read_text())


def test_covariances_of_another_numerology_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="space: found 3 x 3, expected 2 x 2, as the numerology has"):
        make_grid_bundle(tmp_path / "b", covs=covariances(dataclasses.replace(SMALL, antennas=3)))
    assert not (tmp_path / "b").exists()


def test_covariances_that_are_missing_are_named(grid_bundles: dict[str, Path], tmp_path: Path) -> None:
    path = Path(shutil.copytree(grid_bundles["least_squares"], tmp_path / "copy"))
    (path / "covariances.npz").unlink()
    with pytest.raises(BundleError, match=r"covariances.npz: file: found nothing"):
        Bundle.open(path)


WRONG_GRIDS = {
    "numerology": (
        lambda v: v["preprocess"]["numerology"].update(antennas=3),
        r"head.grid: found \(2, 4",
    ),
    "contradiction": (lambda v: v["preprocess"]["numerology"].update(fft_size=8), "numerology.subcarriers: found 12"),
    "layout": (
        lambda v: v["preprocess"].update(layout="picture"),
        "layout: found 'picture', expected one of image, lea",
    ),
    "image missing": (
        lambda v: v["preprocess"].update(layout="image"),
        "image: found None, expected an image of 2 cha",
    ),
    "snr shape": (lambda v: v["inputs"][1].update(shape=[-1, 2]), r"inputs.snr_db.shape: found \(-1, 2\)"),
    "rate": (
        lambda v: v["inputs"][1].update(source="log10_rate"),
        "inputs.snr_db.source: found log10_rate, expected o",
    ),
    "kind": (
        lambda v: v["preprocess"].update(kind="grid"),
        "kind: found 'grid', expected one of spectrogram, image, p",
    ),
}


@pytest.mark.parametrize("case", WRONG_GRIDS)
def test_a_wrong_field_of_pilot_grids_is_named(grid_bundles: dict[str, Path], tmp_path: Path, case: str) -> None:
    path = Path(shutil.copytree(grid_bundles["least_squares"], tmp_path / "copy"))
    change, message = WRONG_GRIDS[case]
    edit(path, change)
    with pytest.raises(BundleError, match=message):
        Bundle.open(path)


def test_covariances_beside_spectrograms_are_refused(copy: Path) -> None:
    edit(copy, lambda values: values.update(covariances="0" * 64))
    with pytest.raises(BundleError, match=r"covariances: found 0+, expected none: only bundles of pilot grids"):
        Bundle.open(copy)


def test_golden_grids_of_another_shape_are_named(grid_bundles: dict[str, Path], tmp_path: Path) -> None:
    path = Path(shutil.copytree(grid_bundles["image"], tmp_path / "copy"))
    edit_golden(path, lambda arrays: arrays.update(grid_1=arrays["grid_1"][:, :, :-1]))
    with pytest.raises(BundleError, match=r"grid_1: found complex64 \(2, 4, 11\), expected complex64 \[2, 4, 12\]"):
        Bundle.open(path).golden()


def test_a_model_that_asks_for_an_snr_gets_one(grid_bundles: dict[str, Path]) -> None:
    spec = Bundle.open(grid_bundles["least_squares"]).spec
    with pytest.raises(ConfigurationError, match="snr_db: found nothing, expected one number for each tile"):
        bundle_inputs(spec, np.zeros((2, 4, 2, 12), np.float32), [0, 0])
