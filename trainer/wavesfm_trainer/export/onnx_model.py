# SPDX-License-Identifier: GPL-3.0-or-later
"""A task model as ONNX: a dynamic batch, weights of half the size where asked for, nothing of the machine in it."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import onnx
import torch
from torch import nn
from wavesfm_core.bundle.spec import BundleSpec
from wavesfm_core.errors import ConfigurationError

from ..models.channel_model import ChannelModel
from ..models.task_model import TaskModel

HALF_FROM = 1024  # elements; smaller tensors (biases, norms) stay in float32
EXAMPLE_BATCH = 2  # to trace with; 1 would be taken for a constant


def to_onnx(model: TaskModel | ChannelModel, spec: BundleSpec, half_weights: bool = False) -> bytes:
    """ONNX bytes of a model in eval mode, for a batch of any size from 1.

    half_weights: float32 weights that float16 holds exactly (see `halve_weights`) are stored so, behind casts.
    """
    tile = torch.zeros(EXAMPLE_BATCH, *spec.preprocess.tile_shape)
    example = (tile, *(torch.full((EXAMPLE_BATCH, 1), 6.0) for tensor in spec.inputs if tensor.source != "tile"))
    batch = torch.export.Dim("batch", min=1)
    program = torch.onnx.export(
        model.eval(),
        example,
        dynamo=True,
        input_names=[tensor.name for tensor in spec.inputs],
        output_names=[tensor.name for tensor in spec.outputs],
        dynamic_shapes=tuple({0: batch} for _ in example),
        external_data=False,
        verbose=False,
    )
    proto = program.model_proto
    if half_weights:
        store_halves(proto.graph)
    _strip(proto)
    onnx.checker.check_model(proto)
    buffer = BytesIO()
    onnx.save(proto, buffer)
    return buffer.getvalue()


@torch.no_grad()
def halve_weights(model: nn.Module) -> None:
    """Round the large weights to float16 in place, so that torch holds exactly what the file will.

    Raises ConfigurationError for a weight that float16 cannot hold.
    """
    for name, parameter in model.named_parameters():
        if parameter.numel() < HALF_FROM:
            continue
        if (largest := float(parameter.abs().max())) > torch.finfo(torch.float16).max:
            raise ConfigurationError(name, "half_weights", f"a weight of {largest:.3g}", "values in float16's range")
        parameter.copy_(parameter.half().float())


def store_halves(graph: onnx.GraphProto) -> None:
    """Large float32 constants that float16 holds exactly become that, with a cast; fixed tables stay as they are."""
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < HALF_FROM:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue
        original = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, original + "_half"))
        casts.append(onnx.helper.make_node("Cast", [original + "_half"], [original], to=onnx.TensorProto.FLOAT))
    for position, node in enumerate(casts):
        graph.node.insert(position, node)


def _strip(model: onnx.ModelProto) -> None:
    """Without the exporter's stack traces, which hold paths of this machine."""
    graph = model.graph
    del graph.value_info[:]
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
