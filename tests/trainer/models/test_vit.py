# SPDX-License-Identifier: GPL-3.0-or-later
"""The encoder compared with the paper's formulas, written as loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from wavesfm_core.errors import ConfigurationError
from wavesfm_trainer.models.parameters import parameter_groups
from wavesfm_trainer.models.patch_sampling import draw_patches
from wavesfm_trainer.models.step_random import StepRandom
from wavesfm_trainer.models.vit import (
    Attention,
    Encoder,
    EncoderArgs,
    RateEmbedding,
    ViTSize,
    attend,
    sincos_positions,
    take,
)

TOY = {"size": "custom", "image": 32, "patch": 8, "depth": 2, "width": 32, "heads": 4}
TOY |= {"decoder_depth": 1, "decoder_width": 16, "decoder_heads": 4}


def count(module):
    return sum(p.numel() for p in module.parameters())


def toy(**fields):
    torch.manual_seed(0)
    return Encoder(EncoderArgs(**TOY | fields))


def tiles(n=3, channels=1, seed=1):
    return torch.randn(n, channels, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_the_papers_encoder_has_38_million_parameters():
    args = EncoderArgs(size="paper")
    assert (args.encoder, args.decoder) == (ViTSize(12, 512, 8), ViTSize(8, 256, 16))
    with torch.device("meta"):
        encoder = Encoder(args)
        head = torch.nn.Linear(512, 20)
    assert count(encoder.blocks) == 37_828_608
    assert encoder.positions.shape == (1, 197, 512)
    assert count(encoder) + encoder.positions.numel() + count(head) == 38_072_852  # 38.07 M


def test_each_channel_count_has_its_patch_embedding_and_shares_the_rest():
    one, three = toy(), toy(channels=(1, 3))
    assert count(three) - count(one) == 8 * 8 * 3 * 32 + 32
    assert three.tokens(tiles(2, 3)).shape == three.tokens(tiles(2, 1)).shape == (2, 17, 32)


@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 40)])
def test_a_tile_of_another_shape_is_refused(channels, side):
    with pytest.raises(ConfigurationError, match=f"tile: found {channels} x {side} x {side}, expected 1 x 32 x 32"):
        toy().tokens(torch.zeros(1, channels, side, side))


@pytest.mark.parametrize("reading", ["paper", "code"])
def test_positions_follow_equation_4(reading):
    width, side = 24, 5
    table = sincos_positions(width, side, reading)[0]
    assert table.shape == (1 + side * side, width)
    assert table.dtype == torch.float32
    assert torch.all(table[0] == 0)  # CLS
    m = width // 2
    omega = [10000 ** (-2 * k / m) for k in range(m // 2)]
    for row in range(side):
        for column in range(side):
            expected = []
            for position in (row, column) if reading == "paper" else (column, row):
                expected += [math.sin(position * w) for w in omega] + [math.cos(position * w) for w in omega]
            assert np.allclose(table[1 + row * side + column], expected, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_row_by_row(channels):
    tile = tiles(2, channels)
    patches = toy(channels=(channels,)).patchify(tile)
    assert patches.shape == (2, 16, 64 * channels)
    for n, (row, column) in enumerate((r, c) for r in range(4) for c in range(4)):
        piece = tile[:, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
        expected = [piece[:, c, i, j] for i in range(8) for j in range(8) for c in range(channels)]
        assert torch.equal(patches[:, n], torch.stack(expected, dim=1))


def test_attention_is_the_softmax_formula():
    torch.manual_seed(2)
    attention, x = Attention(ViTSize(1, 24, 3)), torch.randn(2, 5, 24)
    q, k, v = attention.qkv(x).split(24, dim=-1)
    heads = []
    for h in range(3):
        part = slice(8 * h, 8 * h + 8)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(8)
        heads.append(scores.exp() / scores.exp().sum(-1, keepdim=True) @ v[..., part])
    expected = attention.proj(torch.cat(heads, dim=-1))
    assert torch.allclose(attention(x), expected, atol=1e-5)
    assert torch.allclose(attention(x, 2), expected[:, :2], atol=1e-5)


def test_blocks_normalise_before_each_branch():
    block, x = toy().blocks[0], torch.randn(2, 5, 32)
    y = x + block.attn(block.norm1(x))
    expected = y + block.mlp(block.norm2(y))
    assert torch.allclose(block(x), expected, atol=1e-6)
    assert torch.allclose(block(x, None, 1), expected[:, :1], atol=1e-6)
    scale = torch.tensor([[2.0, 0.0], [0.0, 3.0]])[..., None, None]
    y = x + scale[0] * block.attn(block.norm1(x))
    assert torch.allclose(block(x, scale), y + scale[1] * block.mlp(block.norm2(y)), atol=1e-6)


def test_the_readings_differ_in_eps_and_in_the_order_of_coordinates():
    paper, code, own = toy(), toy(reading="code"), toy(reading="code", block_eps=1e-6)
    assert [e.blocks[0].norm1.eps for e in (paper, code, own)] == [1e-6, 1e-5, 1e-6]
    assert [e.blocks[1].norm2.eps for e in (paper, code, own)] == [1e-6, 1e-5, 1e-6]
    assert [e.norm.eps for e in (paper, code, own)] == [1e-6] * 3
    assert torch.equal(paper.positions[0, 2, :16], code.positions[0, 2, 16:])
    assert not torch.equal(paper.positions, code.positions)


def test_the_first_blocks_input_is_equation_14():
    encoder = toy(film=True, rate_input=True)
    torch.nn.init.normal_(encoder.film_scale)
    torch.nn.init.normal_(encoder.film_bias)
    tile, rate = tiles(2), torch.tensor([[6.0], [0.0]])
    patches = encoder.patch_embed["1"](encoder.patchify(tile)) + encoder.positions[:, 1:]
    cls = encoder.cls[0] + encoder.rate(rate)
    expected = torch.cat([cls[:, None], patches], dim=1) * encoder.film_scale + encoder.film_bias
    assert torch.allclose(encoder.embed(encoder.patchify(tile), 1, rate), expected, atol=1e-6)
    unknown = encoder.embed(encoder.patchify(tile), 1)
    assert torch.equal(unknown[1], encoder.embed(encoder.patchify(tile), 1, rate)[1])
    assert not torch.equal(unknown[0], expected[0])


def test_kept_patches_keep_their_positions():
    encoder, tile = toy(), tiles(2)
    keep = torch.tensor([[9, 2, 14, 5], [0, 1, 2, 3]])
    seen = []
    encoder.blocks[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    assert encoder.tokens(tile, keep=keep).shape == (2, 5, 32)
    encoder.tokens(tile)
    for i in range(2):
        assert torch.allclose(seen[0][i, 1:], seen[1][i, 1 + keep[i]], atol=1e-6)
    assert torch.equal(seen[0][:, 0], seen[1][:, 0])


def test_take_copies_rows():
    x, index = torch.randn(3, 5, 2), torch.tensor([[4, 0], [1, 1], [2, 3]])
    assert torch.equal(take(x, index), torch.stack([x[i, index[i]] for i in range(3)]))


def test_an_unknown_rate_has_an_embedding_of_its_own():
    torch.manual_seed(0)
    embedding = RateEmbedding(32)
    torch.nn.init.normal_(embedding.unknown)
    out = embedding(torch.tensor([[0.0], [6.0], [7.3]]))
    assert torch.equal(out[0], embedding.unknown[0])
    assert not torch.allclose(out[0], out[1])
    assert not torch.allclose(out[1], out[2])


def test_drawn_patches_are_different_ones_and_peaks_are_preferred():
    tile = torch.zeros(400, 2, 32, 32)
    tile[:, 1, 3, 29] = 10.0  # patch 3
    keep = draw_patches(tile, 8, 4, StepRandom(0, 0))
    assert keep.shape == (400, 4)
    assert torch.all(keep[:, 1:] > keep[:, :-1])
    shares = torch.bincount(keep.ravel(), minlength=16) / 400
    assert shares[3] > 0.75  # even draws: 0.25
    others = shares[torch.arange(16) != 3]
    assert others.min() > 0.1
    assert others.max() < 0.35
    assert torch.equal(keep, draw_patches(tile, 8, 4, StepRandom(0, 0)))


def test_one_tile_does_not_see_the_others():
    encoder, tile = toy().eval(), tiles(5)
    with torch.no_grad():
        together = encoder.tokens(tile)
        apart = torch.cat([encoder.tokens(tile[i : i + 1]) for i in range(5)])
    assert torch.allclose(together, apart, atol=1e-5)


def test_stochastic_depth_grows_with_depth_and_rests_in_eval():
    encoder = toy(depth=3, drop_path=0.4)
    assert encoder.drop_path == pytest.approx([0, 0.2, 0.4])
    encoder.set_step_random(StepRandom(0, 0))
    scales = encoder._drop_path_scales(torch.zeros(4000, 1, 1))
    assert scales.shape == (3, 2, 4000, 1, 1)
    for i, keep in enumerate((1.0, 0.8, 0.6)):
        assert torch.all((scales[i] == 0) | torch.isclose(scales[i], torch.tensor(1 / keep)))
        assert keep == 1 or torch.any(scales[i] == 0)
        assert scales[i].mean(dim=1).ravel() == pytest.approx(torch.ones(2), abs=0.06)
    tile, plain = tiles(), toy(depth=3)
    assert torch.equal(encoder.eval().tokens(tile), plain.tokens(tile))
    assert not torch.equal(encoder.train().tokens(tile), plain.tokens(tile))


def test_stochastic_depth_is_that_of_the_step():
    encoder, tile = toy(drop_path=0.5).train(), tiles(8)

    def at(step, rank=0, world=1, rows=slice(None)):
        encoder.set_step_random(StepRandom(1, step, rank, world))
        return encoder.tokens(tile[rows])

    assert torch.equal(at(3), at(3))
    assert not torch.equal(at(3), at(4))
    halves = torch.cat([at(3, 0, 2, slice(0, 4)), at(3, 1, 2, slice(4, 8))])
    assert torch.allclose(halves, at(3), atol=1e-5)


def test_training_without_draws_is_refused_where_randomness_is_needed():
    with pytest.raises(ConfigurationError, match="Encoder: step_random: found None"):
        toy(drop_path=0.1).train().tokens(tiles())
    toy().train().tokens(tiles())  # nothing to draw


def test_groups_decay_matrices_only_and_leave_frozen_parameters_out():
    encoder = toy(rate_input=True)
    encoder.norm.weight.requires_grad_(False)
    groups = parameter_groups(encoder.named_parameters(), 1e-3, 0.05, lambda name: 0.5 if "blocks" in name else 1.0)
    by_name = {name: group for group in groups for name in group["names"]}
    trains = {n for n, p in encoder.named_parameters() if p.requires_grad}
    assert set(by_name) == trains == {n for n, _ in encoder.named_parameters()} - {"norm.weight"}
    assert sum(len(group["params"]) for group in groups) == len(trains)
    assert by_name["blocks.0.mlp.fc1.weight"]["weight_decay"] == 0.05
    assert by_name["blocks.0.mlp.fc1.weight"]["lr"] == 5e-4
    assert by_name["blocks.0.mlp.fc1.weight"]["lr_scale"] == 0.5
    assert by_name["patch_embed.1.weight"]["lr"] == 1e-3
    for name in ("cls", "rate.unknown", "norm.bias", "blocks.1.attn.qkv.bias"):
        assert by_name[name]["weight_decay"] == 0
    torch.optim.AdamW(groups)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"size": "huge"}, "size"),
        ({"channels": ()}, "channels"),
        ({"channels": (1, 1)}, "channels"),
        ({"reading": "mine"}, "reading"),
        ({"drop_path": 1.0}, "drop_path"),
        ({"image": 100}, "image"),
        ({"depth": 3}, "depth"),
        ({"size": "custom"}, "depth"),
        ({**TOY, "width": 30}, "width"),
        ({**TOY, "heads": 3}, "heads"),
        ({"positions": "learned"}, "positions"),
    ],
)
def test_contradictions_are_refused_by_name(fields, field):
    with pytest.raises(ConfigurationError) as refused:
        EncoderArgs(**fields)
    assert refused.value.field == field


@pytest.mark.parametrize("first", [None, 1, 5])
def test_attention_in_bfloat16_trains_as_in_float32(first):
    torch.manual_seed(0)
    found = []
    for dtype in (torch.float64, torch.bfloat16):  # the fused kernel, and plain products
        torch.manual_seed(1)
        qkv = torch.randn(3, 5, 4, 17, 8).to(torch.bfloat16).to(dtype).requires_grad_(True)
        out = attend(qkv[0][:, :, :first], qkv[1], qkv[2])
        assert out.dtype == dtype
        out.backward(torch.randn(5, 4, 17, 8)[:, :, :first].to(torch.bfloat16).to(dtype))
        found.append((out.detach().double(), qkv.grad.double()))
    for expected, rounded in zip(*found):
        assert (rounded - expected).norm() < 0.02 * expected.norm()  # 8 bits of mantissa, and several roundings
