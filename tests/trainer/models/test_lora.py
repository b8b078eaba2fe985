# SPDX-License-Identifier: GPL-3.0-or-later
"""Adapters on query and value: equations 15 and 16, and their exact removal."""

from __future__ import annotations

import copy

import pytest
import torch
from wavesfm_core.errors import ConfigurationError
from wavesfm_trainer.models import lora
from wavesfm_trainer.models.vit import Encoder, EncoderArgs

TOY = {"size": "custom", "image": 32, "patch": 8, "depth": 2, "width": 32, "heads": 4}
TOY |= {"decoder_depth": 1, "decoder_width": 16, "decoder_heads": 4}


def adapted(rank=3, alpha=8.0, trained=True):
    torch.manual_seed(0)
    encoder = Encoder(EncoderArgs(**TOY)).eval()
    plain = copy.deepcopy(encoder)
    assert lora.attach(encoder, rank, alpha) == 2
    if trained:
        for name, parameter in encoder.named_parameters():
            if name.endswith(".B"):
                torch.nn.init.normal_(parameter, std=0.1)
    return encoder, plain


def test_rank_50_adds_1_2288_million_to_the_papers_encoder():
    with torch.device("meta"):
        encoder = Encoder(EncoderArgs(size="paper"))
    before = sum(p.numel() for p in encoder.parameters())
    assert lora.attach(encoder, 50, 8.0) == 12
    assert sum(p.numel() for p in encoder.parameters()) - before == 1_228_800


def test_query_and_value_move_by_alpha_x_a_b_and_the_key_does_not():
    encoder, plain = adapted()
    x = torch.randn(2, 5, 32)
    qkv = encoder.blocks[1].attn.qkv
    q, k, v = plain.blocks[1].attn.qkv(x).split(32, dim=-1)
    q = q + 8.0 * (x @ qkv.lora_q.A) @ qkv.lora_q.B
    v = v + 8.0 * (x @ qkv.lora_v.A) @ qkv.lora_v.B
    assert torch.allclose(qkv(x), torch.cat([q, k, v], dim=-1), atol=1e-5)


def test_it_starts_where_the_encoder_is():
    encoder, plain = adapted(trained=False)
    tile = torch.randn(2, 1, 32, 32)
    assert torch.equal(encoder.tokens(tile), plain.tokens(tile))
    torch.manual_seed(0)
    low = lora.LowRank(400, 25)
    assert low.A.shape == (400, 25)
    assert low.A.std().item() == pytest.approx(25**-0.5, rel=0.05)
    assert torch.all(low.B == 0)


def test_merged_is_equal_within_float32():
    encoder, plain = adapted()
    tile = torch.randn(4, 1, 32, 32)
    with torch.no_grad():
        expected = encoder.tokens(tile)
        exact = copy.deepcopy(encoder).double().tokens(tile.double())
        assert lora.merge(encoder) == 2
        found = encoder.tokens(tile)
    assert (expected - plain.tokens(tile)).abs().max() > 0.01  # the adapters do something
    rounding = (expected - exact).abs().max()
    assert (found - exact).abs().max() < 4 * rounding + 1e-6
    assert encoder.state_dict().keys() == plain.state_dict().keys()


def test_merged_weights_are_the_correctly_rounded_sums():
    encoder, plain = adapted(alpha=5.0)
    adapter, old = encoder.blocks[0].attn.qkv, plain.blocks[0].attn.qkv.weight.double()
    delta_q, delta_v = ((5.0 * (low.A.double() @ low.B.double())).T for low in (adapter.lora_q, adapter.lora_v))
    lora.merge(encoder)
    new = encoder.blocks[0].attn.qkv.weight
    assert torch.equal(new[32:64], plain.blocks[0].attn.qkv.weight[32:64])
    assert torch.allclose(new[:32].double(), old[:32] + delta_q, rtol=1e-7, atol=1e-9)
    assert torch.allclose(new[64:].double(), old[64:] + delta_v, rtol=1e-7, atol=1e-9)
    assert torch.equal(encoder.blocks[0].attn.qkv.bias, plain.blocks[0].attn.qkv.bias)


def test_a_model_without_adapters_has_none_to_merge():
    _, plain = adapted()
    assert lora.merge(plain) == 0


@pytest.mark.parametrize("rank", [0, 33])
def test_a_rank_that_cannot_be_is_refused(rank):
    with pytest.raises(ConfigurationError, match=f"rank: found {rank}, expected 1 to 32"):
        lora.attach(Encoder(EncoderArgs(**TOY)), rank, 1.0)


def test_adapters_are_attached_once():
    encoder, _ = adapted()
    with pytest.raises(ConfigurationError, match="found adapters, expected a model without"):
        lora.attach(encoder, 2, 1.0)
