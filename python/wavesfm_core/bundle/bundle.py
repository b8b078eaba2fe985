# SPDX-License-Identifier: GPL-3.0-or-later
"""Bundles, the directories that pass from trainer to radio: model.onnx, bundle.json, golden.npz, README.md.

A bundle of pilot grids may also have covariances.npz.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..errors import BundleError, ConfigurationError, InputError
from ..hashing import file_sha256
from .covariance import FILE_LIMIT, Covariances
from .golden import GOLDEN_LIMIT, Golden
from .model_file import check_model_file
from .pilot_grid_spec import PilotGridSpec
from .preprocess_spec import PreprocessSpec
from .spec import BundleSpec, from_dict, to_dict

log = logging.getLogger(__name__)

P = TypeVar("P", bound=PreprocessSpec)

SCHEMA_VERSION = 1
MODEL, SPEC, GOLDEN, README = "model.onnx", "bundle.json", "golden.npz", "README.md"
LIMITS = {MODEL: 2 << 30, SPEC: 1 << 20, GOLDEN: GOLDEN_LIMIT, README: 1 << 20}
"""Most bytes of each file of a bundle."""
COVARIANCES = "covariances.npz"
"""Optional file."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files were checked by `open`."""

    path: Path
    """Its directory."""
    spec: BundleSpec
    """Contents of bundle.json."""
    id: str
    """Name, "@" and the first 12 digits of the model's sha256; part of every prediction."""
    model_path: Path
    """The ONNX file."""

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Read and check a bundle without running its model.

        Checked are the files and their sizes, the schema version, every field, the hashes, the tensors against the
        head, and that the model is self-contained (see `model_file`). `engines.verify` runs the golden tiles.

        Parameters
        ----------
        path : str or Path
            Directory of the bundle.

        Raises
        ------
        BundleError
            Names the file and the field.
        """
        directory = Path(path)
        if not directory.is_dir():
            found = "a file" if directory.exists() else "nothing"
            raise BundleError(directory, "bundle", found, "a directory with " + ", ".join(LIMITS))
        for name, limit in LIMITS.items():
            _check_file(directory / name, limit)
        spec = read_spec(directory / SPEC)
        _require_hash(directory / MODEL, spec.sha256)
        check_model_file(directory / MODEL)
        if spec.covariances:
            _check_file(directory / COVARIANCES, FILE_LIMIT)
            _require_hash(directory / COVARIANCES, spec.covariances)
        return cls(directory, spec, f"{spec.name}@{spec.sha256[:12]}", directory / MODEL)

    def require_model(self) -> None:
        """Raise BundleError if the model's file was changed after `open`."""
        _check_file(self.model_path, LIMITS[MODEL])
        _require_hash(self.model_path, self.spec.sha256)

    def preprocess_as(self, kind: type[P], reason: str) -> P:
        """The preprocessing, where it is of one kind.

        Parameters
        ----------
        kind : type of PreprocessSpec
            The kind that the caller needs.
        reason : str
            Why, for the error: "IQ is to be read".

        Raises
        ------
        ConfigurationError
            The bundle is of another kind.
        """
        preprocess = self.spec.preprocess
        if isinstance(preprocess, kind):
            return preprocess
        found, expected = (f"{name.replace('_', ' ')}s" for name in (preprocess.kind, kind.kind))
        raise ConfigurationError(self.path, "preprocess", f"a model for {found}", f"one for {expected}, since {reason}")

    def golden(self) -> Golden:
        """Read the golden tiles and check them against the spec; raises BundleError."""
        golden = Golden.load(self.path / GOLDEN, self.spec.preprocess.input_name)
        golden.check(self.spec, self.path / GOLDEN)
        return golden

    def covariances(self) -> Covariances:
        """Read the covariances of the training channels; raises BundleError where there are none or invalid ones."""
        path = self.path / COVARIANCES
        if not self.spec.covariances:
            raise BundleError(path, "covariances", "nothing", "a bundle of pilot grids that has them")
        numerology = self.preprocess_as(PilotGridSpec, "covariances are asked for").numerology
        try:
            covariances = Covariances.load(path)
            covariances.require(numerology)
        except InputError as error:
            raise BundleError(error.where, error.field, error.found, error.expected) from error
        return covariances


