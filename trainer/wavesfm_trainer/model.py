"""The WavesFM vision transformer in plain torch (paper, section IV): patches, sin-cos positions, CLS token, head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class ViTSize:
    """Depth and widths of an encoder; the paper's encoder (Table I) is 12 x 512 with 8 heads."""

    depth: int
    width: int
    heads: int
    mlp_ratio: int = 4

    def __post_init__(self) -> None:
        if self.width % (4 * self.heads):
            raise ValueError(f"ViTSize: width: found {self.width}, expected a multiple of 4 * heads ({4 * self.heads})")


SIZES = {
    "nano": ViTSize(depth=6, width=256, heads=8),
    "small": ViTSize(depth=8, width=256, heads=8),
    "paper": ViTSize(depth=12, width=512, heads=8),
}


def sincos_positions(width: int, rows: int, columns: int) -> Tensor:
    """Fixed positions, float32 [1, 1 + rows * columns, width]: first half row, second half column (eq. 4); CLS is 0."""

    def one_axis(position: np.ndarray) -> np.ndarray:
        omega = 10000.0 ** (-np.arange(width // 4) / (width / 4))
        angle = np.outer(position, omega)
        return np.concatenate([np.sin(angle), np.cos(angle)], axis=1)

    row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    table = np.concatenate([one_axis(row.ravel()), one_axis(column.ravel())], axis=1)
    table = np.concatenate([np.zeros((1, width)), table])
    return torch.from_numpy(table.astype(np.float32))[None]


class Attention(nn.Module):
    """Multi-headed self-attention, scaled by the root of the head's width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:  # [B, N, D] -> [B, N, D]
        batch, tokens, width = x.shape
        q, k, v = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, width))


class Block(nn.Module):
    """Pre-norm transformer block (paper, eq. 5 and 6) with stochastic depth for training."""

    def __init__(self, size: ViTSize, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(size.width, eps=1e-6)
        self.attn = Attention(size.width, size.heads)
        self.norm2 = nn.LayerNorm(size.width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(size.width, size.mlp_ratio * size.width),
            nn.GELU(),
            nn.Linear(size.mlp_ratio * size.width, size.width),
        )
        self.drop_path = drop_path

    def _residual(self, x: Tensor, branch: Tensor) -> Tensor:
        if self.training and self.drop_path > 0:
            keep = 1 - self.drop_path
            branch = branch * (torch.rand(len(x), 1, 1) < keep).to(branch) / keep
        return x + branch

    def forward(self, x: Tensor) -> Tensor:
        x = self._residual(x, self.attn(self.norm1(x)))
        return self._residual(x, self.mlp(self.norm2(x)))


class RateEmbedding(nn.Module):
    """log10 of the sample rate in Hz [B, 1] -> [B, D]; 0 (unknown) has an embedding of its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("frequency", torch.pi * torch.arange(1, 9, dtype=torch.float32) / 4, persistent=False)
        self.mlp = nn.Sequential(nn.Linear(17, width), nn.GELU(), nn.Linear(width, width))
        self.unknown = nn.Parameter(torch.zeros(1, width))

    def forward(self, log10_rate: Tensor) -> Tensor:
        x = log10_rate.float() - 6.0
        angle = x * self.frequency
        known = self.mlp(torch.cat([x, angle.sin(), angle.cos()], dim=1))
        return torch.where(log10_rate > 0, known, self.unknown.to(known.dtype))


def draw_patches(patches: Tensor, n_keep: int) -> Tensor:
    """Indices [B, n_keep] of patches drawn without replacement, those with stronger peaks more often.

    A short burst fills one or two patches of a tile: drawn evenly it would mostly be lost and its label with it. The
    odds are exponential in the patch's peak, standardised over the tile and weighted from 0 (even) to 1.5 at random for
    each tile, so that the background is seen too (drawn by the Gumbel top-k trick).
    """
    peak = patches.amax(dim=-1)
    score = (peak - peak.mean(dim=1, keepdim=True)) / (peak.std(dim=1, keepdim=True) + 1e-3)
    gumbel = -torch.log(-torch.log(torch.rand_like(score).clamp(1e-6, 1 - 1e-6)))
    weight = 1.5 * torch.rand_like(score[:, :1])
    return (weight * score + gumbel).topk(n_keep, dim=1).indices


class ViT(nn.Module):
    """WavesFM encoder with a linear classification head.

    tile: float32 [B, C, 224, 224]; log10_rate: float32 [B, 1], 0 when unknown; returns logits [B, n_outputs].
    `keep` < 1 keeps only that share of the patches while training (the masking of section IV.A as a regulariser, which
    also makes a step cheaper); pooling is "token" (CLS) or "avg" over the patches (section IV.B).
    """

    def __init__(
        self,
        size: ViTSize,
        n_outputs: int,
        channels: int = 1,
        image: int = 224,
        patch: int = 16,
        drop_path: float = 0.0,
        pooling: str = "token",
    ) -> None:
        super().__init__()
        self.size, self.patch, self.pooling, self.keep = size, patch, pooling, 1.0
        side = image // patch
        self.patch_embed = nn.Linear(patch * patch * channels, size.width)
        self.cls = nn.Parameter(torch.zeros(1, 1, size.width))
        self.rate = RateEmbedding(size.width)
        self.register_buffer("positions", sincos_positions(size.width, side, side), persistent=False)
        self.blocks = nn.Sequential(*(Block(size, drop_path * i / max(1, size.depth - 1)) for i in range(size.depth)))
        self.norm = nn.LayerNorm(size.width, eps=1e-6)
        self.head = nn.Linear(size.width, n_outputs)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.cls, std=0.02)
        nn.init.trunc_normal_(self.head.weight, std=0.02)

    def patchify(self, tile: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, N, patch * patch * C], row by row."""
        batch, channels, height, width = tile.shape
        rows, columns = height // self.patch, width // self.patch
        x = tile.reshape(batch, channels, rows, self.patch, columns, self.patch)
        return x.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, self.patch**2 * channels)

    def tokens(self, tile: Tensor, log10_rate: Tensor) -> Tensor:
        """Encoder output [B, 1 + N, D], CLS first."""
        patches = self.patchify(tile)
        positions = self.positions[:, 1:]
        if self.training and self.keep < 1:
            chosen = draw_patches(patches, max(1, int(patches.shape[1] * self.keep)))[..., None]
            patches = patches.gather(1, chosen.expand(-1, -1, patches.shape[2]))
            positions = positions.expand(len(tile), -1, -1).gather(1, chosen.expand(-1, -1, positions.shape[2]))
        x = self.patch_embed(patches) + positions
        cls = self.cls + self.rate(log10_rate)[:, None]
        x = torch.cat([cls.to(x.dtype), x], dim=1)
        return self.norm(self.blocks(x))

    def forward(self, tile: Tensor, log10_rate: Tensor) -> Tensor:
        tokens = self.tokens(tile, log10_rate)
        pooled = tokens[:, 0] if self.pooling == "token" else tokens[:, 1:].mean(dim=1)
        return self.head(pooled)
