# SPDX-License-Identifier: GPL-3.0-or-later
"""The bench at toy size: what it reports, and that its two sides train the same thing on the same number of samples."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from wavesfm_core.errors import ConfigurationError
from wavesfm_trainer.benchmarks.training_speed import (
    MODES,
    N_LABELS,
    as_json,
    format_rows,
    our_objective,
    peer_model,
    run_bench,
)
from wavesfm_trainer.models.vit import EncoderArgs

TOY = EncoderArgs(
    size="custom", depth=3, width=64, heads=2, decoder_depth=2, decoder_width=16, decoder_heads=2, image=32, patch=8
)


def copy_into(ours: nn.Module, plain: nn.Module) -> None:
    """The peer's weights into ours; every parameter of each must have its place in the other."""
    state = {}
    for name, value in plain.named_parameters():
        if name.startswith("encoder.patch_embed."):
            name = name.replace("patch_embed.", "patch_embed.1.")
            value = value.permute(0, 2, 3, 1).flatten(1) if value.ndim == 4 else value
        name = name.replace("reconstruct.", "reconstruct.1.")
        name = name.replace(".lora.q_", ".attn.qkv.lora_q.").replace(".lora.v_", ".attn.qkv.lora_v.")
        state[name] = value.detach()
    own = dict(ours.named_parameters())
    state = {name if name in own else name.replace("attn.qkv.", "attn.qkv.qkv."): v for name, v in state.items()}
    assert state.keys() == own.keys()
    for name, value in state.items():
        own[name].data.copy_(value)


def test_both_sides_see_the_same_samples_and_train_the_same_number_of_parameters():
    rows = run_bench(seconds=1e-3, image=32, batch=2, repeats=3, workers=(0,))
    assert [row.mode for row in rows] == list(MODES)
    for row in rows:
        assert row.samples == 2  # one step: there is no time for more
        assert row.trainable_parameters == row.peer_trainable_parameters > 0
        assert 0 < row.ratio_low <= row.ratio <= row.ratio_high
        assert row.ours_samples_per_s > 0 and row.peer_samples_per_s > 0
        assert (row.preparation_s_per_sample > 0) == row.mode.endswith("-cached")
        assert (row.ratio_with_preparation < row.ratio) == row.mode.endswith("-cached")
        assert row.precision in ("32-true", "bf16-mixed")
    text = format_rows(rows)
    assert all(mode in text for mode in MODES)
    read = json.loads(json.dumps(as_json(rows)))
    assert [entry["ratio"] for entry in read["rows"]] == [row.ratio for row in rows]
    assert read["machine"]["torch"] == torch.__version__


def test_the_peer_reads_with_worker_processes_too():
    (row,) = run_bench(seconds=30, image=32, batch=2, repeats=1, workers=(2,), modes=("probe",))
    assert row.peer_workers == 2
    assert row.samples in (2, 4, 6, 8)


def test_the_peer_minimises_the_same_loss_in_pretraining():
    torch.manual_seed(0)
    plain, ours = peer_model("pretrain", TOY), our_objective("pretrain", TOY).model
    copy_into(ours, plain)
    tile, noise = torch.randn(3, 1, 32, 32), torch.rand(3, 16)
    expected = plain(tile, noise)
    found = ours.train()(tile, noise=noise).loss
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    found.backward()
    expected.backward()
    gradient = plain.encoder.blocks[0].attn["qkv"].weight.grad
    torch.testing.assert_close(ours.encoder.blocks[0].attn.qkv.weight.grad, gradient, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("mode", ["probe", "lora", "last-cached", "all"])
def test_the_peer_has_the_same_task_model(mode):
    torch.manual_seed(0)
    plain, ours = peer_model(mode, TOY), our_objective(mode, TOY).model
    if mode == "lora":
        for block in plain.encoder.blocks:
            for part in "qv":
                nn.init.normal_(block.lora[f"{part}_B"], std=0.02)
    copy_into(ours, plain)
    tile = torch.randn(3, 1, 32, 32)
    found, expected = ours(tile), plain(tile)
    assert found.shape == (3, N_LABELS)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    found.square().sum().backward()
    expected.square().sum().backward()
    trains = {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
    assert len(trains) == sum(p.grad is not None for p in plain.parameters()) > 0
    torch.testing.assert_close(trains["head.weight"], plain.head.weight.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"size": "huge"}, "size"),
        ({"modes": ("pretrain", "sleep")}, "modes"),
        ({"device": "abacus"}, "device"),
        ({"seconds": 0}, "seconds"),
        ({"clock": "cpu"}, "clock"),  # workers are other processes
        ({"image": 100}, "image"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(options, field):
    with pytest.raises(ConfigurationError) as refused:
        run_bench(**options)
    assert refused.value.field == field
