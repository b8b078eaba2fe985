# SPDX-License-Identifier: GPL-3.0-or-later
"""Masked wireless modelling compared with a plain version that keeps every token at its position."""

from __future__ import annotations

import pytest
import torch
from wavesfm_core.errors import ConfigurationError
from wavesfm_trainer.models.mae import MaskedAutoencoder, n_masked
from wavesfm_trainer.models.step_random import StepRandom
from wavesfm_trainer.models.vit import EncoderArgs

TOY = {"size": "custom", "image": 32, "patch": 8, "depth": 2, "width": 32, "heads": 4}
TOY |= {"decoder_depth": 2, "decoder_width": 16, "decoder_heads": 4}


def toy(mask_ratio=0.75, cls_in_pretraining=True, **fields):
    torch.manual_seed(0)
    return MaskedAutoencoder(EncoderArgs(**TOY | fields), mask_ratio, cls_in_pretraining)


def batch(n=3, channels=1):
    draw = torch.Generator().manual_seed(1)
    return torch.randn(n, channels, 32, 32, generator=draw), torch.rand(n, 16, generator=draw)


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_the_papers_decoder():
    with torch.device("meta"):
        model = MaskedAutoencoder(EncoderArgs(size="paper", channels=(1, 3, 4)))
    heads = {name: count(head) for name, head in model.reconstruct.items()}
    assert heads == {"1": 65_792, "3": 197_376, "4": 263_168}
    assert count(model) - count(model.encoder) - sum(heads.values()) == 6_450_176  # 6.45 M


@pytest.mark.parametrize(
    ("ratio", "paper", "code"), [(0.75, 147, 147), (0.7, 137, 138), (0.8, 156, 157), (0.9, 176, 177)]
)
def test_rounding_of_the_mask(ratio, paper, code):
    assert n_masked(196, ratio, "paper") == paper
    assert n_masked(196, ratio, "code") == code
    assert n_masked(100, 0.29, "paper") == 29  # 0.29 * 100 is 28.999999999999996


def plain(model, tile, noise):
    """Algorithm 1 sample by sample: every token in its place, every patch decoded; returns prediction and mask."""
    predictions, masks = [], []
    encoder, cls = model.encoder, model.cls_in_pretraining
    for one, random in zip(tile, noise):
        masked = random >= random.sort().values[16 - model.n_masked]
        patches = encoder.patchify(one[None])
        x = encoder.patch_embed[str(len(one))](patches[:, ~masked]) + encoder.positions[:, 1:][:, ~masked]
        x = torch.cat([encoder.cls, x], dim=1) if cls else x
        for block in encoder.blocks:
            x = block(x)
        x = model.decoder_embed(encoder.norm(x))
        y = model.mask_token.repeat(1, 16, 1)
        y[:, ~masked] = x[:, 1:] if cls else x
        y = y + model.decoder_positions[:, 1:]
        y = torch.cat([x[:, :1] + model.decoder_positions[:, :1], y], dim=1) if cls else y
        for block in model.decoder_blocks:
            y = block(y)
        y = model.decoder_norm(y)
        predictions.append(model.reconstruct[str(len(one))](y[:, 1:] if cls else y)[0])
        masks.append(masked)
    return torch.stack(predictions), torch.stack(masks)


