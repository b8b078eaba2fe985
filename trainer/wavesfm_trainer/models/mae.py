# SPDX-License-Identifier: GPL-3.0-or-later
"""Masked wireless modelling (MWM): reconstruct the masked patches of a tile from the visible ones.

References
----------
Paper, section IV.A and Algorithm 1; He et al., "Masked Autoencoders Are Scalable Vision Learners", 2022.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from wavesfm_core.errors import ConfigurationError

from .parameters import initialise, parameter_groups
from .step_random import StepRandom, require_step_random, set_step_random
from .vit import Block, Encoder, EncoderArgs, sincos_positions, take


class MWMOutput(NamedTuple):
    """Output of a MaskedAutoencoder."""

    loss: Tensor
    """Scalar loss (eq. 13)."""
    prediction: Tensor | None
    """Reconstruction [B, N, P * P * C] in the order of the patches; None if it was not requested."""
    mask: Tensor
    """bool [B, N], True where a patch was masked."""


def n_masked(n_patches: int, mask_ratio: float, reading: str) -> int:
    """Number of patches to mask.

    Parameters
    ----------
    n_patches : patches of a tile, N.
    mask_ratio : gamma, 0 to 1.
    reading : "paper": floor(gamma N). "code": N - int(N (1 - gamma)), with the rounding of floats.
    """
    if reading == "code":
        return n_patches - int(n_patches * (1 - mask_ratio))
    return math.floor(mask_ratio * n_patches + 1e-9)  # 0.29 * 100 is 28.999...


class MaskedAutoencoder(nn.Module):
    """An encoder of the visible patches, a light decoder of all patches, and a reconstruction head per channel count.

    Parameters
    ----------
    args : encoder and decoder.
    mask_ratio : gamma, the share of patches that is masked.
    cls_in_pretraining : whether the CLS token takes part. The paper adds it at fine-tuning (eq. 14), so that "token"
        pooling reads a token that no frozen block has seen. MAE and the authors' code pre-train it; that is the
        default. The sample rate joins the CLS token and needs it.

    Raises
    ------
    ConfigurationError : no patch or every patch would be masked, or a rate input without CLS token.
    """

    def __init__(self, args: EncoderArgs, mask_ratio: float = 0.75, cls_in_pretraining: bool = True) -> None:
        super().__init__()
        self.args, self.mask_ratio, self.cls_in_pretraining = args, mask_ratio, cls_in_pretraining
        self.n_masked = n_masked(args.n_patches, mask_ratio, args.reading) if 0 < mask_ratio < 1 else 0
        if not 0 < self.n_masked < args.n_patches:
            expected = f"a share that masks 1 to {args.n_patches - 1} of {args.n_patches} patches"
            raise ConfigurationError("MaskedAutoencoder", "mask_ratio", mask_ratio, expected)
        if args.rate_input and not cls_in_pretraining:
            raise ConfigurationError(
                "MaskedAutoencoder", "cls_in_pretraining", False, "True with rate_input: the rate joins the CLS token"
            )
        size, decoder = args.encoder, args.decoder
        self.step_random: StepRandom | None = None
        self.encoder = Encoder(args, cls=cls_in_pretraining)
        self.decoder_embed = nn.Linear(size.width, decoder.width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder.width))
        positions = sincos_positions(decoder.width, args.side, args.reading)
        self.register_buffer("decoder_positions", positions, persistent=False)
        self.decoder_blocks = nn.ModuleList(Block(decoder, args.eps) for _ in range(decoder.depth))
        self.decoder_norm = nn.LayerNorm(decoder.width, eps=1e-6)
        heads = {str(c): nn.Linear(decoder.width, args.patch**2 * c) for c in args.channels}
        self.reconstruct = nn.ModuleDict(heads)
        initialise(self)

    def set_step_random(self, step_random: StepRandom | None) -> None:
        """Set the source of masks and stochastic depth for a training step."""
        set_step_random(self, step_random)

    @torch.compiler.disable
    def _noise(self, batch: int) -> Tensor:
        return require_step_random(self.step_random, "MaskedAutoencoder").rand(batch, self.args.n_patches)

    def forward(
        self,
        tile: Tensor,
        log10_rate: Tensor | None = None,
        noise: Tensor | None = None,
        reconstruct: bool | None = None,
        target: Tensor | None = None,
    ) -> MWMOutput:
        """Loss of a batch of one channel count.

        Parameters
        ----------
        tile : float32 [B, C, H, W].
        log10_rate : float32 [B, 1], log10 of the sample rate in Hz; 0 or None: unknown.
        noise : [B, N]; the patches with the largest values are masked. None: drawn from the step's random numbers.
        reconstruct : whether to return the prediction of every patch. None: only in eval mode.
        target : float32 [B, C, H, W], the tile to reconstruct. None: `tile` itself.

        Returns
        -------
        Loss, prediction and mask. While training, only masked patches are decoded.
        """
        noise = self._noise(len(tile)) if noise is None else noise
        visible, masked = self._split(noise.to(tile.device))
        patches = self.encoder.patchify(tile)
        x = self.encoder.embed(take(patches, visible), tile.shape[1], log10_rate, visible)
        everything = not self.training if reconstruct is None else reconstruct
        x = self._decode(self.encoder.norm(self.encoder.run(x)), visible, masked, None if everything else self.n_masked)
        head = self.reconstruct[str(tile.shape[1])]
        predicted = head(self.decoder_norm(x[:, : self.n_masked]))
        expected = patches if target is None else self.encoder.patchify(target)
        error = (predicted.float() - take(expected, masked).float()).square()
        loss = (error.sum(dim=-1) if self.args.reading == "paper" else error.mean(dim=-1)).mean()
        mask = torch.zeros(noise.shape, dtype=torch.bool, device=tile.device).scatter_(1, masked, True)
        prediction = None
        if everything:
            seen = head(self.decoder_norm(x[:, self.n_masked - self.args.n_patches :]))
            prediction = take(torch.cat([seen, predicted], dim=1), torch.cat([visible, masked], dim=1).argsort(dim=1))
        return MWMOutput(loss, prediction, mask)

    def _split(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of the visible and of the masked patches, each in their original order."""
        order = noise.argsort(dim=1)
        n_visible = self.args.n_patches - self.n_masked
        return order[:, :n_visible].sort(dim=1).values, order[:, n_visible:].sort(dim=1).values

    def _decode(self, x: Tensor, visible: Tensor, masked: Tensor, first: int | None) -> Tensor:
        """Encoder tokens -> decoder tokens [B, N (+ CLS), D] (eq. 10), or their first `first`.

        Masked patches come first, then CLS, then visible patches: attention needs positions only, so no token is put
        back in its place.
        """
        table = self.decoder_positions[0]
        x = self.decoder_embed(x)
        mask_token = self.mask_token.to(x.dtype).expand(x.shape[0], self.n_masked, -1)
        cls = [torch.full_like(masked[:, :1], -1)] if self.cls_in_pretraining else []
        order = torch.cat([masked, *cls, visible], dim=1) + 1
        positions = table.index_select(0, order.flatten()).view(*order.shape, -1)
        x = torch.cat([mask_token, x], dim=1) + positions
        for block in self.decoder_blocks[:-1]:
            x = block(x)
        return self.decoder_blocks[-1](x, None, first)

    def unpatchify(self, prediction: Tensor) -> Tensor:
        """Inverse of the encoder's patchify: [B, N, P * P * C] -> [B, C, H, W]."""
        side, patch = self.args.side, self.args.patch
        x = prediction.reshape(len(prediction), side, side, patch, patch, -1)
        return x.permute(0, 5, 1, 3, 2, 4).reshape(len(prediction), -1, side * patch, side * patch)

    def parameter_groups(self, lr: float, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
        """Optimiser groups, see parameters.parameter_groups.

        Raises
        ------
        ConfigurationError : a layer_decay other than 1, which is for fine-tuning.
        """
        if layer_decay != 1.0:
            raise ConfigurationError("MaskedAutoencoder", "layer_decay", layer_decay, "1: it is for fine-tuning")
        return parameter_groups(self.named_parameters(), lr, weight_decay, lambda name: 1.0)

    def config(self) -> dict[str, Any]:
        """Arguments beside the encoder's that a weights file stores."""
        return {"mask_ratio": self.mask_ratio, "cls_in_pretraining": self.cls_in_pretraining}
