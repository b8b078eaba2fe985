# SPDX-License-Identifier: GPL-3.0-or-later
"""The authors' published checkpoints into weights files of ours: every key mapped or named, and no pickle run.

Two layouts. "seed-paper": the masked autoencoder behind the paper, one or several patch embeddings, and its fine-tuned
models (linear head, or the single-block head of channel estimation). "v1": their later multimodal release, of which the
vision path is read; what belongs to raw IQ is named in the report and left.
"""

from __future__ import annotations

import argparse
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .mae import MaskedAutoencoder
from .registry import save
from .task_model import TaskArgs, TaskModel
from .vit import EncoderArgs, sincos_positions
from .weights import WeightsError, check_finite, check_state

logger = logging.getLogger(__name__)
WRAPPERS = ("module.", "_orig_mod.")  # what DistributedDataParallel and torch.compile put before each name

# Heads leave no trace in the shapes; these are the sizes that were published (depth, width): heads.
PUBLISHED_HEADS = {(4, 128): 4, (8, 256): 8, (12, 512): 8, (12, 768): 12, (24, 1024): 16, (32, 1280): 16}
NAMED_SIZES = {(8, 256, 8): "small", (12, 512, 8): "paper"}
IQ = re.compile(r"iq_.*|mod_ln_(scale|bias)\.iq")
TABLES = {
    "pos_embed": "encoder",
    "vis_pos_embed": "encoder",
    "decoder_pos_embed": "decoder",
    "vis_dec_pos_embed": "decoder",
}
PLAIN = {  # theirs -> ours, by pattern; what differs only in the encoder's prefix
    r"cls_token": "encoder.cls",
    r"(norm\.\w+)": r"encoder.\1",
    r"(blocks\.\d+\.(?:norm[12]|attn\.proj|mlp\.fc[12])\.\w+)": r"encoder.\1",
    r"(blocks\.\d+\.attn\.qkv\.(?:qkv\.)?(?:weight|bias))": r"encoder.\1",
    r"(blocks\.\d+\.attn\.qkv\.lora_[qv]\.[AB])": r"encoder.\1",
    r"mod_ln_(scale|bias)\.vision": r"encoder.film_\1",
    r"(mask_token|decoder_embed\.\w+|decoder_norm\.\w+|decoder_blocks\.\d+\..*)": r"\1",
    r"(head\.(?:weight|bias))": r"\1",
}


@dataclass(frozen=True)
class ImportOptions:
    """What a checkpoint does not say of itself.

    heads, decoder_heads: attention heads; 0: as published for that size (all published decoders have 16).
    image: side of the tile where no table of positions tells. mask_ratio: of further pre-training.
    pooling, squash: how a fine-tuned head was used. lora_alpha: the factor on x A B; for "v1" alpha / sqrt(rank).
    grid: (antennas, symbols, subcarriers) of a channel estimation head.
    """

    heads: int = 0
    decoder_heads: int = 16
    image: int = 224
    mask_ratio: float = 0.75
    pooling: str = "token"
    squash: bool = False
    lora_alpha: float = 0.0
    grid: tuple[int, ...] = (16, 14, 48)


