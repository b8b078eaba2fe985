# SPDX-License-Identifier: GPL-3.0-or-later
"""The WavesFM encoder in plain torch: patches, sin-cos positions, CLS token, pre-norm transformer blocks.

References
----------
Paper, section IV.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from wavesfm_core.checks import require_rules
from wavesfm_core.errors import ConfigurationError

from .parameters import initialise
from .step_random import StepRandom, require_step_random, set_step_random

READINGS = ("paper", "code")
POSITIONS = ("fixed", "stored")
SCORES_PER_PRODUCT = 1 << 19  # attention scores at a time: 1 MiB in bfloat16


@dataclass(frozen=True)
class ViTSize:
    """Size of a stack of transformer blocks; the hidden layer of a block is 4 times as wide as its input."""

    depth: int
    """Number of blocks."""
    width: int
    """Width of a token, D; a multiple of 4."""
    heads: int
    """Attention heads; a divisor of the width."""

    def __post_init__(self) -> None:
        rules = {
            "depth": (1 <= self.depth <= 128, "1 to 128"),
            "width": (4 <= self.width <= 8192 and self.width % 4 == 0, "a multiple of 4 up to 8192"),
            "heads": (self.heads >= 1 and self.width % self.heads == 0, f"a divisor of the width {self.width}"),
        }
        require_rules("ViTSize", self, rules)


# Encoder and decoder by name. "paper" is Table I. "small" is the size of the authors' later release, whose weights
# can be imported. "nano" is for CPUs. The decoder is discarded after pre-training.
SIZES = {
    "nano": (ViTSize(6, 256, 8), ViTSize(2, 128, 8)),
    "small": (ViTSize(8, 256, 8), ViTSize(4, 128, 16)),
    "paper": (ViTSize(12, 512, 8), ViTSize(8, 256, 16)),
}


@dataclass(frozen=True)
class EncoderArgs:
    """Arguments of an encoder.

    Raises
    ------
    ConfigurationError : values that contradict each other; the error names the field.
    """

    size: str = "nano"
    """Size: nano, small or paper (SIZES), or "custom": then `depth` to `decoder_heads` define it."""
    channels: tuple[int, ...] = (1,)
    """Channel counts that have a patch embedding (and, in pre-training, a reconstruction head)."""
    rate_input: bool = False
    """Add log10 of the sample rate to the CLS token.

    A spectrogram has no absolute scale: 200 kHz at 250 kS/s looks like 20 MHz at 25 MS/s.
    """
    reading: str = "paper"
    """Whether to follow the paper or its authors' code where they differ.

    | | "paper" | "code" |
    |---|---|---|
    | LayerNorm eps | 1e-6 everywhere | 1e-5 in the blocks |
    | first half of a position | row (section IV.A) | column |
    | masked patches | floor(gamma N) | N - int(N (1 - gamma)) |
    | MWM loss | squared norm of a patch (eq. 13) | mean square over a patch's values |
    | pooling "avg" | all tokens | patches without CLS |
    """
    film: bool = False
    """A scale and a bias on all tokens before the first block, as in imported "v1" checkpoints."""
    drop_path: float = 0.0
    """Stochastic depth rate of the last block; it grows linearly from 0 at the first."""
    image: int = 224
    """Side of a tile in pixels."""
    patch: int = 16
    """Side of a patch in pixels."""
    block_eps: float = 0.0
    """LayerNorm eps in the blocks, for imported checkpoints that follow neither reading; 0: as the reading has it."""
    positions: str = "fixed"
    """Source of the positions.

    "fixed": computed. "stored": kept with the weights, for imported checkpoints that trained them; not trained here.
    """
    depth: int = 0
    """Blocks of a custom encoder; 0 with a named size."""
    width: int = 0
    """Width of a custom encoder; 0 with a named size."""
    heads: int = 0
    """Attention heads of a custom encoder; 0 with a named size."""
    decoder_depth: int = 0
    """Blocks of a custom decoder; 0 with a named size."""
    decoder_width: int = 0
    """Width of a custom decoder; 0 with a named size."""
    decoder_heads: int = 0
    """Attention heads of a custom decoder; 0 with a named size."""

    def __post_init__(self) -> None:
        channels = self.channels
        distinct = len(channels) > 0 and len(set(channels)) == len(channels) and all(1 <= c <= 64 for c in channels)
        rules = {
            "size": (self.size in (*SIZES, "custom"), f"one of {', '.join(SIZES)}, custom"),
            "channels": (distinct, "one or more different counts of 1 to 64"),
            "reading": (self.reading in READINGS, f"one of {', '.join(READINGS)}"),
            "positions": (self.positions in POSITIONS, f"one of {', '.join(POSITIONS)}"),
            "drop_path": (0 <= self.drop_path < 1, "0 or more, below 1"),
            "block_eps": (0 <= self.block_eps <= 1e-2, "0 to 0.01"),
            "patch": (1 <= self.patch <= 128, "1 to 128"),
            "image": (0 < self.image <= 128 * self.patch and self.image % self.patch == 0, "a multiple of the patch"),
        }
        require_rules("EncoderArgs", self, rules)
        custom = ("depth", "width", "heads", "decoder_depth", "decoder_width", "decoder_heads")
        for name in custom:
            if self.size != "custom" and getattr(self, name):
                raise ConfigurationError("EncoderArgs", name, getattr(self, name), f"0 with size {self.size!r}")
        _ = self.encoder, self.decoder  # ViTSize refuses an incomplete custom size

    @property
    def encoder(self) -> ViTSize:
        """Size of the encoder."""
        return SIZES[self.size][0] if self.size != "custom" else ViTSize(self.depth, self.width, self.heads)

    @property
    def decoder(self) -> ViTSize:
        """Size of the decoder used in pre-training."""
        if self.size != "custom":
            return SIZES[self.size][1]
        return ViTSize(self.decoder_depth, self.decoder_width, self.decoder_heads)

    @property
    def side(self) -> int:
        """Patches along a side of the tile."""
        return self.image // self.patch

    @property
    def n_patches(self) -> int:
        """Patches of a tile, N."""
        return self.side**2

    @property
    def eps(self) -> float:
        """LayerNorm eps in the blocks."""
        return self.block_eps or (1e-6 if self.reading == "paper" else 1e-5)


def sincos_positions(width: int, side: int, reading: str = "paper") -> Tensor:
    """Fixed sin-cos positions (eq. 4).

    Parameters
    ----------
    width : of a token; a multiple of 4.
    side : patches along a side of the tile.
    reading : "paper": the row in the first half of the width, the column in the second. "code": the column first.

    Returns
    -------
    float32 [1, 1 + side * side, width]; zeros for CLS.
    """

    def one_axis(position: np.ndarray) -> np.ndarray:
        omega = 10000.0 ** (-np.arange(width // 4) / (width / 4))
        angle = np.outer(position, omega)
        return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)

    row, column = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    axes = (row, column) if reading == "paper" else (column, row)
    table = np.concatenate([one_axis(axis.ravel()) for axis in axes], axis=1)
    return torch.from_numpy(np.concatenate([np.zeros((1, width)), table]).astype(np.float32))[None]


class Attention(nn.Module):
    """Multi-head self-attention with a fused projection, scaled by the square root of a head's width.

    Equations 8 and 9 print heads of the full width. The 38 M parameters of Table I require heads of width / heads,
    which are used here.
    """

    def __init__(self, size: ViTSize) -> None:
        super().__init__()
        self.heads = size.heads
        self.qkv: nn.Module = nn.Linear(size.width, 3 * size.width)
        self.proj = nn.Linear(size.width, size.width)

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        """Tokens [B, N, D] -> [B, N, D], or only the first `first` tokens of the result."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if first is not None:
            q = q[:, :, :first]
        return self.proj(attend(q, k, v).transpose(1, 2).flatten(2))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention: softmax(q k^T / sqrt(d)) v.

    torch's fused kernel, except for training in bfloat16 on a CPU, whose backward pass is slower than float32's. There
    plain products of a few tiles at a time keep the scores in the processor's cache; the scores are rounded to
    bfloat16.

    Parameters
    ----------
    q : [B, heads, n, d].
    k, v : [B, heads, N, d].

    Returns
    -------
    [B, heads, n, d].
    """
    plain = q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.requires_grad
    if not plain or torch.compiler.is_compiling():
        return F.scaled_dot_product_attention(q, k, v)
    each = max(torch.get_num_threads(), SCORES_PER_PRODUCT // (q.shape[1] * q.shape[2] * k.shape[2]))
    q = q * q.shape[-1] ** -0.5
    parts = zip(q.split(each), k.split(each), v.split(each))
    return torch.cat([(a @ b.transpose(-2, -1)).softmax(dim=-1).to(c.dtype) @ c for a, b, c in parts])


class Block(nn.Module):
    """Pre-norm transformer block (eq. 5 and 6)."""

    def __init__(self, size: ViTSize, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size.width, eps=eps)
        self.attn = Attention(size)
        self.norm2 = nn.LayerNorm(size.width, eps=eps)
        layers = {"fc1": nn.Linear(size.width, 4 * size.width), "act": nn.GELU()}
        self.mlp = nn.Sequential(OrderedDict(layers | {"fc2": nn.Linear(4 * size.width, size.width)}))

    def forward(self, x: Tensor, scale: Tensor | None = None, first: int | None = None) -> Tensor:
        """Tokens [B, N, D] -> [B, N, D], or only the first `first` tokens of the result.

        scale : [2, B, 1, 1], factors of the two residual branches (stochastic depth); None: 1.
        """
        branch = self.attn(self.norm1(x), first)
        x = (x if first is None else x[:, :first]) + (branch if scale is None else branch * scale[0])
        branch = self.mlp(self.norm2(x))
        return x + (branch if scale is None else branch * scale[1])


class RateEmbedding(nn.Module):
    """Embedding [B, D] of log10 of the sample rate in Hz, [B, 1]; 0 means unknown and has a trained embedding."""

    def __init__(self, width: int) -> None:
        super().__init__()
        frequency = torch.from_numpy(np.pi * np.arange(1, 9, dtype=np.float32) / 4)  # never on the meta device
        self.register_buffer("frequency", frequency, persistent=False)
        self.mlp = nn.Sequential(nn.Linear(17, width), nn.GELU(), nn.Linear(width, width))
        self.unknown = nn.Parameter(torch.zeros(1, width))

    def forward(self, log10_rate: Tensor) -> Tensor:
        """log10_rate [B, 1] -> [B, D]."""
        x = log10_rate.float() - 6.0
        angle = x * self.frequency
        known = self.mlp(torch.cat([x, angle.sin(), angle.cos()], dim=1))
        return torch.where(log10_rate > 0, known, self.unknown.to(known.dtype))


def take(x: Tensor, index: Tensor) -> Tensor:
    """Select tokens of each sample: x [B, N, D], index [B, n] -> [B, n, D].

    Row copies are faster than an expanded gather.
    """
    batch, tokens, width = x.shape
    flat = index + torch.arange(batch, device=index.device)[:, None] * tokens
    return x.reshape(batch * tokens, width).index_select(0, flat.flatten()).view(batch, -1, width)


class Encoder(nn.Module):
    """The WavesFM encoder: patches of a tile -> tokens.

    Parameters
    ----------
    args : size and options.
    cls : whether there is a CLS token; False for pre-training without it.
    """

    def __init__(self, args: EncoderArgs, cls: bool = True) -> None:
        super().__init__()
        size = args.encoder
        self.args = args
        self.step_random: StepRandom | None = None
        self.patch_embed = nn.ModuleDict({str(c): nn.Linear(args.patch**2 * c, size.width) for c in args.channels})
        self.cls = nn.Parameter(torch.zeros(1, 1, size.width)) if cls else None
        self.rate = RateEmbedding(size.width) if args.rate_input else None
        self.film_scale = nn.Parameter(torch.ones(size.width)) if args.film else None
        self.film_bias = nn.Parameter(torch.zeros(size.width)) if args.film else None
        positions = sincos_positions(size.width, args.side, args.reading)
        self.register_buffer("positions", positions, persistent=args.positions == "stored")
        self.blocks = nn.ModuleList(Block(size, args.eps) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width, eps=1e-6)
        self.drop_path = [args.drop_path * i / max(1, size.depth - 1) for i in range(size.depth)]
        initialise(self)

    def set_step_random(self, step_random: StepRandom | None) -> None:
        """Set the source of stochastic depth for a training step."""
        set_step_random(self, step_random)

    def patchify(self, tile: Tensor) -> Tensor:
        """Tile [B, C, H, W] -> patches [B, N, P * P * C], row by row; within a patch row, column, channel.

        Raises
        ------
        ConfigurationError : a channel count without patch embedding, or another size.
        """
        batch, channels, height, width = tile.shape
        side, patch = self.args.side, self.args.patch
        if str(channels) not in self.patch_embed or (height, width) != (self.args.image, self.args.image):
            expected = f"{' or '.join(self.patch_embed)} x {self.args.image} x {self.args.image}"
            raise ConfigurationError("Encoder", "tile", f"{channels} x {height} x {width}", expected)
        x = tile.reshape(batch, channels, side, patch, side, patch)
        return x.permute(0, 2, 4, 3, 5, 1).reshape(batch, side * side, patch * patch * channels)

    def embed(
        self, patches: Tensor, channels: int, log10_rate: Tensor | None = None, keep: Tensor | None = None
    ) -> Tensor:
        """Input of the first block (eq. 14).

        Parameters
        ----------
        patches : [B, n, P * P * C].
        channels : channel count, which selects the patch embedding.
        log10_rate : [B, 1], used with `rate_input` only; None: unknown.
        keep : int64 [B, n], indices of these patches among the N of a tile; None: all N.

        Returns
        -------
        [B, 1 + n, D], CLS first.
        """
        x = self.patch_embed[str(channels)](patches)
        if keep is None:
            x = x + self.positions[:, 1:]
        else:
            x = x + self.positions[0, 1:].index_select(0, keep.flatten()).view(*keep.shape, -1)
        if self.cls is not None:
            # shape[0], not len(): len() is a plain int, which would fix the batch size of an exported graph
            cls = (self.cls + self.positions[:, :1]).expand(patches.shape[0], -1, -1)
            if self.rate is not None:
                rate = patches.new_zeros(patches.shape[0], 1) if log10_rate is None else log10_rate
                cls = cls + self.rate(rate)[:, None]
            x = torch.cat([cls.to(x.dtype), x], dim=1)
        return x if self.film_scale is None else x * self.film_scale + self.film_bias

    def run(self, x: Tensor, start: int = 0, stop: int | None = None, first: int | None = None) -> Tensor:
        """Apply blocks `start` to `stop` - 1; the last one computes only the first `first` tokens (None: all)."""
        stop = len(self.blocks) if stop is None else stop
        scales = self._drop_path_scales(x) if self.training and any(self.drop_path[start:stop]) else None
        for i in range(start, stop):
            scale = scales[i] if scales is not None else None
            x = self.blocks[i](x, scale, first if i == stop - 1 else None)
        return x

    @torch.compiler.disable  # a generator cannot be traced; drawing for all blocks at once breaks the graph only once
    def _drop_path_scales(self, x: Tensor) -> Tensor:
        """Factors [depth, 2, B, 1, 1]: 0 for a dropped branch, else 1 / probability of keeping it."""
        keep = 1 - torch.tensor(self.drop_path, device=x.device)[:, None, None]
        uniform = require_step_random(self.step_random, "Encoder").rand(len(x), 2 * len(keep)).to(x.device)
        scales = (uniform.T.reshape(len(keep), 2, len(x)) < keep) / keep
        return scales[..., None, None].to(x.dtype)

    def tokens(self, tile: Tensor, log10_rate: Tensor | None = None, keep: Tensor | None = None) -> Tensor:
        """Normalised tokens of a tile.

        Parameters
        ----------
        tile : float32 [B, C, H, W].
        log10_rate : [B, 1], 0 where unknown.
        keep : int64 [B, n], patches to compute; None: all.

        Returns
        -------
        [B, 1 + n, D], CLS first.
        """
        patches = self.patchify(tile)
        patches = patches if keep is None else take(patches, keep)
        return self.norm(self.run(self.embed(patches, tile.shape[1], log10_rate, keep)))

    forward = tokens
