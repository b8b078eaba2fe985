# SPDX-License-Identifier: GPL-3.0-or-later
"""Small bundles of images for every task, whose model (tiny_onnx.image_model) every runtime runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from wavesfm_core.bundle.bundle import write_bundle
from wavesfm_core.bundle.golden import Golden
from wavesfm_core.bundle.image_spec import ImageSpec
from wavesfm_core.bundle.spec import BundleSpec, HeadSpec, TensorSpec
from wavesfm_core.preprocess.tile import prepare

from support import tiny_onnx

HEADS = {
    "classification": HeadSpec("classification", labels=("run", "walk", "fall")),
    "position": HeadSpec("position", axes=("x", "y", "z"), low_m=(0.0, -10.0, 1.0), high_m=(80.0, 60.0, 2.0)),
    "channel": HeadSpec("channel", grid=(2, 3, 4), scale=2.0),
}
OUTPUTS = {"classification": "logits", "position": "position", "channel": "channel"}
SPEC = ImageSpec(3, low=-4.0, high=4.0, mean=(0.5, 0.4, 0.6), std=(0.1, 0.2, 0.3), height=32, width=40)


def arrays(n: int, channels: int = 3, rows: int = 21, columns: int = 50) -> list[np.ndarray]:
    """n arrays float32 [channels, rows, columns], the same each time."""
    return list(np.random.default_rng(3).normal(size=(n, channels, rows, columns)).astype(np.float32))


def make_image_bundle(
    directory: Path, task: str, spec: ImageSpec = SPEC, model: bytes | None = None, **changes: object
) -> Path:
    """Write the bundle of a task and return its directory; model: other bytes; changes: of the BundleSpec's fields."""
    head, name = HEADS[task], OUTPUTS[task]
    fields = {
        "name": f"tiny-{task}",
        "preprocess": spec,
        "inputs": (TensorSpec("tile", (-1, *spec.tile_shape), "tile"),),
        "outputs": (TensorSpec(name, (-1, *head.output_shape)),),
        "head": head,
        "sha256": "",
        "tolerance": 1e-3,
        "rates_hz": (0.0, 0.0),
        "licence": "CC0-1.0",
        "training_data": "none",
    }
    golden_arrays = tuple(arrays(2, spec.channels))
    tiles = tuple(prepare(array, spec) for array in golden_arrays)
    outputs = {name: tiny_onnx.image_oracle(np.stack(tiles), head.output_shape)}
    onnx = tiny_onnx.image_model(spec.tile_shape, head.output_shape, name) if model is None else model
    golden = Golden(tuple(golden_arrays), np.zeros(2), tiles, outputs)
    return write_bundle(directory, BundleSpec(**{**fields, **changes}), onnx, golden, "# tiny\n").path
