# SPDX-License-Identifier: GPL-3.0-or-later
"""A tiny ONNX model written byte by byte, so that tests need neither torch nor onnx, and the same model in numpy.

logits [B, L] = concat(flatten(average_pool_4x4(tile)), log10_rate) @ weights + bias
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

GRID = 4  # pooled cells in each direction


def weights(n_labels: int) -> tuple[np.ndarray, np.ndarray]:
    """[GRID * GRID + 1, L] and [L]: label 1 lights up with the left (negative) half of the spectrum, label 2 with the
    right half, label 0 with neither; further labels stay below."""
    matrix = np.zeros((GRID * GRID + 1, n_labels), np.float32)
    columns = np.arange(GRID * GRID) % GRID
    matrix[:-1, 1] = 2.0 * (columns < GRID // 2)
    if n_labels > 2:
        matrix[:-1, 2] = 2.0 * (columns >= GRID // 2)
    matrix[-1, 0] = 0.1  # so that the rate matters a little
    bias = np.full(n_labels, -4.0, np.float32)
    bias[:3] = np.array([1.0, 0.0, 0.0], np.float32)[:n_labels]
    return matrix, bias


def oracle(tiles: np.ndarray, log10_rate: np.ndarray, n_labels: int) -> np.ndarray:
    """The model's logits [B, L] for tiles [B, 1, H, W] and log10_rate [B, 1]."""
    batch, _, height, width = tiles.shape
    cells = tiles.reshape(batch, GRID, height // GRID, GRID, width // GRID).mean(axis=(2, 4), dtype=np.float64)
    matrix, bias = weights(n_labels)
    return (np.concatenate([cells.reshape(batch, -1), log10_rate], axis=1) @ matrix + bias).astype(np.float32)


def model(
    n_labels: int,
    height: int = 224,
    width: int = 224,
    tile: str = "tile",
    rate: str = "log10_rate",
    logits: str = "logits",
    batch: int | None = None,
    scale: float = 1.0,
) -> bytes:
    """The model's ONNX file; batch: None for dynamic; scale: of the weights, 1 for those of `oracle`."""
    matrix, bias = (scale * array for array in weights(n_labels))
    kernel = [height // GRID, width // GRID]
    nodes = [
        _node("AveragePool", [tile], ["pooled"], kernel_shape=kernel, strides=kernel),
        _node("Flatten", ["pooled"], ["flat"], axis=1),
        _node("Concat", ["flat", rate], ["features"], axis=1),
        _node("MatMul", ["features", "weights"], ["product"]),
        _node("Add", ["product", "bias"], [logits]),
    ]
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, b"tiny")
    graph += _field(5, _tensor("weights", matrix)) + _field(5, _tensor("bias", bias))
    graph += _field(11, _value(tile, [batch, 1, height, width])) + _field(11, _value(rate, [batch, 1]))
    graph += _field(12, _value(logits, [batch, n_labels]))
    opset = _field(1, b"") + _number(2, 17)
    return _number(1, 8) + _field(2, b"wavesfm tests") + _field(7, graph) + _field(8, opset)


def image_weights(channels: int, n_outputs: int) -> np.ndarray:
    """[channels * GRID * GRID, n_outputs], float32: any numbers, the same each time."""
    return np.random.default_rng(5).normal(0, 0.1, (channels * GRID * GRID, n_outputs)).astype(np.float32)


def image_oracle(tiles: np.ndarray, output_shape: tuple[int, ...]) -> np.ndarray:
    """The image model's output [B, *output_shape] for tiles [B, C, H, W]."""
    batch, channels, height, width = tiles.shape
    cells = tiles.reshape(batch, channels, GRID, height // GRID, GRID, width // GRID).mean((3, 5), dtype=np.float64)
    outputs = cells.reshape(batch, -1) @ image_weights(channels, int(np.prod(output_shape)))
    return outputs.reshape(batch, *output_shape).astype(np.float32)


def image_model(
    tile_shape: tuple[int, int, int], output_shape: tuple[int, ...], output: str, scale: float = 1.0
) -> bytes:
    """The ONNX file of a model for images: reshape(flatten(average_pool_4x4(tile)) @ weights), the batch dynamic."""
    channels, height, width = tile_shape
    kernel = [height // GRID, width // GRID]
    nodes = [
        _node("AveragePool", ["tile"], ["pooled"], kernel_shape=kernel, strides=kernel),
        _node("Flatten", ["pooled"], ["flat"], axis=1),
        _node("MatMul", ["flat", "weights"], ["product"]),
        _node("Reshape", ["product", "shape"], [output]),
    ]
    weights = scale * image_weights(channels, int(np.prod(output_shape)))
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, b"tiny image")
    graph += _field(5, _tensor("weights", weights)) + _field(5, _shape_tensor("shape", [-1, *output_shape]))
    graph += _field(11, _value("tile", [None, *tile_shape])) + _field(12, _value(output, [None, *output_shape]))
    opset = _field(1, b"") + _number(2, 17)
    return _number(1, 8) + _field(2, b"wavesfm tests") + _field(7, graph) + _field(8, opset)


def grid_model(tile_shape: tuple[int, int, int], weights: np.ndarray, output_shape: tuple[int, ...]) -> bytes:
    """The ONNX file of a model for pilot grids: reshape(concat(flatten(tile), snr_db) @ weights), the batch dynamic."""
    nodes = [
        _node("Flatten", ["tile"], ["flat"], axis=1),
        _node("Concat", ["flat", "snr_db"], ["features"], axis=1),
        _node("MatMul", ["features", "weights"], ["product"]),
        _node("Reshape", ["product", "shape"], ["channel"]),
    ]
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, b"tiny grid")
    graph += _field(5, _tensor("weights", weights)) + _field(5, _shape_tensor("shape", [-1, *output_shape]))
    graph += _field(11, _value("tile", [None, *tile_shape])) + _field(11, _value("snr_db", [None, 1]))
    graph += _field(12, _value("channel", [None, *output_shape]))
    opset = _field(1, b"") + _number(2, 17)
    return _number(1, 8) + _field(2, b"wavesfm tests") + _field(7, graph) + _field(8, opset)


def _shape_tensor(name: str, sizes: Sequence[int]) -> bytes:
    values = struct.pack(f"<{len(sizes)}q", *sizes)
    return _number(1, len(sizes)) + _number(2, 7) + _field(8, name.encode()) + _field(9, values)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, payload: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(payload)) + payload


def _node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: int | list[int]) -> bytes:
    out = b"".join(_field(1, name.encode()) for name in inputs) + b"".join(_field(2, name.encode()) for name in outputs)
    out += _field(3, outputs[0].encode()) + _field(4, op.encode())
    for name, value in attributes.items():
        numbers = [value] if isinstance(value, int) else value
        key, kind = (3, 2) if isinstance(value, int) else (8, 7)
        attribute = _field(1, name.encode()) + b"".join(_number(key, n) for n in numbers) + _number(20, kind)
        out += _field(5, attribute)
    return out


def _tensor(name: str, array: np.ndarray) -> bytes:
    dims = b"".join(_number(1, size) for size in array.shape)
    values = struct.pack(f"<{array.size}f", *array.ravel())
    return dims + _number(2, 1) + _field(8, name.encode()) + _field(9, values)


def _value(name: str, shape: Sequence[int | None]) -> bytes:
    dims = b"".join(_field(1, _field(2, b"batch") if size is None else _number(1, size)) for size in shape)
    return _field(1, name.encode()) + _field(2, _field(1, _number(1, 1) + _field(2, dims)))