@pytest.mark.parametrize("cls", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("reading", ["paper", "code"])
def test_loss_prediction_and_mask_are_algorithm_1(channels, reading, cls):
    model = toy(0.7, cls, channels=(1, 3), reading=reading).eval()
    torch.nn.init.normal_(model.mask_token)
    tile, noise = batch(3, channels)
    out = model(tile, noise=noise)
    prediction, mask = plain(model, tile, noise)
    assert torch.equal(out.mask, mask)
    assert out.mask.sum(dim=1).tolist() == [11 if reading == "paper" else 12] * 3
    assert torch.allclose(out.prediction, prediction, atol=1e-5)
    error = (prediction - model.encoder.patchify(tile)).square()[mask]
    expected = error.sum(dim=-1).mean() if reading == "paper" else error.mean()  # eq. 13; the code's mean
    assert torch.allclose(out.loss, expected, rtol=1e-5)


def test_masked_patches_do_not_reach_the_encoder_and_visible_ones_not_the_loss():
    model = toy().eval()
    tile, noise = batch()
    out = model(tile, noise=noise)
    hidden = model.unpatchify(out.mask[..., None].expand(-1, -1, 64).float()).bool()
    changed = torch.where(hidden, torch.zeros_like(tile), tile)
    assert torch.allclose(model(changed, noise=noise).prediction, out.prediction, atol=1e-6)
    tile.requires_grad_(True)
    model.encoder.requires_grad_(False)
    loss = (model(tile, noise=noise).prediction - out.prediction.detach()).sum()
    loss.backward()
    assert torch.all(tile.grad[hidden] == 0)


def test_training_decodes_only_what_the_loss_needs():
    model = toy().train()
    seen = []
    model.reconstruct["1"].register_forward_hook(lambda module, inputs, out: seen.append(out.shape))
    tile, noise = batch()
    loss = model(tile, noise=noise)
    assert loss.prediction is None
    assert seen == [(3, 12, 64)]
    again = model(tile, noise=noise, reconstruct=True)
    torch.testing.assert_close(again.loss, loss.loss)  # the last block has more to do
    assert again.prediction.shape == (3, 16, 64)


def test_every_parameter_of_the_batchs_modality_learns_and_the_others_do_not():
    model = toy(channels=(1, 3), rate_input=True).train()
    tile, noise = batch(3, 3)
    model(tile, torch.tensor([[6.0], [0.0], [7.0]]), noise).loss.backward()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert without == {f"{part}.1.{n}" for part in ("encoder.patch_embed", "reconstruct") for n in ("weight", "bias")}


def test_the_mask_is_that_of_the_step():
    model, (tile, _) = toy().train(), batch(4)

    def at(step):
        model.set_step_random(StepRandom(0, step))
        return model(tile).mask

    assert torch.equal(at(1), at(1))
    assert not torch.equal(at(1), at(2))
    model.set_step_random(None)
    with pytest.raises(ConfigurationError, match="MaskedAutoencoder: step_random: found None"):
        model(tile)


def test_masks_are_drawn_evenly():
    model = toy().eval()
    model.set_step_random(StepRandom(0, 0))
    shares = model(torch.zeros(2000, 1, 32, 32), reconstruct=False).mask.float().mean(dim=0)
    assert shares == pytest.approx(torch.full((16,), 0.75), abs=0.04)


def test_unpatchify_undoes_patchify():
    model, (tile, _) = toy(channels=(3,)), batch(2, 3)
    assert torch.equal(model.unpatchify(model.encoder.patchify(tile)), tile)


def test_it_learns_to_reconstruct():
    model = toy(depth=1, decoder_depth=1).train()
    rows = torch.sin(torch.arange(32) / 3)[:, None].repeat(4, 1, 1, 32)
    optimizer = torch.optim.AdamW(model.parameter_groups(1e-2, 0.05))
    for step in range(110):
        model.set_step_random(StepRandom(0, step))
        loss = model(rows).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.3 * 64 * rows.square().mean()  # of the energy of a patch


def test_a_training_step_compiles_as_one_graph():
    model = toy(depth=1, decoder_depth=1, rate_input=True).train()
    tile, noise = batch()
    rate = torch.full((3, 1), 6.0)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(tile, rate, noise).loss, model(tile, rate, noise).loss, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"mask_ratio": 0.0}, "mask_ratio: found 0.0, expected a share that masks 1 to 15 of 16"),
        ({"mask_ratio": 0.99, "reading": "code"}, "mask_ratio"),
        ({"rate_input": True, "cls_in_pretraining": False}, "cls_in_pretraining: found False, expected True"),
    ],
)
def test_contradictions_are_refused_by_name(options, match):
    with pytest.raises(ConfigurationError, match=match):
        toy(**options)


def test_layer_decay_is_for_fine_tuning():
    with pytest.raises(ConfigurationError, match="layer_decay"):
        toy().parameter_groups(1e-3, 0.05, 0.75)
