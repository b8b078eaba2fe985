# SPDX-License-Identifier: GPL-3.0-or-later
"""Convert the authors' published checkpoints into weights files, without running pickle code.

Every key is mapped or reported. Two layouts are read. "seed-paper": the masked autoencoder of the paper, with one or
several patch embeddings, and its fine-tuned models (linear head, or the single-block head of channel estimation). "v1":
the vision path of the later multimodal release; tensors of its raw IQ path are reported as not used.
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

# Shapes do not reveal the number of heads. Published sizes: (depth, width) -> heads.
PUBLISHED_HEADS = {(4, 128): 4, (8, 256): 8, (12, 512): 8, (12, 768): 12, (24, 1024): 16, (32, 1280): 16}
NAMED_SIZES = {(8, 256, 8): "small", (12, 512, 8): "paper"}
IQ = re.compile(r"iq_.*|mod_ln_(scale|bias)\.iq")
TABLES = {
    "pos_embed": "encoder",
    "vis_pos_embed": "encoder",
    "decoder_pos_embed": "decoder",
    "vis_dec_pos_embed": "decoder",
}
PLAIN = {  # pattern of a name in the checkpoint -> name in a weights file; most differ only in the prefix "encoder."
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
    """Properties that a checkpoint does not contain."""

    heads: int = 0
    """Attention heads of the encoder; 0: as published for its size."""
    decoder_heads: int = 16
    """Attention heads of the decoder; all published decoders have 16."""
    image: int = 224
    """Side of a tile in pixels, used if the checkpoint has no table of positions."""
    mask_ratio: float = 0.75
    """Mask ratio of further pre-training."""
    pooling: str = "token"
    """Input of a fine-tuned linear head: "token" or "avg"."""
    squash: bool = False
    """Whether a fine-tuned head has a tanh (positions)."""
    lora_alpha: float = 0.0
    """Factor on x A B of adapters; for "v1" alpha / sqrt(rank)."""
    grid: tuple[int, ...] = (16, 14, 48)
    """(antennas, symbols, subcarriers) of a channel estimation head."""


@dataclass
class ImportReport:
    """What became of every key of a checkpoint."""

    layout: str
    """Layout of the checkpoint: "seed-paper" or "v1"."""
    kind: str
    """Kind of model: "masked autoencoder" or "task model"."""
    args: EncoderArgs | None = None
    """Arguments of the encoder."""
    mapped: dict[str, str] = field(default_factory=dict)
    """Name in the checkpoint -> name in the weights file."""
    not_used: dict[str, str] = field(default_factory=dict)
    """Name in the checkpoint -> why it was not used."""
    notes: list[str] = field(default_factory=list)
    """Assumptions that were made."""

    def lines(self) -> list[str]:
        """The report as text, with one line per key that was not simply mapped."""
        head = [f"{self.layout} checkpoint, {self.kind}: {len(self.mapped)} tensors mapped"]
        return head + [f"not used: {name}: {why}" for name, why in self.not_used.items()] + self.notes


def import_checkpoint(path: str | Path, out: str | Path, options: ImportOptions | None = None) -> ImportReport:
    """Convert a published checkpoint into a weights file that `registry.load` opens.

    Parameters
    ----------
    path : checkpoint of torch.save.
    out : weights file to write.
    options : properties that the checkpoint does not contain.

    Returns
    -------
    What became of every key.

    Raises
    ------
    WeightsError : a key that is missing, unknown, or of another shape, or contents that would need pickle to run code.
    """
    options = options or ImportOptions()
    checkpoint = read_state(path)
    reader = _Reader(str(path), checkpoint, options)
    model, state = reader.masked_autoencoder() if "mask_token" in checkpoint else reader.task_model()
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    check_state(
        expected, {name: (t.shape, t.dtype) for name, t in state.items()}, f"{path} (names of the weights file)"
    )
    note = {"imported": reader.report.layout, "mapped": reader.report.mapped, "not_used": reader.report.not_used}
    save(out, model, extra=note, state=state)
    for line in reader.report.lines():
        logger.info("%s", line)
    return reader.report


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a torch checkpoint, as float32: under "model" or "state_dict", or bare; without WRAPPERS.

    Only tensors, plain types and argparse.Namespace are unpickled (weights_only).

    Raises
    ------
    WeightsError : no such file, a damaged file, other contents, or values that are not finite.
    """
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise WeightsError(path, "file", "nothing", "a checkpoint (.pth)") from None
    except (OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        raise WeightsError(path, "file", f"truncated or no checkpoint ({error})", "a file of torch.save") from None
    except Exception as error:  # weights_only refuses a class
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
    """One checkpoint: its layout and sizes from keys and shapes, and its tensors under new names."""

    def __init__(self, where: str, checkpoint: dict[str, Tensor], options: ImportOptions) -> None:
        self.where, self.checkpoint, self.options = where, checkpoint, options
        v1 = any(IQ.fullmatch(name) or name.startswith(("vis_", "mod_ln_")) for name in checkpoint)
        self.report = ImportReport("v1" if v1 else "seed-paper", "")
        for name in checkpoint:
            if v1 and IQ.fullmatch(name):
                self.report.not_used[name] = "part of the raw IQ path, which this encoder does not have"
        self.embeddings = self._channels(r"(?:vis_)?patch_embed(?:\.\d+)?\.proj\.weight", 4)
        self.width = self._need("cls_token", 3).shape[2]
        self.depth = self._depth("blocks")

    def _need(self, name: str, dimensions: int) -> Tensor:
        if name not in self.checkpoint:
            raise WeightsError(self.where, name, "nothing", "a tensor of this name in a WavesFM checkpoint")
        if self.checkpoint[name].ndim != dimensions:
            raise WeightsError(self.where, name, tuple(self.checkpoint[name].shape), f"{dimensions} dimensions")
        return self.checkpoint[name]

    def _channels(self, pattern: str, dimensions: int) -> dict[int, str]:
        """Channel count -> key of its patch embedding."""
        found: dict[int, str] = {}
        for name in self.checkpoint:
            if re.fullmatch(pattern, name):
                channels = self._need(name, dimensions).shape[1]
                if channels in found:
                    raise WeightsError(self.where, name, f"{channels} channels again", "one per channel count")
                found[channels] = name
        if not found:
            raise WeightsError(self.where, "patch_embed.proj.weight", "nothing", "a patch embedding (vision path)")
        return found

    def _depth(self, part: str) -> int:
        numbers = {int(m.group(1)) for name in self.checkpoint if (m := re.match(rf"{part}\.(\d+)\.", name))}
        if numbers != set(range(len(numbers))) or not numbers:
            raise WeightsError(self.where, part, sorted(numbers), "blocks numbered from 0")
        return len(numbers)

    def _args(self, decoder: tuple[int, ...] | None, **fields: Any) -> EncoderArgs:
        heads = self.options.heads or PUBLISHED_HEADS.get((self.depth, self.width), 0)
        if not heads:
            found = f"{self.depth} x {self.width} with heads = 0"
            raise WeightsError(self.where, "heads", found, "the number of heads of a size that was not published")
        fields |= {"reading": "code", "film": "mod_ln_scale.vision" in self.checkpoint}
        fields |= {
            "channels": tuple(self.embeddings),
            "patch": self.checkpoint[next(iter(self.embeddings.values()))].shape[-1],
        }
        fields["image"] = self._image(fields["patch"])
        size = NAMED_SIZES.get((self.depth, self.width, heads))
        args = EncoderArgs(size=size or "custom", **fields) if size else None
        if args is None or (decoder and vars(args.decoder) != dict(zip(("depth", "width", "heads"), decoder))):
            decoder = decoder or (1, 4, 1)  # a placeholder: no decoder is built
            custom = {"depth": self.depth, "width": self.width, "heads": heads}
            custom |= dict(zip(("decoder_depth", "decoder_width", "decoder_heads"), decoder))
            args = EncoderArgs(size="custom", **custom, **fields)
        self.report.args = args
        return args

    def _image(self, patch: int) -> int:
        for name in ("pos_embed", "vis_pos_embed"):
            if name in self.checkpoint:
                tokens = self._need(name, 3).shape[1] - 1
                side = round(tokens**0.5)
                if side * side != tokens:
                    raise WeightsError(self.where, name, f"{tokens} patches", "a square grid and CLS")
                return side * patch
        self.report.notes.append(f"no table of positions: tiles taken to be {self.options.image} pixels wide")
        return self.options.image

    def masked_autoencoder(self) -> tuple[nn.Module, dict[str, Tensor]]:
        """The model (on the meta device) and state of a pre-training checkpoint, with its decoder."""
        self.report.kind = "masked autoencoder"
        width = self._need("mask_token", 3).shape[2]
        args = self._args((self._depth("decoder_blocks"), width, self.options.decoder_heads))
        with torch.device("meta"):
            model = MaskedAutoencoder(args, self.options.mask_ratio)
        return model, self._map(args, self._reconstruction_heads())

    def _reconstruction_heads(self) -> dict[str, str]:
        """New names of the reconstruction heads; the i-th head belongs to the i-th patch embedding."""
        renamed = {}
        for name in self.checkpoint:
            if m := re.fullmatch(r"(?:vis_decoder_pred|decoder_pred(?:\.(\d+))?)\.(weight|bias)", name):
                index = int(m.group(1) or 0)
                keys = [c for c, key in self.embeddings.items() if _index(key) == index]
                if not keys:
                    raise WeightsError(self.where, name, f"head {index}", "one per patch embedding")
                renamed[name] = f"reconstruct.{keys[0]}.{m.group(2)}"
        return renamed

    def task_model(self) -> tuple[nn.Module, dict[str, Tensor]]:
        """The model (on the meta device) and state of a fine-tuned checkpoint, with or without adapters."""
        self.report.kind = "task model"
        decoder, block_head = None, "decoder_embed.weight" in self.checkpoint
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
        if "channel_adapter.weight" in self.checkpoint:
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
        for name in self.checkpoint:
            for source, target in parts.items():
                if name.startswith(source + "."):
                    renamed[name] = f"head.{target}{name.removeprefix(source)}"
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
        """Fold the 1 x 1 convolution of C channels into one and the patch embedding after it into one linear map."""
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
        self.report.mapped["channel_adapter.weight"] = f"encoder.patch_embed.{channels}.weight (folded)"
        for name, target in self.report.mapped.items():
            self.report.mapped[name] = target.replace("encoder.patch_embed.1.", f"encoder.patch_embed.{channels}.")
        return replace(args, channels=(channels,))

    def _map(self, args: EncoderArgs, renamed: dict[str, str]) -> dict[str, Tensor]:
        """Every tensor under its new name; WeightsError for a key that is neither mapped nor known to be unused."""
        state: dict[str, Tensor] = {}
        for name, tensor in self.checkpoint.items():
            if name in self.report.not_used or name == "channel_adapter.weight":
                continue
            if name in TABLES:
                self._table(name, tensor, args, state)
                continue
            target = renamed.get(name) or self._patch_embedding(name) or _plain(name)
            if target is None:
                raise WeightsError(
                    self.where, name, "a key that is not known", f"a key of a {self.report.layout} model"
                )
            if target in state:
                raise WeightsError(self.where, name, f"a second tensor for {target}", "one")
            # A convolution's weight [D, C, P, P] becomes a matrix [D, P * P * C]: row, column, channel.
            is_conv = target.startswith("encoder.patch_embed.") and tensor.ndim == 4
            state[target] = tensor.permute(0, 2, 3, 1).flatten(1).contiguous() if is_conv else tensor
            self.report.mapped[name] = target
        return state

    def _patch_embedding(self, name: str) -> str | None:
        for channels, key in self.embeddings.items():
            if name in (key, key.removesuffix("weight") + "bias"):
                return f"encoder.patch_embed.{channels}.{name.rsplit('.', 1)[1]}"
        return None

    def _table(self, name: str, tensor: Tensor, args: EncoderArgs, state: dict[str, Tensor]) -> None:
        """Check that a table of positions is the computed one; keep an encoder table that fine-tuning has trained."""
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
    for pattern, target in PLAIN.items():
        if match := re.fullmatch(pattern, name):
            return match.expand(target)
    return None
