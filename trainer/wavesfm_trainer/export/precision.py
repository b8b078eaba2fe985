# SPDX-License-Identifier: GPL-3.0-or-later
"""A task model with half-precision arithmetic typed into it, for export: no engine has to guess what may be rounded.

Products with weights and of attention are in the half type; the residual stream, LayerNorm, softmax, the rate and the
last layer of the head stay in float32, where 16 bits overflow (norms of ViTs in float16) or lose what is asked for
(metres). Weights are rounded to the half type for good, and lie in the file as it.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from wavesfm_core.errors import ConfigurationError

from ..models.channel_model import ChannelModel
from ..models.lora import LoRAQKV
from ..models.task_model import BlockHead, TaskModel
from ..models.vit import Attention, Block

HALF_TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class HalfLinear(nn.Module):
    """A Linear in the half type, from whatever comes; its output is of the half type."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype, name: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(linear.weight.detach().to(dtype), requires_grad=False)
        self.bias = nn.Parameter(linear.bias.detach().to(dtype), requires_grad=False)
        if not all(bool(torch.isfinite(p).all()) for p in self.parameters()):
            largest = float(linear.weight.detach().abs().max())
            raise ConfigurationError(name, "precision", f"a weight of {largest:.3g}", f"values in the range of {dtype}")

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


class HalfAttention(nn.Module):
    """An Attention whose products are in the half type and whose softmax is in float32."""

    def __init__(self, attention: Attention, dtype: torch.dtype, name: str) -> None:
        super().__init__()
        if isinstance(attention.qkv, LoRAQKV):
            raise ConfigurationError(name, "qkv", "LoRA adapters", "merged weights")
        self.heads = attention.heads
        self.qkv = HalfLinear(attention.qkv, dtype, f"{name}.qkv")
        self.proj = HalfLinear(attention.proj, dtype, f"{name}.proj")

    def forward(self, x: Tensor, first: int | None = None) -> Tensor:
        """As `Attention.forward`, but the output is of the half type."""
        batch, tokens, width = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q = q if first is None else q[:, :, :first]
        scores = (q * (width // self.heads) ** -0.5) @ k.transpose(-2, -1)  # scaled first: smaller sums
        shares = scores.float().softmax(dim=-1).to(v.dtype)
        return self.proj((shares @ v).transpose(1, 2).flatten(2))


def typed(model: TaskModel | ChannelModel, precision: str) -> TaskModel | ChannelModel:
    """A copy of `model` (adapters merged) that computes in "fp16" or "bf16" as the module says; float32 in and out.

    Raises ConfigurationError for a weight that the type cannot hold.
    """
    if precision not in HALF_TYPES:
        raise ConfigurationError("precision", "precision", precision, f"one of {', '.join(HALF_TYPES)}")
    dtype, model = HALF_TYPES[precision], copy.deepcopy(model)
    encoder = model.encoder
    for channels, embed in encoder.patch_embed.items():
        encoder.patch_embed[channels] = HalfLinear(embed, dtype, f"patch_embed.{channels}")
    blocks = {f"blocks.{i}": block for i, block in enumerate(encoder.blocks)}
    if isinstance(model.head, BlockHead):
        model.head.embed = HalfLinear(model.head.embed, dtype, "head.embed")
        blocks["head.block"] = model.head.block
    for name, block in blocks.items():
        _type_block(block, dtype, name)
    return model.eval()


def _type_block(block: Block, dtype: torch.dtype, name: str) -> None:
    block.attn = HalfAttention(block.attn, dtype, f"{name}.attn")
    for layer in ("fc1", "fc2"):
        setattr(block.mlp, layer, HalfLinear(getattr(block.mlp, layer), dtype, f"{name}.mlp.{layer}"))
