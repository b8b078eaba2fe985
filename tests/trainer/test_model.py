"""The vision transformer against the paper's formulas, written out as loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from wavesfm_trainer.model import SIZES, Attention, RateEmbedding, ViT, ViTSize, draw_patches, sincos_positions

TINY = ViTSize(depth=2, width=32, heads=2)


def count(module):
    return sum(p.numel() for p in module.parameters())


def tiny(n_outputs=3, **options):
    torch.manual_seed(0)
    return ViT(TINY, n_outputs, image=64, **options)


def batch(n=3, channels=1, seed=1):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, channels, 64, 64, generator=draw), torch.full((n, 1), 6.3)


def test_nano_has_about_five_million_parameters():
    assert count(ViT(SIZES["nano"], 20)) == pytest.approx(4.88e6, abs=0.01e6)


def test_the_papers_blocks():
    size = SIZES["paper"]
    with torch.device("meta"):
        blocks = ViT(size, 20).blocks
    assert (size.depth, size.width, size.heads, len(blocks)) == (12, 512, 8, 12)
    assert count(blocks) == pytest.approx(37.83e6, abs=0.01e6)


def test_positions_follow_equation_4():
    width, rows, columns = 24, 5, 7
    table = sincos_positions(width, rows, columns)[0]
    assert table.shape == (1 + rows * columns, width)
    assert table.dtype == torch.float32
    assert torch.all(table[0] == 0)  # CLS
    m = width // 2
    for row in range(rows):
        for column in range(columns):
            expected = []
            for position in (row, column):
                omega = [10000 ** (-2 * k / m) for k in range(m // 2)]
                expected += [math.sin(position * w) for w in omega] + [math.cos(position * w) for w in omega]
            assert np.allclose(table[1 + row * columns + column], expected, atol=1e-6)


def test_rows_are_in_the_first_half_and_columns_in_the_second():
    table = sincos_positions(16, 4, 6)[0, 1:].reshape(4, 6, 16)
    assert torch.equal(table[2, 0, :8], table[2, 5, :8])
    assert not torch.equal(table[2, 0, :8], table[3, 0, :8])
    assert torch.equal(table[0, 4, 8:], table[3, 4, 8:])
    assert not torch.equal(table[0, 4, 8:], table[0, 5, 8:])


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_row_by_row(channels):
    model = tiny(channels=channels)
    tile, _ = batch(2, channels)
    patches = model.patchify(tile)
    assert patches.shape == (2, 16, 256 * channels)
    for n, (row, column) in enumerate((r, c) for r in range(4) for c in range(4)):
        piece = tile[:, :, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        expected = [piece[:, c, i, j] for i in range(16) for j in range(16) for c in range(channels)]
        assert torch.equal(patches[:, n], torch.stack(expected, dim=1))


def test_attention_is_the_softmax_formula():
    torch.manual_seed(2)
    attention, x = Attention(24, 3), torch.randn(2, 5, 24)
    q, k, v = attention.qkv(x).split(24, dim=-1)
    heads = []
    for h in range(3):
        part = slice(8 * h, 8 * h + 8)
        scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(8)
        heads.append(scores.exp() / scores.exp().sum(-1, keepdim=True) @ v[..., part])
    assert torch.allclose(attention(x), attention.proj(torch.cat(heads, dim=-1)), atol=1e-5)


def test_blocks_normalise_before_each_branch():
    block = tiny().blocks[0].eval()
    x = torch.randn(2, 5, 32)
    y = x + block.attn(block.norm1(x))
    assert torch.allclose(block(x), y + block.mlp(block.norm2(y)), atol=1e-6)


def test_an_unknown_rate_has_an_embedding_of_its_own():
    torch.manual_seed(0)
    embedding = RateEmbedding(32)
    torch.nn.init.normal_(embedding.unknown)
    out = embedding(torch.tensor([[0.0], [6.0], [7.3]]))
    assert torch.equal(out[0], embedding.unknown[0])
    assert not torch.allclose(out[0], out[1])
    assert not torch.allclose(out[1], out[2])


def test_the_rate_reaches_the_logits():
    model = tiny().eval()
    tile, _ = batch(1)
    with torch.no_grad():
        known, other, unknown = (model(tile, torch.tensor([[value]])) for value in (6.0, 7.0, 0.0))
    assert not torch.allclose(known, other)
    assert not torch.allclose(known, unknown)


def test_patches_are_dropped_only_while_training():
    model, (tile, rate) = tiny(), batch()
    model.keep = 0.25
    assert model.train().tokens(tile, rate).shape == (3, 1 + 4, 32)
    assert model.eval().tokens(tile, rate).shape == (3, 1 + 16, 32)
    model.keep = 1.0
    assert model.train().tokens(tile, rate).shape == (3, 1 + 16, 32)


def test_kept_patches_keep_their_positions(monkeypatch):
    model, (tile, rate) = tiny(), batch(1)
    chosen = torch.tensor([[9, 2, 14, 5]])
    monkeypatch.setattr("wavesfm_trainer.model.draw_patches", lambda patches, n_keep: chosen[:, :n_keep])
    seen = []
    model.blocks.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model.keep = 0.25
    model.train().tokens(tile, rate)
    model.eval().tokens(tile, rate)
    assert torch.allclose(seen[0][:, 1:], seen[1][:, 1 + chosen[0]], atol=1e-6)


def test_drawn_patches_are_different_ones_and_peaks_are_preferred():
    torch.manual_seed(0)
    patches = torch.zeros(400, 16, 8)
    patches[:, 3, 5] = 10.0
    chosen = draw_patches(patches, 4)
    assert chosen.shape == (400, 4)
    assert all(len(set(row)) == 4 for row in chosen.tolist())
    shares = torch.bincount(chosen.ravel(), minlength=16) / 400
    assert shares[3] > 0.75  # even draws: 0.25
    others = shares[torch.arange(16) != 3]
    assert others.min() > 0.1
    assert others.max() < 0.35


def test_one_tile_does_not_see_the_others():
    model, (tile, rate) = tiny().eval(), batch(5)
    with torch.no_grad():
        together = model(tile, rate)
        apart = torch.cat([model(tile[i : i + 1], rate[i : i + 1]) for i in range(5)])
    assert torch.allclose(together, apart, atol=1e-5)


def test_pooling_takes_the_token_or_the_mean_of_the_patches():
    model, (tile, rate) = tiny().eval(), batch()
    with torch.no_grad():
        tokens = model.tokens(tile, rate)
        assert torch.allclose(model(tile, rate), model.head(tokens[:, 0]))
        model.pooling = "avg"
        assert torch.allclose(model(tile, rate), model.head(tokens[:, 1:].mean(1)))


def test_stochastic_depth_grows_with_depth_and_rests_in_eval():
    model = ViT(ViTSize(3, 32, 2), 3, image=64, drop_path=0.4)
    assert [block.drop_path for block in model.blocks] == pytest.approx([0, 0.2, 0.4])
    x, branch = torch.zeros(4000, 1, 1), torch.ones(4000, 1, 1)
    torch.manual_seed(0)
    dropped = model.blocks[2].train()._residual(x, branch)
    assert sorted(set(dropped.ravel().tolist())) == pytest.approx([0.0, 1 / 0.6])
    assert dropped.mean() == pytest.approx(1.0, abs=0.1)
    assert torch.equal(model.blocks[2].eval()._residual(x, branch), branch)


def test_a_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="width: found 100, expected a multiple of 4"):
        ViTSize(depth=1, width=100, heads=8)
