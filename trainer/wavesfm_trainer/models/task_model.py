# SPDX-License-Identifier: GPL-3.0-or-later
"""An encoder with a task head, and which of its parameters train.

References
----------
Paper, section IV.B and Algorithm 2.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from wavesfm_core.checks import require_rules
from wavesfm_core.errors import ConfigurationError

from . import lora
from .parameters import initialise, parameter_groups
from .step_random import StepRandom, set_step_random
from .vit import (
    READINGS,
    Block,
    Encoder,
    EncoderArgs,
    sincos_positions,
    take,
)

HEADS = ("linear", "block")
POOLINGS = ("token", "avg")
TRAINABLE = ("probe", "last", "lora", "all")
OUTPUTS = {"classification": "logits", "position": "position", "channel": "channel"}
"""Kind of a task -> name of the model's output in a bundle."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskArgs:
    """Task head and trainable parameters.

    Raises
    ------
    ConfigurationError : values that contradict each other; the error names the field.
    """

    head: str = "linear"
    """Kind of head. "linear": `n_outputs` values. "block": one ViT block whose output is a channel of shape `grid`."""
    n_outputs: int = 0
    """Outputs of a linear head; 0 with a block."""
    grid: tuple[int, ...] = ()
    """(antennas, symbols, subcarriers) of a block head's channel; empty with a linear head."""
    output: str = ""
    """Name of the output tensor in a bundle: "logits" or "position" for a linear head, "channel" for a block."""
    pooling: str = "token"
    """Input of a linear head: "token" (CLS) or "avg" (mean of the tokens)."""
    squash: bool = False
    """Apply tanh to a position, which bounds it to the area (in the authors' code, not in the paper)."""
    trainable: str = "last"
    """What trains. "probe": the head. "last": also the last `last_blocks` blocks. "lora": also adapters on query and
    value of all blocks (eq. 15 and 16). "all": everything; without pre-trained weights this is training from scratch
    (ViT-SL).
    """
    last_blocks: int = 2
    """Blocks that train with `trainable` "last"."""
    lora_rank: int = 50
    """Rank R of the adapters."""
    lora_alpha: float = 8.0
    """Factor alpha on x A B."""
    trainable_reading: str = "paper"
    """Parameters outside blocks and head that train.

    "paper": only those absent from the pre-trained weights (a patch embedding of another channel count, a CLS token).
    "code": also patch embedding, CLS, final norm, rate embedding and FiLM.
    """

    def __post_init__(self) -> None:
        linear = self.head == "linear"
        outputs = ("", "logits", "position") if linear else ("", "channel")
        grid = () if linear else "(antennas, symbols, subcarriers), each 1 to 4096"
        fits = self.grid == () if linear else len(self.grid) == 3 and all(1 <= n <= 4096 for n in self.grid)
        rules = {
            "head": (self.head in HEADS, f"one of {', '.join(HEADS)}"),
            "n_outputs": (
                1 <= self.n_outputs <= 65536 if linear else self.n_outputs == 0,
                "1 to 65536, 0 with a block",
            ),
            "grid": (fits, f"{grid} with head {self.head!r}"),
            "output": (self.output in outputs, f"{' or '.join(outputs[1:])} with head {self.head!r}"),
            "pooling": (self.pooling in POOLINGS, f"one of {', '.join(POOLINGS)}"),
            "squash": (not self.squash or self.output == "position", "False but for output 'position'"),
            "trainable": (self.trainable in TRAINABLE, f"one of {', '.join(TRAINABLE)}"),
            "last_blocks": (self.last_blocks >= 1, "1 or more"),
            "lora_rank": (self.lora_rank >= 1, "1 or more"),
            "lora_alpha": (0 < self.lora_alpha < float("inf"), "a positive number"),
            "trainable_reading": (self.trainable_reading in READINGS, f"one of {', '.join(READINGS)}"),
        }
        require_rules("TaskArgs", self, rules)

    @property
    def output_name(self) -> str:
        """Name of the output tensor in a bundle."""
        return self.output or ("logits" if self.head == "linear" else "channel")


