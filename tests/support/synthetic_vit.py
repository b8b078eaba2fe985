# SPDX-License-Identifier: GPL-3.0-or-later
"""A vision transformer of any size with random weights, as torch exports one, written without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from wavesfm_core.bundle.bundle import Bundle, write_bundle
from wavesfm_core.bundle.golden import Golden
from wavesfm_core.bundle.image_spec import ImageSpec
from wavesfm_core.bundle.spec import BundleSpec, HeadSpec, TensorSpec
from wavesfm_core.preprocess.tile import prepare

PAPER = {"depth": 12, "width": 512, "heads": 8, "side": 224, "channels": 1}
SMALL = {"depth": 2, "width": 32, "heads": 4, "side": 32, "channels": 2}
PATCH = 16


def vit(depth: int, width: int, heads: int, side: int, channels: int, labels: int = 3, scale: float = 1.0) -> bytes:
    """ONNX bytes: tile [B, channels, side, side] -> logits [B, labels]; scale: of the first block's weights."""
    rng = np.random.default_rng(depth * width)
    rows, area, head = side // PATCH, PATCH * PATCH * channels, width // heads
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, np.ndarray] = {}

    def const(name: str, value: object, dtype: str = "f4") -> str:
        constants[name] = np.asarray(value, dtype)
        return name

    def op(kind: str, *inputs: str, name: str = "", **attributes: object) -> str:
        output = name or f"{kind.lower()}_{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def reshape(x: str, *shape: int) -> str:
        return op("Reshape", x, const(f"shape_{len(nodes)}", shape, "i8"))

    def norm(x: str, name: str) -> str:
        pair = const(f"{name}.weight", np.ones(width)), const(f"{name}.bias", np.zeros(width))
        return op("LayerNormalization", x, *pair, axis=-1, epsilon=1e-6)

    def linear(x: str, name: str, n_in: int, n_out: int, factor: float = 1.0) -> str:
        weight = const(f"{name}.weight", factor * rng.normal(size=(n_in, n_out)) / np.sqrt(n_in))
        bias = const(f"{name}.bias", 0.1 * rng.normal(size=n_out))
        return op("Add", op("MatMul", x, weight), bias, name=name)

    def block(x: str, name: str, factor: float) -> str:
        qkv = reshape(linear(norm(x, f"{name}.norm1"), f"{name}.qkv", width, 3 * width, factor), 0, -1, 3, heads, head)
        moved = op("Transpose", qkv, perm=[2, 0, 3, 1, 4])
        q, k, v = (op("Gather", moved, const(f"row_{i}", i, "i8"), axis=0) for i in range(3))
        root = const("root", head**-0.25)
        scores = op("MatMul", op("Mul", q, root), op("Mul", op("Transpose", k, perm=[0, 1, 3, 2]), root))
        mixed = op("Transpose", op("MatMul", op("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
        x = op("Add", x, linear(reshape(mixed, 0, -1, width), f"{name}.proj", width, width))
        hidden = op("Gelu", linear(norm(x, f"{name}.norm2"), f"{name}.fc1", width, 4 * width))
        return op("Add", x, linear(hidden, f"{name}.fc2", 4 * width, width))

    x = op("Transpose", reshape("tile", 0, channels, rows, PATCH, rows, PATCH), perm=[0, 2, 4, 3, 5, 1])
    x = linear(reshape(x, 0, rows * rows, area), "patch_embed", area, width)
    x = op("Add", x, const("positions", 0.1 * rng.normal(size=(1, rows * rows, width))))
    for i in range(depth):
        x = block(x, f"blocks.{i}", scale if i == 0 else 1.0)
    token = op("Gather", norm(x, "norm"), const("row_0", 0, "i8"), axis=1)
    head_weight = const("head.weight", rng.normal(size=(labels, width)) / np.sqrt(width))
    op("Gemm", token, head_weight, const("head.bias", np.zeros(labels)), name="logits", transB=1)
    graph = helper.make_graph(
        nodes,
        "vit",
        [helper.make_tensor_value_info("tile", onnx.TensorProto.FLOAT, ["batch", channels, side, side])],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", labels])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


def make_bundle(directory: Path, outputs: np.ndarray | None = None, **size: int) -> Bundle:
    """The bundle of such a model; outputs: golden logits [2, 3], None: onnxruntime's."""
    side, channels = size["side"], size["channels"]
    spec = ImageSpec(channels, -4.0, 4.0, (0.5,) * channels, (0.125,) * channels, height=side, width=side)
    arrays = tuple(np.random.default_rng(8).normal(size=(2, channels, side, side)).astype(np.float32))
    tiles = tuple(prepare(array, spec) for array in arrays)
    model = vit(**size)
    if outputs is None:
        outputs = run(model, np.stack(tiles))
    bundle = BundleSpec(
        name="synthetic-vit",
        preprocess=spec,
        inputs=(TensorSpec("tile", (-1, *spec.tile_shape), "tile"),),
        outputs=(TensorSpec("logits", (-1, 3)),),
        head=HeadSpec("classification", labels=("a", "b", "c")),
        sha256="",
        tolerance=1e-3,
        rates_hz=(0.0, 0.0),
        licence="CC0-1.0",
        training_data="none",
    )
    golden = Golden(tuple(arrays), np.zeros(2), tiles, {"logits": outputs})
    return write_bundle(directory, bundle, model, golden, "# synthetic\n")


def run(model: bytes, tiles: np.ndarray) -> np.ndarray:
    """The logits, by onnxruntime; skips where there is none."""
    import pytest

    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"tile": tiles})[0]


def counts(model: bytes) -> dict[str, int]:
    """How often each operator is there."""
    found: dict[str, int] = {}
    for node in onnx.load_model_from_string(model).graph.node:
        found[node.op_type] = found.get(node.op_type, 0) + 1
    return found
