# SPDX-License-Identifier: GPL-3.0-or-later
"""Weights of a classification bundle's model.onnx, so that training goes on where no weights file is left."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor
from wavesfm_core.bundle.bundle import Bundle, bundle_inputs
from wavesfm_core.bundle.spec import to_dict
from wavesfm_core.errors import BundleError

from ..evaluation.torch_engine import TorchEngine
from ..models import registry
from ..models.task_model import TaskArgs, TaskModel
from ..models.vit import SIZES, EncoderArgs

log = logging.getLogger(__name__)
NEW_LABEL_BIAS = -1.0  # of a label that the bundle does not have: rare until it is learnt
LARGEST_DIFFERENCE = 2e-3


def import_bundle(directory: Path | str, out: Path | str, labels: Sequence[str] = ()) -> Path:
    """Write a bundle's weights to `out` (.safetensors) with the head of `labels`, to fine-tune from; returns the path.

    labels: the bundle's own by default; others are new rows of the head, zeros with a low bias. The model must be a ViT
    that `wavesfm-train export` wrote. Raises BundleError where a tensor is missing or torch gives other outputs than
    the bundle's golden ones.
    """
    model, bundle = read_model(directory)
    own = bundle.spec.head.labels
    labels = tuple(labels) or own
    if labels != own:
        model = _with_labels(model, own, labels)
    head = replace(bundle.spec.head, labels=labels)
    extra = {
        "head": to_dict(head),
        "preprocess": to_dict(bundle.spec.preprocess),
        "from": bundle.spec.name,
        "rates_hz": list(bundle.spec.rates_hz),
    }
    registry.save(out, model, extra)
    return Path(out)


def read_model(directory: Path | str) -> tuple[TaskModel, Bundle]:
    """The network of a bundle of a classifier, in eval mode on the CPU, and the bundle. Raises as `import_bundle`."""
    bundle = Bundle.open(directory)
    if bundle.spec.head.task != "classification":
        raise BundleError(str(directory), "head.task", bundle.spec.head.task, "classification")
    state = recover(onnx.load(str(Path(directory) / "model.onnx")).graph)
    args = _encoder_args(bundle, state)
    model = TaskModel(args, TaskArgs(n_outputs=len(bundle.spec.head.labels), trainable="all"))
    _fill(model, state, str(directory))
    difference = _difference(model, bundle)
    if not difference <= LARGEST_DIFFERENCE:
        raise BundleError(str(directory), "outputs", f"{difference:.3g} from the golden ones", f"{LARGEST_DIFFERENCE}")
    log.info("%s: torch gives its golden outputs within %.2g", directory, difference)
    return model.eval(), bundle


def recover(graph: onnx.GraphProto) -> dict[str, NDArray[np.float32]]:
    """Parameters by their names in torch: those that kept them, and the matrices before each bias that did."""
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    for node in graph.node:  # halves behind casts
        if node.op_type == "Cast" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]].astype(np.float32)
    found = {n: v for n, v in constants.items() if n.startswith(("encoder.", "head.")) and not n.endswith("_half")}
    products = {node.output[0]: node.input[1] for node in graph.node if node.op_type == "MatMul"}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        for product, bias in (node.input, reversed(node.input)):
            if product in products and bias.endswith(".bias") and products[product] in constants:
                found[bias.removesuffix("bias") + "weight"] = constants[products[product]].T
    return found


def _encoder_args(bundle: Bundle, state: Mapping[str, NDArray]) -> EncoderArgs:
    width = int(state["head.weight"].shape[1])
    depth = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("encoder.blocks."))
    sizes = [name for name, (size, _) in SIZES.items() if (size.width, size.depth) == (width, depth)]
    if not sizes:
        raise BundleError(bundle.spec.name, "encoder", f"width {width}, depth {depth}", f"one of {', '.join(SIZES)}")
    channels = next(int(name.split(".")[2]) for name in state if name.startswith("encoder.patch_embed."))
    patch = round((state[f"encoder.patch_embed.{channels}.weight"].shape[1] / channels) ** 0.5)
    rated = "encoder.rate.unknown" in state
    return EncoderArgs(size=sizes[0], channels=(channels,), rate_input=rated, patch=patch)


@torch.no_grad()
def _fill(model: TaskModel, state: Mapping[str, NDArray], where: str) -> None:
    own: dict[str, Tensor] = model.state_dict()
    for name, tensor in own.items():
        if name not in state or tuple(state[name].shape) != tuple(tensor.shape):
            found = state[name].shape if name in state else "nothing"
            raise BundleError(where, name, found, f"a tensor of {tuple(tensor.shape)}")
        tensor.copy_(torch.from_numpy(np.array(state[name], np.float32)))


def _difference(model: TaskModel, bundle: Bundle) -> float:
    golden, output = bundle.golden(), bundle.spec.outputs[0].name
    inputs = bundle_inputs(bundle.spec, np.stack(golden.tiles), golden.rate_hz)
    given = TorchEngine(model.eval(), output).run(inputs)[output]
    return float(np.abs(given - golden.outputs[output]).max())


@torch.no_grad()
def _with_labels(model: TaskModel, own: Sequence[str], labels: Sequence[str]) -> TaskModel:
    wider = TaskModel(model.encoder_args, replace(model.task_args, n_outputs=len(labels)))
    wider.encoder.load_state_dict(model.encoder.state_dict())
    wider.head.weight.zero_()
    wider.head.bias.fill_(NEW_LABEL_BIAS)
    for row, label in enumerate(labels):
        if label in own:
            wider.head.weight[row] = model.head.weight[own.index(label)]
            wider.head.bias[row] = model.head.bias[own.index(label)]
    return wider