class BlockHead(nn.Module):
    """One ViT block of the decoder's size that maps tokens to a channel.

    Token i after CLS becomes columns i w to (i + 1) w - 1 of the channel [2, antennas, symbols * subcarriers]. w is the
    largest divisor of the column count up to the patch size: 16 of 672 columns for the paper's 14 x 48 grid, so that
    the first 42 tokens are used, as in the authors' code. The paper does not define it. All tokens take part in the
    block's attention.

    Parameters
    ----------
    args : encoder and decoder sizes.
    grid : antennas, symbols, subcarriers.

    Raises
    ------
    ConfigurationError : the grid needs more tokens than a tile has patches.

    References
    ----------
    Paper, section IV.C.
    """

    def __init__(self, args: EncoderArgs, grid: tuple[int, ...]) -> None:
        super().__init__()
        self.antennas, columns = grid[0], grid[1] * grid[2]
        self.strip = max(w for w in range(1, args.patch + 1) if columns % w == 0)
        self.n_tokens = columns // self.strip
        if self.n_tokens > args.n_patches:
            expected = f"symbols * subcarriers in {args.n_patches} strips or fewer of up to {args.patch} columns"
            raise ConfigurationError("TaskArgs", "grid", grid, expected)
        size = args.decoder
        self.embed = nn.Linear(args.encoder.width, size.width)
        positions = sincos_positions(size.width, args.side, args.reading)
        self.register_buffer("positions", positions, persistent=False)
        self.block = Block(size, args.eps)
        self.norm = nn.LayerNorm(size.width, eps=1e-6)
        self.out = nn.Linear(size.width, 2 * self.antennas * self.strip)
        initialise(self)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [B, 1 + N, D] -> [B, 2, antennas, symbols * subcarriers], real and imaginary part."""
        x = self.block(self.embed(tokens) + self.positions, None, 1 + self.n_tokens)[:, 1:]
        x = self.out(self.norm(x)).view(-1, self.n_tokens, self.antennas, self.strip, 2)
        return x.permute(0, 4, 2, 1, 3).flatten(3)


class TaskModel(nn.Module):
    """An encoder with a task head.

    Its output is classification logits [B, L], a position [B, D] in -1 to 1, or a channel
    [B, 2, antennas, symbols * subcarriers], as wavesfm_core's heads read them.

    Parameters
    ----------
    encoder_args : of the encoder.
    task_args : head and trainable parameters.

    Attributes
    ----------
    pretrained : whether the encoder was initialised from pre-trained weights.
    new : names of encoder tensors that those weights lacked; they always train.

    Raises
    ------
    ConfigurationError : the task does not fit the encoder.
    """

    def __init__(self, encoder_args: EncoderArgs, task_args: TaskArgs) -> None:
        super().__init__()
        self.encoder_args, self.task_args = encoder_args, task_args
        self.step_random: StepRandom | None = None
        self.encoder = Encoder(encoder_args)
        width, depth = encoder_args.encoder.width, encoder_args.encoder.depth
        if task_args.head == "linear":
            self.head: nn.Module = nn.Linear(width, task_args.n_outputs)
            nn.init.trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)
        else:
            self.head = BlockHead(encoder_args, task_args.grid)
        if task_args.trainable == "last" and task_args.last_blocks > depth:
            raise ConfigurationError("TaskArgs", "last_blocks", task_args.last_blocks, f"1 to {depth} (the depth)")
        if task_args.trainable == "lora":
            lora.attach(self.encoder, task_args.lora_rank, task_args.lora_alpha)
        self.pretrained = False
        self.new: tuple[str, ...] = ()
        self.set_trainable()

    def set_step_random(self, step_random: StepRandom | None) -> None:
        """Set the source of stochastic depth for a training step."""
        set_step_random(self, step_random)

    def forward(self, tile: Tensor, log10_rate: Tensor | None = None, keep: Tensor | None = None) -> Tensor:
        """Outputs of a batch.

        Parameters
        ----------
        tile : float32 [B, C, H, W].
        log10_rate : float32 [B, 1], log10 of the sample rate in Hz; 0 or None: unknown.
        keep : int64 [B, n], patches to compute (see patch_sampling.draw_patches); None: all.

        Raises
        ------
        ConfigurationError : `keep` with a block head, which needs every patch.
        """
        if keep is not None and self.task_args.head == "block":
            raise ConfigurationError("TaskModel", "keep", "indices", "None with head 'block', which needs every patch")
        patches = self.encoder.patchify(tile)
        if keep is not None:
            patches = take(patches, keep)
        return self._finish(self.encoder.embed(patches, tile.shape[1], log10_rate, keep), 0)

    def _finish(self, x: Tensor, start: int) -> Tensor:
        x = self._features(x, start)
        x = self.head(x)
        return x.tanh() if self.task_args.squash else x

    def _features(self, x: Tensor, start: int) -> Tensor:
        """Input of the head: [B, D] for a linear one, else all tokens [B, 1 + N, D]."""
        only_cls = self.task_args.head == "linear" and self.task_args.pooling == "token"
        x = self.encoder.norm(self.encoder.run(x, start, first=1 if only_cls else None))
        if only_cls:
            return x[:, 0]
        if self.task_args.head == "block":
            return x
        return x.mean(dim=1) if self.encoder_args.reading == "paper" else x[:, 1:].mean(dim=1)

    # What trains

    def set_trainable(self) -> None:
        """Freeze and release parameters as the task's arguments require.

        Frozen blocks have no stochastic depth: it regularises training blocks only, would be noise elsewhere, and would
        prevent caching the output of the frozen blocks.
        """
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(self._trains(name))
        rates = self.encoder_args.drop_path
        for i, block in enumerate(self.encoder.blocks):
            trains = any(p.requires_grad for p in block.parameters())
            self.encoder.drop_path[i] = rates * i / max(1, len(self.encoder.blocks) - 1) if trains else 0.0

    def _trains(self, name: str) -> bool:
        args = self.task_args
        if args.trainable == "all" or name.startswith("head.") or name in self.new:
            return True
        part = name.removeprefix("encoder.")
        if part.startswith("blocks."):
            last = int(part.split(".")[1]) >= self.encoder_args.encoder.depth - args.last_blocks
            return (args.trainable == "last" and last) or (args.trainable == "lora" and ".lora_" in part)
        return args.trainable_reading == "code"

    def prefix_depth(self) -> int:
        """Number of leading blocks that are frozen and deterministic; 0 if anything before them trains."""
        before = [p for name, p in self.encoder.named_parameters() if not name.startswith(("blocks.", "norm."))]
        if any(p.requires_grad for p in before):
            return 0
        trains = [any(p.requires_grad for p in block.parameters()) for block in self.encoder.blocks]
        return trains.index(True) if True in trains else len(trains)

    def _features_frozen(self) -> bool:
        norm = any(p.requires_grad for p in self.encoder.norm.parameters())
        return self.prefix_depth() == len(self.encoder.blocks) and not norm

    @torch.no_grad()
    def prefix(self, tile: Tensor, log10_rate: Tensor | None = None) -> Tensor:
        """Output of the frozen blocks, for caching.

        Parameters
        ----------
        tile, log10_rate : as for `forward`.

        Returns
        -------
        Tokens [B, 1 + N, D]. If only the head trains: its input, which is [B, D] for a linear head.
        """
        depth = self.prefix_depth()
        x = self.encoder.embed(self.encoder.patchify(tile), tile.shape[1], log10_rate)
        if self._features_frozen():
            return self._features(x, 0)
        return self.encoder.run(x, 0, depth)

    def from_prefix(self, tokens: Tensor) -> Tensor:
        """Outputs from a result of `prefix`; equal to those of `forward`."""
        if not self._features_frozen():
            return self._finish(tokens, self.prefix_depth())
        x = self.head(tokens)
        return x.tanh() if self.task_args.squash else x

    def parameter_groups(self, lr: float, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
        """Optimiser groups of the trainable parameters, see parameters.parameter_groups.

        Parameters
        ----------
        lr, weight_decay : of the groups.
        layer_decay : d in (0, 1]. Block i of K has lr * d ** (K - i), parameters before the blocks lr * d ** (K + 1),
            final norm, FiLM and head lr.

        Raises
        ------
        ConfigurationError : a layer_decay outside (0, 1].
        """
        if not 0 < layer_decay <= 1:
            raise ConfigurationError("TaskModel", "layer_decay", layer_decay, "above 0, up to 1")
        if self.task_args.trainable != "all" and not self.pretrained:
            logger.warning(
                "trainable %r without pre-trained weights: the frozen parameters are random", self.task_args.trainable
            )
        depth = self.encoder_args.encoder.depth

        def scale(name: str) -> float:
            parts = name.split(".")
            if parts[0] == "head" or parts[1] in ("norm", "film_scale", "film_bias"):
                return 1.0
            return layer_decay ** (depth - int(parts[2]) if parts[1] == "blocks" else depth + 1)

        return parameter_groups(self.named_parameters(), lr, weight_decay, scale)

    def merge(self) -> int:
        """Fold LoRA adapters into the encoder, in place; the merged model has none when saved.

        Returns
        -------
        The number of merged projections.
        """
        merged = lora.merge(self.encoder)
        if merged:
            self.task_args = replace(self.task_args, trainable="all")
            self.set_trainable()
        return merged

    def config(self) -> dict[str, Any]:
        """Arguments beside the encoder's that a weights file stores."""
        return {"task": asdict(self.task_args), "pretrained": self.pretrained, "new": list(self.new)}