def read_spec(path: Path) -> BundleSpec:
    """Read bundle.json strictly; raises BundleError, naming the field, also for an unknown schema version."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(path, "contents", f"no JSON ({error})"[:200], "a JSON object") from None
    if not isinstance(values, dict):
        raise BundleError(path, "contents", type(values).__name__, "a JSON object")
    version = values.pop("schema_version", "nothing")
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise BundleError(path, "schema_version", version, f"{SCHEMA_VERSION}, the only one that this release knows")
    spec = from_dict(BundleSpec, values, str(path))
    _check_consistency(spec, path)
    return spec


def write_bundle(
    directory: str | Path,
    spec: BundleSpec,
    onnx: bytes,
    golden: Golden,
    readme: str,
    covariances: Covariances | None = None,
) -> Bundle:
    """Write a bundle atomically and open it.

    Parameters
    ----------
    directory : str or Path
        A new or empty directory, or a bundle to replace.
    spec : BundleSpec
        Contents of bundle.json; its hashes are computed here.
    onnx : bytes
        The ONNX file.
    golden : Golden
        Golden inputs, tiles and outputs.
    readme : str
        The model card.
    covariances : Covariances, optional
        Of the training channels, for pilot grids only.

    Returns
    -------
    Bundle
        The bundle, opened.

    Raises
    ------
    BundleError
        Contradicting parts, other files in the directory, or a directory that cannot be written.
    """
    target = Path(directory)
    if target.exists() and not (target / SPEC).is_file() and (not target.is_dir() or any(target.iterdir())):
        raise BundleError(target, "directory", "other files", "a new directory or a bundle to replace")
    extra = b"" if covariances is None else covariances.to_bytes()
    hashed = hashlib.sha256(extra).hexdigest() if extra else ""
    spec = dataclasses.replace(spec, sha256=hashlib.sha256(onnx).hexdigest(), covariances=hashed)
    _check_consistency(spec, target / SPEC)
    golden.check(spec, target / GOLDEN)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
            fresh = Path(scratch) / "new"
            fresh.mkdir()
            (fresh / MODEL).write_bytes(onnx)
            values = {"schema_version": SCHEMA_VERSION, **to_dict(spec)}
            (fresh / SPEC).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
            golden.save(fresh / GOLDEN, spec.preprocess.input_name)
            (fresh / README).write_text(readme, encoding="utf-8")
            if extra:
                (fresh / COVARIANCES).write_bytes(extra)
            written = Bundle.open(fresh)
            if extra:
                written.covariances()
            _swap(fresh, target, Path(scratch) / "old")
    except OSError as error:
        raise BundleError(target, "directory", error.strerror or str(error), "a place that can be written") from error
    return Bundle.open(target)


def bundle_inputs(spec: BundleSpec, tiles: np.ndarray, rates_hz: Any, snr_db: Any = None) -> dict[str, np.ndarray]:
    """Arrange a batch as the model's inputs.

    Parameters
    ----------
    spec : BundleSpec
        Contract of the bundle.
    tiles : ndarray
        Prepared tiles, float32 [B, C, H, W].
    rates_hz : array_like
        Sample rates [B]; 0 for unknown.
    snr_db : array_like, optional
        Signal-to-noise ratios in dB [B], as `observe` measures them.

    Returns
    -------
    dict of str to ndarray
        By the name of the input: the tiles, and log10 of the rates (0 for unknown) and the ratios as float32 [B, 1].

    Raises
    ------
    ConfigurationError
        The model has an input for the ratio and there is none.
    """
    rates = np.asarray(rates_hz, np.float64).reshape(-1, 1)
    log10_rate = np.log10(rates, out=np.zeros_like(rates), where=rates > 0).astype(np.float32)
    sources = {"tile": np.ascontiguousarray(tiles, np.float32), "log10_rate": log10_rate}
    if snr_db is not None:
        sources["snr_db"] = np.asarray(snr_db, np.float32).reshape(-1, 1)
    elif any(tensor.source == "snr_db" for tensor in spec.inputs):
        raise ConfigurationError(f"bundle {spec.name}", "snr_db", "nothing", "one number for each tile")
    return {tensor.name: sources[tensor.source] for tensor in spec.inputs}


def _check_file(path: Path, limit: int) -> None:
    if not path.is_file():
        raise BundleError(path, "file", "nothing", "a bundle has " + ", ".join(LIMITS))
    size = path.stat().st_size
    if size == 0 or size > limit:
        raise BundleError(path, "size", f"{size} bytes", f"1 to {limit} bytes")


_OUTPUTS = {
    "classification": "one logit for each label",
    "position": "one coordinate for each axis",
    "channel": "real and imaginary parts by antenna, symbol after symbol",
}


def _check_consistency(spec: BundleSpec, path: Path) -> None:
    """Raise BundleError where fields contradict each other."""
    preprocess = spec.preprocess
    shapes: dict[str, tuple[int, ...]] = {"tile": (-1, *preprocess.tile_shape)}
    shapes |= dict.fromkeys(preprocess.side_inputs, (-1, 1))
    if spec.head.task not in preprocess.tasks:
        expected = f"{' or '.join(preprocess.tasks)}, for {preprocess.kind.replace('_', ' ')}s"
        raise BundleError(path, "head.task", spec.head.task, expected)
    if preprocess.channel_grid not in (None, tuple(spec.head.grid)):
        expected = f"{preprocess.channel_grid}, as the numerology has"
        raise BundleError(path, "head.grid", tuple(spec.head.grid), expected)
    if spec.covariances and not preprocess.has_covariances:
        raise BundleError(path, "covariances", spec.covariances, "none: only bundles of pilot grids have them")
    for tensor in spec.inputs:
        if tensor.source not in shapes:
            raise BundleError(
                path, f"inputs.{tensor.name}.source", tensor.source or "nothing", "one of " + ", ".join(shapes)
            )
        if tensor.shape != shapes[tensor.source]:
            raise BundleError(path, f"inputs.{tensor.name}.shape", tensor.shape, f"{shapes[tensor.source]}")
    if "tile" not in [tensor.source for tensor in spec.inputs]:
        raise BundleError(path, "inputs", "no input with source tile", "one")
    names = [tensor.name for tensor in (*spec.inputs, *spec.outputs)]
    if len(set(names)) != len(names):
        raise BundleError(path, "tensor names", names, "different names")
    shape = (-1, *spec.head.output_shape)
    if not spec.outputs or spec.outputs[0].shape != shape:
        found = spec.outputs[0].shape if spec.outputs else "nothing"
        raise BundleError(path, "outputs[0].shape", found, f"{shape}, {_OUTPUTS[spec.head.task]}")
    if not (np.isfinite(spec.tolerance) and spec.tolerance > 0):
        raise BundleError(path, "tolerance", spec.tolerance, "a positive number")


def _require_hash(path: Path, expected: str) -> None:
    digest = file_sha256(path)
    if digest != expected:
        raise BundleError(path, "sha256", digest, expected + " as bundle.json says")


def _swap(fresh: Path, target: Path, old: Path) -> None:
    """Replace `target` by `fresh`; on failure `target` is restored."""
    replaces = target.exists()
    if replaces:
        os.rename(target, old)
    try:
        os.rename(fresh, target)
    except OSError:
        if replaces:
            os.rename(old, target)
        raise
    if replaces:
        shutil.rmtree(old)
