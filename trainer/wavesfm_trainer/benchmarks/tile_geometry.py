# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare tile geometries: the same recordings cut by several geometries, with a small network on each.

The small convolutional network learns from few tiles. It ranks geometries; its accuracy predicts no other model's.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.preprocess.tile import prepare

from ..evaluation.metrics import mean_class_accuracy
from ..signals import LABELS
from ..signals.dataset import SignalDataset

CANDIDATES: dict[str, dict[str, int]] = {
    "fft 256, mean of 4, 448 rows": {"fft_size": 256, "hop_samples": 256, "frames_averaged": 4, "rows_per_tile": 448},
    "fft 512, mean of 1, 448 rows": {"fft_size": 512, "hop_samples": 512, "frames_averaged": 1, "rows_per_tile": 448},
    "fft 512, mean of 2, 448 rows": {"fft_size": 512, "hop_samples": 512, "frames_averaged": 2, "rows_per_tile": 448},
    "fft 512, mean of 4, 224 rows": {"fft_size": 512, "hop_samples": 512, "frames_averaged": 4, "rows_per_tile": 224},
    "fft 1024, mean of 1, 448 rows": {
        "fft_size": 1024,
        "hop_samples": 1024,
        "frames_averaged": 1,
        "rows_per_tile": 448,
    },
    "fft 1024, mean of 2, 224 rows": {
        "fft_size": 1024,
        "hop_samples": 1024,
        "frames_averaged": 2,
        "rows_per_tile": 224,
    },
}


class Probe(nn.Module):
    """Six strided convolutions over the tile, and one layer for the rate."""

    def __init__(self, n_labels: int) -> None:
        super().__init__()
        widths = (1, 16, 32, 48, 64, 96)
        layers: list[nn.Module] = []
        for first, second in pairwise(widths):
            layers += [nn.Conv2d(first, second, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(second), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.rate = nn.Linear(1, 32)
        self.head = nn.Sequential(nn.Linear(2 * widths[-1] + 32, 128), nn.ReLU(), nn.Linear(128, n_labels))

    def forward(self, picture: Tensor, log10_rate: Tensor) -> Tensor:
        x = self.body(picture)
        pooled = torch.cat([x.mean((2, 3)), x.amax((2, 3)), self.rate(log10_rate - 6).relu()], dim=1)
        return self.head(pooled)


def compare(n_train: int, n_test: int, epochs: int, seed: int = 11) -> dict[str, float]:
    """Mean class accuracy of the probe on held-out recordings, by geometry.

    Parameters
    ----------
    n_train, n_test : recordings.
    epochs : of the training.
    seed : of recordings and training.
    """
    specs = {name: replace(SpectrogramSpec(), **fields).unscaled() for name, fields in CANDIDATES.items()}
    longest = max(spec.tile_samples for spec in specs.values())
    shortest = max(spec.min_samples for spec in specs.values())
    dataset = SignalDataset(seed, longest, shortest)
    pictures: dict[str, list[np.ndarray]] = {name: [] for name in specs}
    labels, rates = [], []
    for index in range(n_train + n_test):
        example = dataset[index]
        labels.append(LABELS.index(example.label))
        rates.append(np.log10(example.rate_hz))
        for name, spec in specs.items():
            tile = prepare(example.iq[: spec.tile_samples], spec)
            pictures[name].append(np.rint(tile * 255).astype(np.uint8))
    label, rate = torch.tensor(labels), torch.tensor(rates, dtype=torch.float32)[:, None]
    return {
        name: _probe(torch.from_numpy(np.stack(found)), rate, label, n_train, epochs, seed)
        for name, found in pictures.items()
    }


def _probe(picture: Tensor, rate: Tensor, label: Tensor, n_train: int, epochs: int, seed: int) -> float:
    torch.manual_seed(seed)
    mean, std = picture[:n_train].float().mean(), picture[:n_train].float().std()
    model = Probe(len(LABELS))
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=0.01)
    steps = epochs * (n_train // 32)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, steps)
    for step in range(steps):
        if step % (n_train // 32) == 0:
            order = torch.randperm(n_train)
        at = order[(step % (n_train // 32)) * 32 :][:32]
        x = (picture[at].float() - mean) / std
        x = torch.where((torch.rand(len(at)) < 0.5)[:, None, None, None], x.flip(-1), x)
        loss = F.cross_entropy(model(x, rate[at]), label[at], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    with torch.inference_mode():
        parts = [
            model((picture[i : i + 100].float() - mean) / std, rate[i : i + 100]).argmax(1)
            for i in range(n_train, len(label), 100)
        ]
    return mean_class_accuracy(label[n_train:].numpy(), torch.cat(parts).numpy(), len(LABELS))
