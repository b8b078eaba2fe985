# SPDX-License-Identifier: GPL-3.0-or-later
"""Start a task model, or another pre-training, from pre-trained weights; report which tensors were used."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from .mae import MaskedAutoencoder
from .registry import build, read
from .task_model import TaskArgs, TaskModel
from .vit import EncoderArgs
from .weights import Weights, WeightsError, encoder_args, shape_text

PRETRAINED_KINDS = ("masked_autoencoder", "task_model")
BY_CHANNELS = ("encoder.patch_embed.", "reconstruct.")
"""Layers of a MaskedAutoencoder of which there is one for each channel count."""


@dataclass(frozen=True)
class Loaded:
    """Which tensors a task model took from a weights file."""

    taken: tuple[str, ...]
    """Tensors of the task model that were copied from the file."""
    new: tuple[str, ...]
    """Tensors of the task model that the file lacks; they keep their random initial values."""
    unused: tuple[str, ...]
    """Tensors of the file that the task model has no place for (decoder, other channel counts)."""


def from_pretrained(
    path: str | Path,
    task_args: TaskArgs,
    channels: int,
    drop_path: float = 0.0,
    decoder_into_head: bool = False,
) -> tuple[TaskModel, Loaded]:
    """Build a task model around the encoder of a weights file.

    Parameters
    ----------
    path : weights file of a MaskedAutoencoder or a TaskModel.
    task_args : head and trainable parameters of the new model.
    channels : channel count of its tiles.
    drop_path : stochastic depth rate of the last block.
    decoder_into_head : see `load_pretrained`.

    Returns
    -------
    The model and the tensors that it took.

    Raises
    ------
    WeightsError : the file is damaged or does not fit.
    """
    weights = read(path)
    args = replace(encoder_args(weights), channels=(channels,), drop_path=drop_path)
    model = TaskModel(args, task_args)
    return model, load_pretrained(model, weights, decoder_into_head)


def load_pretrained(model: TaskModel, weights: Weights, decoder_into_head: bool = False, head: bool = False) -> Loaded:
    """Copy the encoder of a MaskedAutoencoder's or TaskModel's weights file into `model`.

    Adapters in the file are merged first. The file must hold every tensor of `model` except its head, its adapters, a
    patch embedding for a channel count that the file was not trained with, and a CLS token that pre-training left out.

    Parameters
    ----------
    model : takes the tensors in place; its frozen and trainable parameters are set again.
    weights : from `registry.read`.
    decoder_into_head : initialise a block head with the decoder's embedding, first block and norm, as the authors' code
        does.
    head : copy a TaskModel's head too, to continue the same task.

    Raises
    ------
    WeightsError : the file holds another kind of model, another encoder, or lacks a tensor.
    """
    if weights.kind not in PRETRAINED_KINDS:
        expected = f"{' or '.join(PRETRAINED_KINDS)} (pre-trained weights)"
        raise WeightsError(weights.where, "kind", weights.kind, expected)
    _check_same_encoder(model.encoder_args, weights)
    weights = _merged(weights)
    state, targets = dict(weights.state), model.state_dict(keep_vars=True)
    if weights.kind == "task_model" and not head:
        state = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    sources = {name: _source_name(name, decoder_into_head) for name in targets}
    taken = tuple(name for name in targets if sources[name] in state)
    new = tuple(name for name in targets if sources[name] not in state)
    unused = tuple(name for name in state if name not in {sources[n] for n in taken})
    _check_missing(new, unused, sources, targets, weights)
    for name in taken:
        if state[sources[name]].shape != targets[name].shape:
            found, expected = (shape_text(t.shape) for t in (state[sources[name]], targets[name]))
            raise WeightsError(weights.where, sources[name], found, expected)
    with torch.no_grad():
        for name in taken:
            targets[name].copy_(state[sources[name]])
    model.pretrained = True
    model.new = tuple(name for name in new if not name.startswith("head.") and ".lora_" not in name)
    model.set_trainable()
    return Loaded(taken, new, unused)


def continue_pretraining(model: MaskedAutoencoder, weights: Weights) -> tuple[str, ...]:
    """Copy the weights of a pre-training into `model`, decoder included.

    Layers for channel counts that the file lacks start at random.

    Returns
    -------
    Names of the tensors of `model` that the file lacks.

    Raises
    ------
    WeightsError : the file holds another kind of model, another encoder or decoder, or lacks a tensor.
    """
    if weights.kind != "masked_autoencoder":
        raise WeightsError(weights.where, "kind", weights.kind, "masked_autoencoder (a pre-training to go on from)")
    _check_same_encoder(model.args, weights)
    if (cls := weights.config.get("cls_in_pretraining")) != model.cls_in_pretraining:
        raise WeightsError(weights.where, "cls_in_pretraining", cls, repr(model.cls_in_pretraining))
    targets = model.state_dict(keep_vars=True)
    new = tuple(name for name in targets if name not in weights.state)
    for name in new:
        if not name.startswith(BY_CHANNELS):
            raise WeightsError(weights.where, name, "nothing", shape_text(targets[name].shape))
    for name in weights.state:
        if name not in targets:
            raise WeightsError(weights.where, name, "a tensor", "none of this name")
    with torch.no_grad():
        for name in targets.keys() - set(new):
            targets[name].copy_(weights.state[name])
    return new


def _check_same_encoder(wanted: EncoderArgs, weights: Weights) -> None:
    """Raise WeightsError unless the encoders differ in channels and stochastic depth only."""
    stored = replace(encoder_args(weights), channels=wanted.channels, drop_path=wanted.drop_path)
    for name, value in vars(stored).items():
        if value != getattr(wanted, name):
            raise WeightsError(weights.where, f"encoder.{name}", value, repr(getattr(wanted, name)))


def _check_missing(
    new: tuple[str, ...],
    unused: tuple[str, ...],
    sources: dict[str, str],
    targets: dict[str, Tensor],
    weights: Weights,
) -> None:
    """Raise WeightsError for an encoder tensor that only one of model and file has."""
    for name in new:
        if not _may_be_new(name, weights):
            raise WeightsError(weights.where, sources[name], "nothing", shape_text(targets[name].shape))
    for name in unused:
        if name.startswith("encoder.") and not name.startswith("encoder.patch_embed."):
            raise WeightsError(weights.where, name, "a tensor", "none of this name")


def _may_be_new(name: str, weights: Weights) -> bool:
    """Whether a tensor may start at random although the encoder is pre-trained."""
    if name.startswith("encoder.patch_embed."):
        return int(name.split(".")[2]) not in encoder_args(weights).channels
    if name.startswith("head.") or ".lora_" in name:
        return True
    return name == "encoder.cls" and not weights.config.get("cls_in_pretraining", True)


def _merged(weights: Weights) -> Weights:
    """The same weights with adapters folded into the projections that they adapt."""
    if not any(".lora_" in name for name in weights.state):
        return weights
    model = build(weights)
    assert isinstance(model, TaskModel)  # no other kind has adapters
    model.merge()
    return replace(weights, state=model.state_dict())


def _source_name(name: str, decoder_into_head: bool) -> str:
    """Name, in a MaskedAutoencoder's file, of the tensor that a TaskModel's tensor `name` is copied from."""
    name = name.replace(".attn.qkv.qkv.", ".attn.qkv.")
    if decoder_into_head:
        for part, source in (("embed", "decoder_embed"), ("block", "decoder_blocks.0"), ("norm", "decoder_norm")):
            if name.startswith(f"head.{part}."):
                return name.replace(f"head.{part}", source)
    return name
