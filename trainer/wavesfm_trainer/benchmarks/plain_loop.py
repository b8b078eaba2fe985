# SPDX-License-Identifier: GPL-3.0-or-later
"""The reference of `bench`: the method as it is usually written, in plain float32 torch without this trainer's parts.

An eager ViT like timm's (convolution as patch embedding, scaled_dot_product_attention), a masked autoencoder like MAE
(every patch is embedded and then masked, every token is decoded and reconstructed), adapters that add into a slice, one
HDF5 read for each item and key, torch's default AdamW, and `.item()` at every step.

Modules have the names of `vit`, `mae` and `task_model`, so that a test can copy the weights and compare the losses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import h5py
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from ..models.vit import EncoderArgs, ViTSize, sincos_positions

LORA_RANK, LORA_ALPHA = 50, 8.0


class PlainBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, size: ViTSize) -> None:
        super().__init__()
        self.heads = size.heads
        self.norm1, self.norm2 = nn.LayerNorm(size.width, eps=1e-6), nn.LayerNorm(size.width, eps=1e-6)
        self.attn = nn.ModuleDict(
            {"qkv": nn.Linear(size.width, 3 * size.width), "proj": nn.Linear(size.width, size.width)}
        )
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(size.width, 4 * size.width), "fc2": nn.Linear(4 * size.width, size.width)}
        )
        self.lora = nn.ParameterDict()

    def adapt(self, rank: int) -> None:
        """Adapters on query and value; the second matrix of each starts at zero."""
        width = self.norm1.normalized_shape[0]
        for part in "qv":
            self.lora[f"{part}_A"] = nn.Parameter(torch.randn(width, rank) / rank**0.5)
            self.lora[f"{part}_B"] = nn.Parameter(torch.zeros(rank, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))

    def attention(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]."""
        batch, tokens, width = x.shape
        qkv = self.attn["qkv"](x)
        if self.lora:
            qkv[..., :width] += LORA_ALPHA * (x @ self.lora["q_A"] @ self.lora["q_B"])
            qkv[..., -width:] += LORA_ALPHA * (x @ self.lora["v_A"] @ self.lora["v_B"])
        q, k, v = qkv.reshape(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.attn["proj"](x.transpose(1, 2).reshape(batch, tokens, width))


class PlainEncoder(nn.Module):
    """Tile -> normalised tokens, CLS first."""

    def __init__(self, args: EncoderArgs) -> None:
        super().__init__()
        size = args.encoder
        self.patch_embed = nn.Conv2d(args.channels[0], size.width, args.patch, args.patch)
        self.cls = nn.Parameter(torch.randn(1, 1, size.width) * 0.02)
        self.register_buffer("positions", sincos_positions(size.width, args.side), persistent=False)
        self.blocks = nn.ModuleList(PlainBlock(size) for _ in range(size.depth))
        self.norm = nn.LayerNorm(size.width, eps=1e-6)

    def forward(self, tile: Tensor, keep: Tensor | None = None) -> Tensor:
        x = self.patch_embed(tile).flatten(2).transpose(1, 2) + self.positions[:, 1:]
        if keep is not None:
            x = x.gather(1, keep[..., None].expand(-1, -1, x.shape[2]))
        x = torch.cat([(self.cls + self.positions[:, :1]).expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class PlainAutoencoder(nn.Module):
    """Masked wireless modelling; the loss of eq. 13 over three quarters of the patches."""

    def __init__(self, args: EncoderArgs, mask_ratio: float = 0.75) -> None:
        super().__init__()
        size = args.decoder
        self.patch, self.side = args.patch, args.side
        self.n_visible = args.n_patches - math.floor(mask_ratio * args.n_patches + 1e-9)
        self.encoder = PlainEncoder(args)
        self.decoder_embed = nn.Linear(args.encoder.width, size.width)
        self.mask_token = nn.Parameter(torch.randn(1, 1, size.width) * 0.02)
        self.register_buffer("decoder_positions", sincos_positions(size.width, args.side), persistent=False)
        self.decoder_blocks = nn.ModuleList(PlainBlock(size) for _ in range(size.depth))
        self.decoder_norm = nn.LayerNorm(size.width, eps=1e-6)
        self.reconstruct = nn.Linear(size.width, args.patch**2 * args.channels[0])

    def forward(self, tile: Tensor, noise: Tensor | None = None) -> Tensor:
        """Scalar loss. noise: [B, N]; the patches with the largest values are masked."""
        noise = torch.rand(len(tile), self.side**2, device=tile.device) if noise is None else noise
        order = noise.argsort(dim=1)
        restore = order.argsort(dim=1)
        x = self.decoder_embed(self.encoder(tile, order[:, : self.n_visible]))
        tokens = torch.cat([x[:, 1:], self.mask_token.expand(len(x), self.side**2 - self.n_visible, -1)], dim=1)
        tokens = tokens.gather(1, restore[..., None].expand(-1, -1, x.shape[2]))
        x = torch.cat([x[:, :1], tokens], dim=1) + self.decoder_positions
        for block in self.decoder_blocks:
            x = block(x)
        predicted = self.reconstruct(self.decoder_norm(x))[:, 1:]
        batch, channels, side, patch = len(tile), tile.shape[1], self.side, self.patch
        target = tile.reshape(batch, channels, side, patch, side, patch)
        target = target.permute(0, 2, 4, 3, 5, 1).reshape(batch, side * side, -1)
        error = (predicted - target).square().sum(dim=-1)
        mask = (restore >= self.n_visible).float()
        return (error * mask).sum() / mask.sum()


class PlainTask(nn.Module):
    """An encoder with a linear head on CLS. trainable: "probe", "last" (two blocks), "lora" or "all"."""

    def __init__(self, args: EncoderArgs, n_outputs: int, trainable: str) -> None:
        super().__init__()
        self.encoder = PlainEncoder(args)
        self.head = nn.Linear(args.encoder.width, n_outputs)
        self.encoder.requires_grad_(trainable == "all")
        if trainable == "last":
            self.encoder.blocks[-2:].requires_grad_(True)
        if trainable == "lora":
            for block in self.encoder.blocks:
                block.adapt(LORA_RANK)

    def forward(self, tile: Tensor) -> Tensor:
        return self.head(self.encoder(tile)[:, 0])


class HDF5Items(Dataset):
    """Items of an HDF5 file of float32 images, one read for each item and key; each process opens the file itself."""

    def __init__(self, path: Path, keys: tuple[str, ...], mean: float, std: float) -> None:
        self.path, self.keys, self.mean, self.std = path, keys, mean, std
        self.file: h5py.File | None = None
        with h5py.File(path) as file:
            self.length = len(file["image"])

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> tuple[Tensor, ...]:
        if self.file is None:
            self.file = h5py.File(self.path)
        image, *rest = (self.file[key][i] for key in self.keys)
        return (torch.from_numpy((image - self.mean) / self.std), *(torch.tensor(int(value)) for value in rest))


class PeerLoop:
    """Training as it is usually written.

    Parameters
    ----------
    model, items : what is trained on what.
    batch : items of a step.
    samples : items of a pass, in random order.
    workers : processes of the DataLoader, kept from pass to pass; at the end of a pass nothing is left to be read
        ahead.
    device : of torch.
    """

    def __init__(self, model: nn.Module, items: HDF5Items, batch: int, samples: int, workers: int, device: str) -> None:
        self.model, self.device, self.step, self.seen = model.to(device).train(), device, 0, 0
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-3, weight_decay=0.05)
        sampler = RandomSampler(items, num_samples=samples)
        self.loader = DataLoader(
            items, batch, sampler=sampler, num_workers=workers, persistent_workers=workers > 0, pin_memory=False
        )

    def train_pass(self) -> float:
        """Train on one pass; returns its mean loss."""
        losses = [self._train(batch) for batch in self._batches()]
        return sum(losses) / len(losses)

    def _batches(self) -> Iterator[list[Tensor]]:
        for batch in self.loader:
            yield [values.to(self.device) for values in batch]

    def _train(self, batch: list[Tensor]) -> float:
        self.seen += len(batch[0])
        self.step += 1
        for group in self.optimizer.param_groups:
            group["lr"] = 1e-3 * 0.5 * (1 + math.cos(math.pi * min(1.0, self.step / 10_000)))
        self.optimizer.zero_grad()
        loss = self.model(batch[0]) if len(batch) == 1 else F.cross_entropy(self.model(batch[0]), batch[1])
        loss.backward()
        self.optimizer.step()
        return loss.item()
