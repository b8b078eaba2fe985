# SPDX-License-Identifier: GPL-3.0-or-later
"""An encoder with the head of a task, and which of it trains (paper, section IV.B, Algorithm 2)."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from wavesfm_core.errors import ConfigurationError

from . import lora
from .registry import load, read
from .step_random import Draws, set_draws
from .vit import (
    READINGS,
    Block,
    Encoder,
    EncoderArgs,
    initialise,
    parameter_groups,
    refuse,
    sincos_positions,
    take,
)
from .weights import Weights, WeightsError, config_of, encoder_args

HEADS = ("linear", "block")
POOLINGS = ("token", "avg")
TRAINABLE = ("probe", "last", "lora", "all")
OUTPUTS = ("logits", "position", "channel")
PRETRAINED = ("masked_autoencoder", "task_model")  # kinds of weights files to start from

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskArgs:
    """What is put on an encoder and what of it trains; contradictions are refused by name (ConfigurationError).

    head: "linear" with n_outputs, or "block": one ViT block for a channel of `grid` (antennas, symbols, subcarriers).
    output: the tensor's name in a bundle, "logits" or "position" with a linear head, "channel" with a block.
    pooling: what a linear head sees: "token" (CLS), or "avg" over the tokens.
    squash: tanh on a position, which keeps it between the corners of the area (in the authors' code, not in the paper).
    trainable: "probe" the head; "last" the last_blocks blocks too; "lora" adapters of lora_rank on query and value of
        all blocks, times lora_alpha (eq. 15, 16); "all" everything (with no pre-trained weights: from scratch, ViT-SL).
    trainable_reading: "paper": else the backbone is frozen, but for what pre-training never saw (a patch embedding of
        another channel count, a CLS token); "code": patch embedding, CLS, the last norm, rate and film train always.
    """

    head: str = "linear"
    n_outputs: int = 0
    grid: tuple[int, ...] = ()
    output: str = ""
    pooling: str = "token"
    squash: bool = False
    trainable: str = "last"
    last_blocks: int = 2
    lora_rank: int = 50
    lora_alpha: float = 8.0
    trainable_reading: str = "paper"

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
        refuse("TaskArgs", self, rules)

    @property
    def output_name(self) -> str:
        """Name of the output in a bundle."""
        return self.output or ("logits" if self.head == "linear" else "channel")


class BlockHead(nn.Module):
    """One ViT block of the decoder's size that turns tokens into a channel (section IV.C).

    Token i after CLS becomes columns i w to (i + 1) w of the channel [2, antennas, symbols * subcarriers]; w is the
    largest divisor of the columns up to the patch size (16 of 672 for the paper's 14 x 48 grid: the first 42 tokens,
    as in the authors' code; the paper does not say). All tokens take part in the block's attention.
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
        """[B, 1 + N, D] -> [B, 2, antennas, symbols * subcarriers], real and imaginary part."""
        x = self.block(self.embed(tokens) + self.positions, None, 1 + self.n_tokens)[:, 1:]
        x = self.out(self.norm(x)).view(-1, self.n_tokens, self.antennas, self.strip, 2)
        return x.permute(0, 4, 2, 1, 3).flatten(3)


@dataclass(frozen=True)
class Loaded:
    """What became of pre-trained weights: names of this model that were taken, and that are new (start at random);
    unused: names in the file that this model has no place for (decoder, other channel counts)."""

    taken: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]


class TaskModel(nn.Module):
    """tile float32 [B, C, H, W], log10_rate [B, 1] or None -> what core's heads read.

    Classification logits [B, L], position [B, D], or channel [B, 2, antennas, symbols * subcarriers].
    """

    def __init__(self, encoder_args: EncoderArgs, task_args: TaskArgs) -> None:
        super().__init__()
        self.encoder_args, self.task_args = encoder_args, task_args
        self.draws: Draws | None = None
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

    def set_draws(self, draws: Draws | None) -> None:
        """Where stochastic depth takes its randomness from while training."""
        set_draws(self, draws)

    def forward(self, tile: Tensor, log10_rate: Tensor | None = None, keep: Tensor | None = None) -> Tensor:
        """Outputs of a batch; keep: [B, n], patches to look at (see vit.draw_patches), None: all."""
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
        """What the head sees: [B, D] for a linear one, else all tokens [B, 1 + N, D]."""
        only_cls = self.task_args.head == "linear" and self.task_args.pooling == "token"
        x = self.encoder.norm(self.encoder.run(x, start, first=1 if only_cls else None))
        if only_cls:
            return x[:, 0]
        if self.task_args.head == "block":
            return x
        return x.mean(dim=1) if self.encoder_args.reading == "paper" else x[:, 1:].mean(dim=1)

    # What trains

    def set_trainable(self) -> None:
        """Freeze and release parameters as the task's args say; frozen blocks lose their stochastic depth.

        Stochastic depth is a regulariser of what trains; where nothing does it would only be noise, and keep the
        frozen blocks' output from being cached.
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
        """Leading blocks that are frozen and deterministic; 0 when anything before them trains."""
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
        """What the frozen blocks make of a batch, to be kept: tokens [B, 1 + N, D].

        When nothing but the head trains, what the head sees instead: [B, D] for a linear one.
        """
        depth = self.prefix_depth()
        x = self.encoder.embed(self.encoder.patchify(tile), tile.shape[1], log10_rate)
        if self._features_frozen():
            return self._features(x, 0)
        return self.encoder.run(x, 0, depth)

    def from_prefix(self, tokens: Tensor) -> Tensor:
        """Outputs from what `prefix` returned: the same as forward's."""
        if not self._features_frozen():
            return self._finish(tokens, self.prefix_depth())
        x = self.head(tokens)
        return x.tanh() if self.task_args.squash else x

    def parameter_groups(self, lr: float, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
        """Optimiser groups of what trains, see vit.parameter_groups.

        layer_decay d: block i of K has lr * d ** (K - i), what comes before the blocks d ** (K + 1), norm, film and
        head 1.
        """
        if not 0 < layer_decay <= 1:
            raise ConfigurationError("TaskModel", "layer_decay", layer_decay, "above 0, up to 1")
        if self.task_args.trainable != "all" and not self.pretrained:
            logger.warning("trainable %r without pre-trained weights: frozen at random", self.task_args.trainable)
        depth = self.encoder_args.encoder.depth

        def scale(name: str) -> float:
            parts = name.split(".")
            if parts[0] == "head" or parts[1] in ("norm", "film_scale", "film_bias"):
                return 1.0
            return layer_decay ** (depth - int(parts[2]) if parts[1] == "blocks" else depth + 1)

        return parameter_groups(self.named_parameters(), lr, weight_decay, scale)

    # Weights

    def load_pretrained(self, weights: Weights, decoder_into_head: bool = False, head: bool = False) -> Loaded:
        """Take the encoder of a MaskedAutoencoder's or a TaskModel's file (registry.read); WeightsError unless it fits.

        New may be only the head, adapters, a patch embedding for a channel count that the file lacks, and a CLS token
        that it was pre-trained without. decoder_into_head: a block head takes the decoder's embedding, first block and
        norm, as happens in the authors' code. head: a TaskModel's head is taken too, to go on with the same task.
        Adapters in the file are merged first.
        """
        self._check_same_encoder(weights)
        weights = _merged(weights)
        state, own = dict(weights.state), self.state_dict(keep_vars=True)
        if weights.kind == "task_model" and not head:
            state = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
        sources = {name: _source(name, decoder_into_head) for name in own}
        taken = tuple(name for name in own if sources[name] in state)
        new = tuple(name for name in own if sources[name] not in state)
        for name in new:
            if not self._may_be_new(name, weights):
                raise WeightsError(weights.where, sources[name], "nothing", f"{_shape(own[name])}")
        unused = tuple(name for name in state if name not in {sources[n] for n in taken})
        for name in unused:
            if name.startswith("encoder.") and not name.startswith("encoder.patch_embed."):
                raise WeightsError(weights.where, name, "a tensor", "none of this name")
        for name in taken:
            if state[sources[name]].shape != own[name].shape:
                raise WeightsError(weights.where, sources[name], _shape(state[sources[name]]), _shape(own[name]))
        with torch.no_grad():
            for name in taken:
                own[name].copy_(state[sources[name]])
        self.pretrained = True
        self.new = tuple(name for name in new if not name.startswith("head.") and ".lora_" not in name)
        self.set_trainable()
        return Loaded(taken, new, unused)

    def _check_same_encoder(self, weights: Weights) -> None:
        if weights.kind not in PRETRAINED:
            raise WeightsError(weights.where, "kind", weights.kind, f"{' or '.join(PRETRAINED)} (pre-trained weights)")
        theirs = encoder_args(weights)
        same = replace(theirs, channels=self.encoder_args.channels, drop_path=self.encoder_args.drop_path)
        for name, value in vars(same).items():
            if value != getattr(self.encoder_args, name):
                raise WeightsError(weights.where, f"encoder.{name}", value, repr(getattr(self.encoder_args, name)))

    def _may_be_new(self, name: str, weights: Weights) -> bool:
        if name.startswith(("head.", "encoder.patch_embed.")) or ".lora_" in name:
            return _known_channels(name, weights) is False
        return name == "encoder.cls" and not weights.config.get("cls_in_pretraining", True)

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        task_args: TaskArgs,
        channels: int,
        drop_path: float = 0.0,
        decoder_into_head: bool = False,
    ) -> tuple[TaskModel, Loaded]:
        """A task model of the encoder in a weights file, for tiles of `channels` channels; see `load_pretrained`."""
        weights = read(path)
        args = replace(encoder_args(weights), channels=(channels,), drop_path=drop_path)
        model = cls(args, task_args)
        return model, model.load_pretrained(weights, decoder_into_head)

    def merge(self) -> int:
        """Fold the LoRA adapters into the encoder, in place; returns how many. Saved again, there are none."""
        merged = lora.merge(self.encoder)
        if merged:
            self.task_args = replace(self.task_args, trainable="all")
            self.set_trainable()
        return merged

    def config(self) -> dict[str, Any]:
        """What `weights` needs to build this model again."""
        return {"task": config_of(self.task_args), "pretrained": self.pretrained, "new": list(self.new)}


def _merged(weights: Weights) -> Weights:
    """The same without adapters, which are folded into what they adapt."""
    if not any(".lora_" in name for name in weights.state):
        return weights
    model = load(weights.where)
    model.merge()
    return replace(weights, state=model.state_dict())


def _source(name: str, decoder_into_head: bool) -> str:
    """Name in a MaskedAutoencoder's file of what `name` of a TaskModel takes."""
    name = name.replace(".attn.qkv.qkv.", ".attn.qkv.")
    if decoder_into_head and name.startswith("head."):
        for ours, theirs in (("embed", "decoder_embed"), ("block", "decoder_blocks.0"), ("norm", "decoder_norm")):
            if name.startswith(f"head.{ours}."):
                return name.replace(f"head.{ours}", theirs)
    return name


def _known_channels(name: str, weights: Weights) -> bool:
    """Whether `name` is a patch embedding for a channel count that the file's args list (then it must be there)."""
    parts = name.split(".")
    return parts[1] == "patch_embed" and int(parts[2]) in encoder_args(weights).channels


def _shape(tensor: Tensor) -> str:
    return "x".join(str(n) for n in tensor.shape) or "a scalar"
