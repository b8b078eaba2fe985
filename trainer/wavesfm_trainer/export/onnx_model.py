# SPDX-License-Identifier: GPL-3.0-or-later
"""A task model as ONNX with a dynamic batch, and without anything of the machine that wrote it."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from wavesfm_core.bundle.spec import BundleSpec
from wavesfm_core.engines.tensorrt.mixed_precision import typed

from ..models.channel_model import ChannelModel
from ..models.task_model import TaskModel
from .export_job import ExportJob
from .half_weights import HALF_FROM

EXAMPLE_BATCH = 2
"""Batch to trace with; 1 would be taken for a constant."""


def make_onnx(job: ExportJob) -> bytes:
    """ONNX bytes of a job's model, in the precision that the job asks for."""
    return to_onnx(job.trained.model, job.spec, job.options.precision, job.options.half_weights)


def to_onnx(
    model: TaskModel | ChannelModel, spec: BundleSpec, precision: str = "fp32", half_weights: bool = False
) -> bytes:
    """Export a model for batches of any size from 1.

    Parameters
    ----------
    model
        Set to eval mode.
    spec
        Names and shapes of the tensors.
    precision
        Arithmetic of the transformer's products: fp32, fp16 or bf16 (see core's `mixed_precision`).
    half_weights
        Store float32 weights that float16 holds exactly (see `half_weights.halve_weights`) as such, before a cast.

    Returns
    -------
    The ONNX file's bytes.

    Raises
    ------
    ConfigurationError
        A weight that float16 cannot hold.
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
    data = proto.SerializeToString()
    return data if precision == "fp32" else typed(data, precision)


def store_halves(graph: onnx.GraphProto) -> None:
    """Store large float32 constants that float16 holds exactly as float16 before a cast; fixed tables stay."""
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
    """Remove the exporter's stack traces, which hold paths of this machine."""
    graph = model.graph
    del graph.value_info[:]
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