@dataclass
class ImportReport:
    """What became of every key: mapped (theirs -> ours), and not used (theirs -> why); notes: what was assumed."""

    layout: str
    kind: str
    args: EncoderArgs | None = None
    mapped: dict[str, str] = field(default_factory=dict)
    not_used: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The report for a person: one line per key that was not simply mapped."""
        head = [f"{self.layout} checkpoint, {self.kind}: {len(self.mapped)} tensors mapped"]
        return head + [f"not used: {name}: {why}" for name, why in self.not_used.items()] + self.notes


def import_checkpoint(path: str | Path, out: str | Path, options: ImportOptions | None = None) -> ImportReport:
    """Read a published checkpoint, write a weights file that registry.load opens, and say what became of every key.

    WeightsError names the first key that is missing, unknown, or of another shape, and refuses whatever would need
    pickle to run code.
    """
    options = options or ImportOptions()
    theirs = read_state(path)
    reader = _Reader(str(path), theirs, options)
    model, state = reader.masked_autoencoder() if "mask_token" in theirs else reader.task_model()
    own = {name: tensor.shape for name, tensor in model.state_dict().items()}
    check_state(own, {name: (t.shape, t.dtype) for name, t in state.items()}, f"{path} (names of ours)")
    note = {"imported": reader.report.layout, "mapped": reader.report.mapped, "not_used": reader.report.not_used}
    save(out, model, extra=note, state=state)
    for line in reader.report.lines():
        logger.info("%s", line)
    return reader.report


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read the float32 tensors of a torch checkpoint: under "model" or "state_dict", or bare; without WRAPPERS.

    Only tensors, plain types and argparse.Namespace are unpickled (weights_only). Anything else is a WeightsError, and
    so are values that are not finite.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(path, "file", "nothing", "a checkpoint (.pth)") from None
    except (OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        raise WeightsError(path, "file", f"truncated or no checkpoint ({error})", "a file of torch.save") from None
    except Exception as error:  # the refusal of weights_only, a class of a module that nothing here may import
        name = re.search(r"GLOBAL (\S+)", str(error))
        found = name.group(1) if name else " ".join(str(error).split())[-200:]
        raise WeightsError(path, "pickle", found, "only tensors, plain types and argparse.Namespace") from None
    state = content
    if isinstance(content, Mapping):
        state = next((content[key] for key in ("model", "state_dict") if key in content), content)
    if not isinstance(state, Mapping) or not state:
        raise WeightsError(path, "model", type(state).__name__, "a dictionary of tensors")
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise WeightsError(path, f"model.{name}", type(tensor).__name__, "a tensor")
    found = _unwrapped({str(name): tensor.detach().float() for name, tensor in state.items()})
    check_finite(found, path)
    return found


def _unwrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefixes that all of them share."""
    while prefix := next((p for p in WRAPPERS if all(name.startswith(p) for name in state)), ""):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


