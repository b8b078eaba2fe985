"""Figures of a trained model on held-back synthetic tiles, through the same interface as a live flowgraph."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from wavesfm_core.engines.base import Engine
from wavesfm_core.errors import InputError
from wavesfm_core.spec import SpectrogramSpec, from_dict

from .model import SIZES, ViT
from .synthetic import synthetic_report
from .tiles import Tiles

__all__ = ["TorchEngine", "Trained", "load_run", "predict_tiles", "synthetic_report"]


@dataclass(frozen=True)
class Trained:
    """A run read back: the model in eval mode, its preprocessing and its labels."""

    model: ViT
    preprocess: SpectrogramSpec
    labels: tuple[str, ...]
    config: dict


def load_run(run: Path) -> Trained:
    """Read a run directory (config.json, model.safetensors), strictly. Raises InputError."""
    for name in ("config.json", "model.safetensors"):
        if not (run / name).is_file():
            raise InputError(run / name, "file", "nothing", "what wavesfm-train train leaves")
    config = json.loads((run / "config.json").read_text())
    labels = tuple(config["labels"])
    model = ViT(SIZES[config["args"]["size"]], len(labels))
    model.load_state_dict(load_file(run / "model.safetensors"))
    return Trained(model.eval(), from_dict(SpectrogramSpec, config["spec"], str(run / "config.json")), labels, config)


class TorchEngine:
    """The trained model behind the engine interface, in float32, to evaluate a run that has not been exported."""

    description = "torch float32"
    relative_tolerance = 0.0

    def __init__(self, model: ViT) -> None:
        self.model = model

    @torch.inference_mode()
    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
        logits = self.model(torch.from_numpy(inputs["tile"]), torch.from_numpy(inputs["log10_rate"]))
        return {"logits": logits.numpy()}


def predict_tiles(engine: Engine, tiles: Tiles, spec: SpectrogramSpec, batch: int = 50) -> NDArray[np.float32]:
    """Logits [N, L] of a cache of tiles."""
    parts = []
    for first in range(0, len(tiles), batch):
        picture = tiles.picture[first : first + batch, None].astype(np.float32) / 255
        tile = (picture - np.float32(spec.mean)) / np.float32(spec.std)
        rate = tiles.log10_rate[first : first + batch, None]
        parts.append(engine.run({"tile": tile, "log10_rate": rate})["logits"])
    return np.concatenate(parts)
