# SPDX-License-Identifier: GPL-3.0-or-later
"""Low-rank adaptation of the query and value projections, and its exact merge.

References
----------
Paper, eq. 15 and 16; Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from wavesfm_core.errors import ConfigurationError


class LowRank(nn.Module):
    """The product of A [D, R] and B [R, D].

    A is normal with standard deviation 1 / sqrt(R) and B is zero, so that training starts at the unchanged encoder.
    """

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.A = nn.Parameter(torch.randn(width, rank) / rank**0.5)
        self.B = nn.Parameter(torch.zeros(rank, width))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., D] -> x A B [..., D]."""
        return x @ self.A @ self.B


class LoRAQKV(nn.Module):
    """A fused projection `qkv` with adapters: q + alpha x A_q B_q, k, v + alpha x A_v B_v.

    alpha multiplies as in the paper, without division by the rank or its square root.
    """

    def __init__(self, qkv: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.qkv, self.alpha = qkv, alpha
        self.lora_q = LowRank(qkv.in_features, rank)
        self.lora_v = LowRank(qkv.in_features, rank)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, N, D] -> [B, N, 3 D]."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return torch.cat([q + self.alpha * self.lora_q(x), k, v + self.alpha * self.lora_v(x)], dim=-1)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """One plain projection with the same output, summed in float64 and rounded once."""
        linear = nn.Linear(self.qkv.in_features, self.qkv.out_features, device="meta")
        q, k, v = self.qkv.weight.double().chunk(3)
        q = q + self.alpha * (self.lora_q.A.double() @ self.lora_q.B.double()).T
        v = v + self.alpha * (self.lora_v.A.double() @ self.lora_v.B.double()).T
        linear.weight = nn.Parameter(torch.cat([q, k, v]).to(self.qkv.weight.dtype))
        linear.bias = nn.Parameter(self.qkv.bias.detach().clone())
        return linear


def attach(model: nn.Module, rank: int, alpha: float) -> int:
    """Add adapters to every attention of `model`, in place.

    Parameters
    ----------
    model : a module whose attentions have a Linear `qkv`.
    rank : R, 1 to the width.
    alpha : factor on x A B.

    Returns
    -------
    The number of attentions.

    Raises
    ------
    ConfigurationError : a rank above the width, or a model that has adapters.
    """
    attentions = [m for m in model.modules() if isinstance(getattr(m, "qkv", None), nn.Linear)]
    for module in attentions:
        width = module.qkv.in_features
        if isinstance(module, LoRAQKV):
            raise ConfigurationError("lora", "model", "adapters", "a model without")
        if not 1 <= rank <= width:
            raise ConfigurationError("lora", "lora_rank", rank, f"1 to {width} (the width)")
        module.qkv = LoRAQKV(module.qkv, rank, alpha)
    return len(attentions)


def merge(model: nn.Module) -> int:
    """Fold all adapters of `model` into the projections that they adapt, in place.

    The result equals the adapted model within the rounding of float32. Gradients of the parameters are discarded.

    Returns
    -------
    The number of merged projections.
    """
    adapted = [m for m in model.modules() if isinstance(getattr(m, "qkv", None), LoRAQKV)]
    for module in adapted:
        module.qkv = module.qkv.merged()
    return len(adapted)
