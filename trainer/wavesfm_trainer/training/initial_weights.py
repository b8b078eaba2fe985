# SPDX-License-Identifier: GPL-3.0-or-later
"""Pre-training that starts from the weights of another one."""

from __future__ import annotations

from dataclasses import replace

import torch

from ..models.mae import MaskedAutoencoder
from ..models.vit import EncoderArgs
from ..models.weights import Weights, WeightsError, encoder_args

BY_CHANNELS = ("encoder.patch_embed.", "reconstruct.")  # layers of which there is one for each channel count


def take_pretrained(model: MaskedAutoencoder, weights: Weights) -> tuple[str, ...]:
    """Copy a pre-training's weights into `model`, decoder included.

    Layers of channel counts that the weights lack start at random.

    Returns
    -------
    Names of the tensors of `model` that the weights do not have.

    Raises
    ------
    WeightsError
        For weights of another kind of model, and for the first option of the encoder or tensor that differs.
    """
    if weights.kind != "masked_autoencoder":
        raise WeightsError(weights.where, "kind", weights.kind, "masked_autoencoder (a pre-training to go on from)")
    _require_same(model.args, encoder_args(weights), weights.where)
    if (cls := weights.config.get("cls_in_pretraining")) != model.cls_in_pretraining:
        raise WeightsError(
            weights.where, "cls_in_pretraining", cls, f"{model.cls_in_pretraining}, as the recipe has it"
        )
    own = model.state_dict(keep_vars=True)
    new = tuple(name for name in own if name not in weights.state)
    for name in new:
        if not name.startswith(BY_CHANNELS):
            raise WeightsError(weights.where, name, "nothing", "a tensor of this name")
    for name in weights.state:
        if name not in own:
            raise WeightsError(weights.where, name, "a tensor", "none of this name")
    with torch.no_grad():
        for name in own.keys() - set(new):
            own[name].copy_(weights.state[name])
    return new


def _require_same(ours: EncoderArgs, theirs: EncoderArgs, where: str) -> None:
    same = replace(theirs, channels=ours.channels, drop_path=ours.drop_path)
    for name, value in vars(same).items():
        if value != getattr(ours, name):
            expected = f"{getattr(ours, name)!r}, as the recipe's model.{name}"
            raise WeightsError(where, f"encoder.{name}", repr(value), expected)
