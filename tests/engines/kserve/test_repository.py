# SPDX-License-Identifier: GPL-3.0-or-later
"""Model repositories; test_triton.py has a server read one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.tiny_bundles import make_image_bundle
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.engines.kserve.repository import RepositoryOptions, export_repository, triton_config
from wavesfm_core.errors import BundleError, ConfigurationError


def test_files_of_a_repository(fake_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(fake_bundle)
    folder = export_repository(bundle, tmp_path / "new" / "repository")
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    assert found == ["1", "1/model.onnx", "config.pbtxt", "labels.txt"]
    assert (folder / "1" / "model.onnx").read_bytes() == bundle.model_path.read_bytes()
    assert (folder / "labels.txt").read_text() == "noise\nleft\nright\n"
    config = (folder / "config.pbtxt").read_text()
    assert '{ name: "tile" data_type: TYPE_FP32 dims: [ 1, 224, 224 ] }' in config
    assert '{ name: "logits" data_type: TYPE_FP32 dims: [ 3 ] label_filename: "labels.txt" }' in config
    assert bundle.spec.sha256 in config


def test_a_version_is_never_written_over(fake_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(fake_bundle)
    export_repository(bundle, tmp_path)
    with pytest.raises(ConfigurationError, match="version: found a folder that exists"):
        export_repository(bundle, tmp_path)
    folder = export_repository(bundle, tmp_path, RepositoryOptions(version=2, max_batch=8, device="gpu"))
    assert (folder / "1" / "model.onnx").exists() and (folder / "2" / "model.onnx").exists()
    assert "max_batch_size: 8" in (folder / "config.pbtxt").read_text()
    assert "KIND_GPU" in (folder / "config.pbtxt").read_text()


def test_outputs_without_labels(tmp_path: Path) -> None:
    bundle = Bundle.open(make_image_bundle(tmp_path / "b", "position"))
    folder = export_repository(bundle, tmp_path / "r")
    assert not (folder / "labels.txt").exists()
    assert "label_filename" not in (folder / "config.pbtxt").read_text()


def test_names_are_escaped(fake_bundle: Path) -> None:
    config = triton_config(Bundle.open(fake_bundle), 'a"b\\c\n', RepositoryOptions())
    assert config.splitlines()[0] == r'name: "a\042b\134c\012"'


def test_a_model_that_was_changed_is_not_exported(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    bundle = Bundle.open(make_bundle(tmp_path / "b"))
    bundle.model_path.write_bytes(bundle.model_path.read_bytes() + b"\0")
    with pytest.raises(BundleError, match="sha256"):
        export_repository(bundle, tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"name": "a/b"}, "name"),
        ({"version": 0}, "version"),
        ({"max_batch": 0}, "max_batch"),
        ({"device": "x"}, "device"),
    ],
)
def test_wrong_options(options: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigurationError, match=f"repository: {field}: found"):
        RepositoryOptions(**options)  # type: ignore[arg-type]


def test_a_place_that_cannot_be_written(fake_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="repository: found"):
        export_repository(Bundle.open(fake_bundle), tmp_path / "file")