class _Reader:
    """One checkpoint on its way: what it is, from its keys and shapes, and its tensors under our names."""

    def __init__(self, where: str, theirs: dict[str, Tensor], options: ImportOptions) -> None:
        self.where, self.theirs, self.options = where, theirs, options
        v1 = any(IQ.fullmatch(name) or name.startswith(("vis_", "mod_ln_")) for name in theirs)
        self.report = ImportReport("v1" if v1 else "seed-paper", "")
        for name in theirs:
            if v1 and IQ.fullmatch(name):
                self.report.not_used[name] = "of the raw IQ path, which this encoder does not have"
        self.embeddings = self._channels(r"(?:vis_)?patch_embed(?:\.\d+)?\.proj\.weight", 4)
        self.width = self._need("cls_token", 3).shape[2]
        self.depth = self._depth("blocks")

    def _need(self, name: str, dimensions: int) -> Tensor:
        if name not in self.theirs:
            raise WeightsError(self.where, name, "nothing", "a tensor of this name in a WavesFM checkpoint")
        if self.theirs[name].ndim != dimensions:
            raise WeightsError(self.where, name, tuple(self.theirs[name].shape), f"{dimensions} dimensions")
        return self.theirs[name]

    def _channels(self, pattern: str, dimensions: int) -> dict[int, str]:
        """Channel count -> key of the patch embedding."""
        found: dict[int, str] = {}
        for name in self.theirs:
            if re.fullmatch(pattern, name):
                channels = self._need(name, dimensions).shape[1]
                if channels in found:
                    raise WeightsError(self.where, name, f"{channels} channels again", "one per channel count")
                found[channels] = name
        if not found:
            raise WeightsError(self.where, "patch_embed.proj.weight", "nothing", "a patch embedding (vision path)")
        return found

    def _depth(self, part: str) -> int:
        numbers = {int(m.group(1)) for name in self.theirs if (m := re.match(rf"{part}\.(\d+)\.", name))}
        if numbers != set(range(len(numbers))) or not numbers:
            raise WeightsError(self.where, part, sorted(numbers), "blocks numbered from 0")
        return len(numbers)

    def _args(self, decoder: tuple[int, ...] | None, **fields: Any) -> EncoderArgs:
        heads = self.options.heads or PUBLISHED_HEADS.get((self.depth, self.width), 0)
        if not heads:
            found = f"{self.depth} x {self.width} with heads = 0"
            raise WeightsError(self.where, "heads", found, "the number of heads of a size that was not published")
        fields |= {"reading": "code", "film": "mod_ln_scale.vision" in self.theirs}
        fields |= {
            "channels": tuple(self.embeddings),
            "patch": self.theirs[next(iter(self.embeddings.values()))].shape[-1],
        }
        fields["image"] = self._image(fields["patch"])
        size = NAMED_SIZES.get((self.depth, self.width, heads))
        args = EncoderArgs(size=size or "custom", **fields) if size else None
        if args is None or (decoder and vars(args.decoder) != dict(zip(("depth", "width", "heads"), decoder))):
            decoder = decoder or (1, 4, 1)  # none, and none is built
            own = {"depth": self.depth, "width": self.width, "heads": heads}
            own |= dict(zip(("decoder_depth", "decoder_width", "decoder_heads"), decoder))
            args = EncoderArgs(size="custom", **own, **fields)
        self.report.args = args
        return args

    def _image(self, patch: int) -> int:
        for name in ("pos_embed", "vis_pos_embed"):
            if name in self.theirs:
                tokens = self._need(name, 3).shape[1] - 1
                side = round(tokens**0.5)
                if side * side != tokens:
                    raise WeightsError(self.where, name, f"{tokens} patches", "a square grid and CLS")
                return side * patch
        self.report.notes.append(f"no table of positions: tiles taken to be {self.options.image} pixels wide")
        return self.options.image

    def masked_autoencoder(self) -> tuple[nn.Module, dict[str, Tensor]]:
        """A pre-training checkpoint, decoder and all."""
        self.report.kind = "masked autoencoder"
        width = self._need("mask_token", 3).shape[2]
        args = self._args((self._depth("decoder_blocks"), width, self.options.decoder_heads))
        with torch.device("meta"):
            model = MaskedAutoencoder(args, self.options.mask_ratio)
        return model, self._map(args, self._reconstruction_heads())

    def _reconstruction_heads(self) -> dict[str, str]:
        """Their reconstruction heads -> ours; the i-th belongs to the i-th patch embedding."""
        renamed = {}
        for name in self.theirs:
            if m := re.fullmatch(r"(?:vis_decoder_pred|decoder_pred(?:\.(\d+))?)\.(weight|bias)", name):
                index = int(m.group(1) or 0)
                keys = [c for c, key in self.embeddings.items() if _index(key) == index]
                if not keys:
                    raise WeightsError(self.where, name, f"head {index}", "one per patch embedding")
                renamed[name] = f"reconstruct.{keys[0]}.{m.group(2)}"
        return renamed

    def task_model(self) -> tuple[nn.Module, dict[str, Tensor]]:
        """A fine-tuned checkpoint: linear head or block head, with or without adapters."""
        self.report.kind = "task model"
        decoder, block_head = None, "decoder_embed.weight" in self.theirs
        if not block_head:
            self._need("head.weight", 2)
        if block_head:
            width = self._need("decoder_embed.weight", 2).shape[0]
            decoder = (self._depth("decoder_blocks"), width, self.options.decoder_heads)
        fields: dict[str, Any] = {}
        if self.report.layout == "seed-paper":
            fields["block_eps"] = 1e-6
            self.report.notes.append("LayerNorm eps 1e-6 in the blocks, as the seed paper's fine-tuned models have it")
        args = self._args(decoder, **fields)
        state = self._map(args, self._block_head() if block_head else {})
        if "encoder.positions" in state:
            args = replace(args, positions="stored")
        if "channel_adapter.weight" in self.theirs:
            args = self._fold_channel_adapter(args, state)
        self.report.args = args
        task = self._task_args(state, block_head)
        with torch.device("meta"):
            model = TaskModel(args, task)
        model.pretrained = True
        return model, state

    def _block_head(self) -> dict[str, str]:
        parts = {"decoder_embed": "embed", "decoder_blocks.0": "block", "decoder_norm": "norm", "decoder_pred": "out"}
        renamed = {}
        for name in self.theirs:
            for theirs, ours in parts.items():
                if name.startswith(theirs + "."):
                    renamed[name] = f"head.{ours}{name.removeprefix(theirs)}"
        return renamed

    def _task_args(self, state: dict[str, Tensor], block_head: bool) -> TaskArgs:
        options, adapters = self.options, [n for n in state if n.endswith(".lora_q.A")]
        fields: dict[str, Any] = {"trainable": "all", "pooling": options.pooling}
        if adapters:
            if options.lora_alpha <= 0:
                expected = "the factor on x A B (lora_alpha), which the file does not hold"
                raise WeightsError(self.where, adapters[0], "adapters", expected)
            rank = state[adapters[0]].shape[1]
            fields |= {"trainable": "lora", "lora_rank": rank, "lora_alpha": options.lora_alpha}
        if block_head:
            return TaskArgs(head="block", grid=options.grid, **fields)
        output = "position" if options.squash else ""
        return TaskArgs(n_outputs=state["head.weight"].shape[0], output=output, squash=options.squash, **fields)

    def _fold_channel_adapter(self, args: EncoderArgs, state: dict[str, Tensor]) -> EncoderArgs:
        """Their 1 x 1 convolution of C channels into one, and the patch embedding after it, are one linear map."""
        mix = self._need("channel_adapter.weight", 4)
        if mix.shape[0] != 1 or mix.shape[2:] != (1, 1) or args.channels != (1,):
            raise WeightsError(
                self.where, "channel_adapter.weight", tuple(mix.shape), "1 x C x 1 x 1 before one channel"
            )
        channels = mix.shape[1]
        weight, bias = (state.pop(f"encoder.patch_embed.1.{name}") for name in ("weight", "bias"))
        folded = weight.double()[:, :, None] * mix.double().view(1, 1, -1)
        state[f"encoder.patch_embed.{channels}.weight"] = folded.flatten(1).float()
        state[f"encoder.patch_embed.{channels}.bias"] = bias
        ours = f"encoder.patch_embed.{channels}"
        self.report.mapped["channel_adapter.weight"] = f"{ours}.weight (folded)"
        for name, target in self.report.mapped.items():
            self.report.mapped[name] = target.replace("encoder.patch_embed.1.", f"{ours}.") if channels > 1 else target
        return replace(args, channels=(channels,))

    def _map(self, args: EncoderArgs, renamed: dict[str, str]) -> dict[str, Tensor]:
        """Every tensor under our name; WeightsError for a key that is neither mapped nor known to be of no use."""
        state: dict[str, Tensor] = {}
        for name, tensor in self.theirs.items():
            if name in self.report.not_used or name == "channel_adapter.weight":
                continue
            if name in TABLES:
                self._table(name, tensor, args, state)
                continue
            ours = renamed.get(name) or self._patch_embedding(name) or _plain(name)
            if ours is None:
                raise WeightsError(
                    self.where, name, "a key that is not known", f"a key of a {self.report.layout} model"
                )
            if ours in state:
                raise WeightsError(self.where, name, f"a second tensor for {ours}", "one")
            # A convolution's weight [D, C, P, P] is our matrix [D, P * P * C], row, column, channel.
            is_conv = ours.startswith("encoder.patch_embed.") and tensor.ndim == 4
            state[ours] = tensor.permute(0, 2, 3, 1).flatten(1).contiguous() if is_conv else tensor
            self.report.mapped[name] = ours
        return state

    def _patch_embedding(self, name: str) -> str | None:
        for channels, key in self.embeddings.items():
            if name in (key, key.removesuffix("weight") + "bias"):
                return f"encoder.patch_embed.{channels}.{name.rsplit('.', 1)[1]}"
        return None

    def _table(self, name: str, tensor: Tensor, args: EncoderArgs, state: dict[str, Tensor]) -> None:
        """A table of positions must be the computed one; a fine-tuned model may have trained its encoder's."""
        width = args.encoder.width if TABLES[name] == "encoder" else args.decoder.width
        expected = sincos_positions(width, args.side, "code")
        if tensor.shape == expected.shape and torch.allclose(tensor, expected, atol=1e-5):
            self.report.not_used[name] = "fixed positions, equal to the computed ones"
        elif tensor.shape == expected.shape and self.report.kind == "task model" and TABLES[name] == "encoder":
            state["encoder.positions"] = tensor
            self.report.mapped[name] = "encoder.positions"
            self.report.notes.append(f"{name} was trained: kept as stored positions")
        else:
            found = f"{tuple(tensor.shape)}" if tensor.shape != expected.shape else "other values"
            raise WeightsError(self.where, name, found, f"{tuple(expected.shape)}, sin-cos with the column first")


def _index(key: str) -> int:
    match = re.search(r"patch_embed\.(\d+)\.", key)
    return int(match.group(1)) if match else 0


def _plain(name: str) -> str | None:
    for pattern, ours in PLAIN.items():
        if match := re.fullmatch(pattern, name):
            return match.expand(ours)
    return None
