# SPDX-License-Identifier: GPL-3.0-or-later
"""Import of published layouts, built at toy size from their lists of keys, compared with a plain evaluation of the
tensors.
"""

from __future__ import annotations

import argparse
import os
import sys

import pytest
import torch
import torch.nn.functional as F
from wavesfm_core.errors import ConfigurationError
from wavesfm_trainer import cli
from wavesfm_trainer.models import registry
from wavesfm_trainer.models.import_checkpoint import ImportOptions, import_checkpoint
from wavesfm_trainer.models.vit import sincos_positions
from wavesfm_trainer.models.weights import WeightsError

WIDTH, DECODER, HEADS, PATCH, N = 32, 16, 4, 8, 16
OPTIONS = ImportOptions(heads=HEADS, decoder_heads=HEADS, image=32)


def random(*shape):
    return torch.randn(*shape) * 0.2


def linear(state, name, n_in, n_out):
    state[f"{name}.weight"], state[f"{name}.bias"] = random(n_out, n_in), random(n_out)


def norm(state, name, width):
    state[f"{name}.weight"], state[f"{name}.bias"] = 1 + random(width), random(width)


def blocks(state, name, n, width):
    for i in range(n):
        norm(state, f"{name}.{i}.norm1", width)
        linear(state, f"{name}.{i}.attn.qkv", width, 3 * width)
        linear(state, f"{name}.{i}.attn.proj", width, width)
        norm(state, f"{name}.{i}.norm2", width)
        linear(state, f"{name}.{i}.mlp.fc1", width, 4 * width)
        linear(state, f"{name}.{i}.mlp.fc2", 4 * width, width)


def encoder(embeddings, n_blocks=2):
    """embeddings: key -> channels."""
    torch.manual_seed(0)
    state = {"cls_token": random(1, 1, WIDTH)}
    for key, channels in embeddings.items():
        state[f"{key}.proj.weight"] = random(WIDTH, channels, PATCH, PATCH)
        state[f"{key}.proj.bias"] = random(WIDTH)
    blocks(state, "blocks", n_blocks, WIDTH)
    norm(state, "norm", WIDTH)
    return state


def with_decoder(state, heads):
    """heads: key -> channels."""
    linear(state, "decoder_embed", WIDTH, DECODER)
    state["mask_token"] = random(1, 1, DECODER)
    blocks(state, "decoder_blocks", 1, DECODER)
    norm(state, "decoder_norm", DECODER)
    for key, channels in heads.items():
        linear(state, key, DECODER, PATCH * PATCH * channels)
    return state


def seed_mae(hetero=True):
    counts = (1, 3, 4) if hetero else (3,)
    names = [f".{i}" for i in range(3)] if hetero else [""]
    state = encoder({f"patch_embed{n}": c for n, c in zip(names, counts)})
    state["pos_embed"] = sincos_positions(WIDTH, 4, "code")
    state["decoder_pos_embed"] = sincos_positions(DECODER, 4, "code")
    return with_decoder(state, {f"decoder_pred{n}": c for n, c in zip(names, counts)})


def v1_mae():
    state = with_decoder(encoder({"vis_patch_embed": 1}), {"vis_decoder_pred": 1})
    state |= {"iq_segment_embed.weight": random(WIDTH, 2, 16), "iq_segment_embed.bias": random(WIDTH)}
    state |= {"iq_ant_embed.weight": random(16, WIDTH), "iq_dec_ant_embed.weight": random(16, DECODER)}
    state |= {"iq_time_pos_embed": random(1, 257, WIDTH), "iq_dec_time_pos_embed": random(1, 257, DECODER)}
    linear(state, "iq_decoder_pred", DECODER, 32)
    for modality in ("vision", "iq"):
        state |= {f"mod_ln_scale.{modality}": 1 + random(WIDTH), f"mod_ln_bias.{modality}": random(WIDTH)}
    state["vis_pos_embed"] = sincos_positions(WIDTH, 4, "code")
    state["vis_dec_pos_embed"] = sincos_positions(DECODER, 4, "code")
    return state


def fine_tuned(state, n_outputs=5):
    linear(state, "head", WIDTH, n_outputs)
    return state


def with_lora(state, rank=3):
    for i in range(2):
        for part in ("weight", "bias"):
            state[f"blocks.{i}.attn.qkv.qkv.{part}"] = state.pop(f"blocks.{i}.attn.qkv.{part}")
        for x in "qv":
            state[f"blocks.{i}.attn.qkv.lora_{x}.A"] = random(WIDTH, rank)
            state[f"blocks.{i}.attn.qkv.lora_{x}.B"] = random(rank, WIDTH)
    return state


# A plain reading of their tensors


def attention(state, name, x, alpha):
    lora = f"{name}.qkv.qkv.weight" in state
    at = f"{name}.qkv.qkv" if lora else f"{name}.qkv"
    q, k, v = F.linear(x, state[f"{at}.weight"], state[f"{at}.bias"]).chunk(3, dim=-1)
    if lora:
        q = q + alpha * x @ state[f"{name}.qkv.lora_q.A"] @ state[f"{name}.qkv.lora_q.B"]
        v = v + alpha * x @ state[f"{name}.qkv.lora_v.A"] @ state[f"{name}.qkv.lora_v.B"]
    q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k, v))
    scores = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1)
    x = (scores @ v).transpose(1, 2).flatten(2)
    return F.linear(x, state[f"{name}.proj.weight"], state[f"{name}.proj.bias"])


def run_blocks(state, name, x, eps, alpha=0.0):
    def layer_norm(at, x):
        return F.layer_norm(x, x.shape[-1:], state[f"{at}.weight"], state[f"{at}.bias"], eps)

    i = 0
    while f"{name}.{i}.norm1.weight" in state:
        at = f"{name}.{i}"
        x = x + attention(state, f"{at}.attn", layer_norm(f"{at}.norm1", x), alpha)
        h = F.linear(layer_norm(f"{at}.norm2", x), state[f"{at}.mlp.fc1.weight"], state[f"{at}.mlp.fc1.bias"])
        x = x + F.linear(F.gelu(h), state[f"{at}.mlp.fc2.weight"], state[f"{at}.mlp.fc2.bias"])
        i += 1
    return x


def tokens(state, tile, embedding, positions, eps, visible=None, film=False, alpha=0.0):
    weight, bias = state[f"{embedding}.proj.weight"], state[f"{embedding}.proj.bias"]
    x = F.conv2d(tile, weight, bias, stride=PATCH).flatten(2).transpose(1, 2) + positions[:, 1:]
    x = x if visible is None else x[:, visible]
    x = torch.cat([(state["cls_token"] + positions[:, :1]).expand(len(tile), -1, -1), x], dim=1)
    if film:
        x = x * state["mod_ln_scale.vision"] + state["mod_ln_bias.vision"]
    x = run_blocks(state, "blocks", x, eps, alpha)
    return F.layer_norm(x, x.shape[-1:], state["norm.weight"], state["norm.bias"], 1e-6)


def reconstruction(state, tile, visible, embedding, head, film):
    x = tokens(state, tile, embedding, sincos_positions(WIDTH, 4, "code"), 1e-5, visible, film)
    x = F.linear(x, state["decoder_embed.weight"], state["decoder_embed.bias"])
    y = state["mask_token"].repeat(len(tile), 1 + N, 1)
    y[:, [0, *(v + 1 for v in visible)]] = x
    y = run_blocks(state, "decoder_blocks", y + sincos_positions(DECODER, 4, "code"), 1e-5)
    y = F.layer_norm(y, y.shape[-1:], state["decoder_norm.weight"], state["decoder_norm.bias"], 1e-6)
    return F.linear(y[:, 1:], state[f"{head}.weight"], state[f"{head}.bias"])


def wrapped(path, state, **more):
    namespace = argparse.Namespace(lr=1e-3, data_path="somewhere")
    torch.save({"model": state, "epoch": 7, "optimizer": {"state": {}}, "args": namespace} | more, path)
    return path


def tiles(channels, n=2):
    return torch.randn(n, channels, 32, 32, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("state", "layout", "cases", "film"),
    [
        (seed_mae(), "seed-paper", {1: ".0", 3: ".1", 4: ".2"}, False),
        (seed_mae(hetero=False), "seed-paper", {3: ""}, False),
        (v1_mae(), "v1", {1: None}, True),
    ],
    ids=["hetero", "single", "v1"],
)
def test_masked_autoencoders_reconstruct_the_same(tmp_path, state, layout, cases, film):
    path = wrapped(tmp_path / "theirs.pth", state)
    report = import_checkpoint(path, tmp_path / "ours.safetensors", OPTIONS)
    assert (report.layout, report.kind) == (layout, "masked autoencoder")
    assert set(report.mapped) | set(report.not_used) == set(state)
    model = registry.load(tmp_path / "ours.safetensors")
    assert (model.args.reading, model.args.film, model.args.channels) == ("code", film, tuple(cases))
    assert set(report.mapped.values()) == set(model.state_dict())
    visible = [1, 6, 7, 12]
    noise = torch.ones(2, N)
    noise[:, visible] = 0
    for channels, name in cases.items():
        embedding, head = ("vis_patch_embed", "vis_decoder_pred") if name is None else ("patch_embed", "decoder_pred")
        expected = reconstruction(state, tiles(channels), visible, embedding + (name or ""), head + (name or ""), film)
        with torch.no_grad():
            out = model(tiles(channels), noise=noise)
        assert torch.allclose(out.prediction, expected, atol=1e-4)
        patches = model.encoder.patchify(tiles(channels))
        masked = [i for i in range(N) if i not in visible]
        assert torch.allclose(out.loss, F.mse_loss(expected[:, masked], patches[:, masked]), rtol=1e-4)


def test_what_belongs_to_raw_iq_is_named(tmp_path):
    report = import_checkpoint(wrapped(tmp_path / "v1.pth", v1_mae()), tmp_path / "w.safetensors", OPTIONS)
    tables = {"vis_pos_embed", "vis_dec_pos_embed"}
    iq = {name for name in v1_mae() if name.startswith("iq_")} | {"mod_ln_scale.iq", "mod_ln_bias.iq"}
    assert set(report.not_used) == iq | tables
    assert all("raw IQ" in report.not_used[name] for name in iq)
    assert all("equal to the computed" in report.not_used[name] for name in tables)
    assert "not used: iq_ant_embed.weight: part of the raw IQ path, which this encoder does not have" in report.lines()
    assert registry.read(tmp_path / "w.safetensors").extra["imported"] == "v1"


def test_a_bare_state_is_read_too(tmp_path):
    torch.save(seed_mae(), tmp_path / "bare.pth")
    import_checkpoint(tmp_path / "bare.pth", tmp_path / "w.safetensors", OPTIONS)
    assert registry.load(tmp_path / "w.safetensors").args.n_patches == N


def test_a_fine_tuned_seed_model_gives_the_same_logits(tmp_path):
    state = fine_tuned(encoder({"patch_embed": 3}))
    state["pos_embed"] = sincos_positions(WIDTH, 4, "code") + random(1, 1 + N, WIDTH)  # theirs train
    path = wrapped(tmp_path / "theirs.pth", state)
    report = import_checkpoint(path, tmp_path / "w.safetensors", OPTIONS)
    assert report.mapped["pos_embed"] == "encoder.positions"
    expected = tokens(state, tiles(3), "patch_embed", state["pos_embed"], 1e-6)[:, 0]
    expected = F.linear(expected, state["head.weight"], state["head.bias"])
    with torch.no_grad():
        assert torch.allclose(registry.load(tmp_path / "w.safetensors")(tiles(3)), expected, atol=1e-4)


def test_a_fine_tuned_v1_model_with_adapters_and_channel_adapter(tmp_path):
    state = with_lora(fine_tuned(encoder({"vis_patch_embed": 1}), 3))
    state["channel_adapter.weight"] = random(1, 4, 1, 1)
    for modality in ("vision", "iq"):
        state |= {f"mod_ln_scale.{modality}": 1 + random(WIDTH), f"mod_ln_bias.{modality}": random(WIDTH)}
    options = ImportOptions(heads=HEADS, image=32, lora_alpha=2.0, pooling="avg", squash=True)
    path = wrapped(tmp_path / "theirs.pth", state)
    report = import_checkpoint(path, tmp_path / "w.safetensors", options)
    assert report.mapped["channel_adapter.weight"] == "encoder.patch_embed.4.weight (folded)"
    assert report.mapped["vis_patch_embed.proj.bias"] == "encoder.patch_embed.4.bias"
    assert "no table of positions: tiles taken to be 32 pixels wide" in report.notes
    one = F.conv2d(tiles(4), state["channel_adapter.weight"])
    positions = sincos_positions(WIDTH, 4, "code")
    x = tokens(state, one, "vis_patch_embed", positions, 1e-5, film=True, alpha=2.0)[:, 1:].mean(dim=1)
    expected = F.linear(x, state["head.weight"], state["head.bias"]).tanh()
    model = registry.load(tmp_path / "w.safetensors")
    assert (model.task_args.lora_rank, model.task_args.lora_alpha) == (3, 2.0)
    said = ("--heads", HEADS, "--image", 32, "--lora-alpha", 2.0, "--pooling", "avg", "--squash")
    assert call(path, tmp_path / "cli.safetensors", *said) == 0
    with torch.no_grad():
        assert torch.allclose(model(tiles(4)), expected, atol=1e-4)
        assert torch.equal(registry.load(tmp_path / "cli.safetensors")(tiles(4)), model(tiles(4)))
        model.merge()
        assert torch.allclose(model(tiles(4)), expected, atol=1e-4)


def call(*arguments):
    """Exit code of `wavesfm-train import`, run in this process."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", ["wavesfm-train", "import", *map(str, arguments)])
        cli.main()
    return ended.value.code or 0


def test_a_channel_estimation_head(tmp_path, capsys):
    state = encoder({"patch_embed": 2})
    state["pos_embed"] = sincos_positions(WIDTH, 4, "code")
    state["decoder_pos_embed"] = sincos_positions(DECODER, 4, "code")
    linear(state, "decoder_embed", WIDTH, DECODER)
    blocks(state, "decoder_blocks", 1, DECODER)
    norm(state, "decoder_norm", DECODER)
    linear(state, "decoder_pred", DECODER, 2 * 8 * 8)
    options = ImportOptions(heads=HEADS, decoder_heads=HEADS, grid=(8, 2, 12))
    import_checkpoint(wrapped(tmp_path / "ce.pth", state), tmp_path / "w.safetensors", options)
    x = tokens(state, tiles(2), "patch_embed", state["pos_embed"], 1e-6)
    x = F.linear(x, state["decoder_embed.weight"], state["decoder_embed.bias"]) + state["decoder_pos_embed"]
    x = run_blocks(state, "decoder_blocks", x, 1e-6)
    x = F.layer_norm(x, x.shape[-1:], state["decoder_norm.weight"], state["decoder_norm.bias"], 1e-6)
    x = F.linear(x, state["decoder_pred.weight"], state["decoder_pred.bias"])[:, 1:4]  # the first tokens after CLS
    expected = x.reshape(2, 1, 3, 8, 8, 2).permute(0, 5, 1, 3, 2, 4).reshape(2, 2, 8, 24)
    said = ("--heads", HEADS, "--decoder-heads", HEADS, "--grid")
    assert call(tmp_path / "ce.pth", tmp_path / "cli.safetensors", *said, "8,2,12") == 0
    with torch.no_grad():
        for name in ("w", "cli"):
            assert torch.allclose(registry.load(tmp_path / f"{name}.safetensors")(tiles(2)), expected, atol=1e-4)
    for grid in ("8,2", "8x2x12", "4,2,12"):
        assert call(tmp_path / "ce.pth", tmp_path / "x.safetensors", *said, grid) == 2
        assert capsys.readouterr().err.startswith("error: ")


def test_published_sizes_need_no_heads(tmp_path):
    state = {"cls_token": torch.zeros(1, 1, 256), "vis_patch_embed.proj.weight": torch.zeros(256, 1, 16, 16)}
    state["vis_patch_embed.proj.bias"] = torch.zeros(256)
    blocks(state, "blocks", 8, 256)
    norm(state, "norm", 256)
    state |= {"head.weight": torch.zeros(3, 256), "head.bias": torch.zeros(3)}
    report = import_checkpoint(wrapped(tmp_path / "v1.pth", state), tmp_path / "w.safetensors")
    assert (report.args.size, report.args.encoder.heads, report.args.image) == ("small", 8, 224)


# Refusals


def changed(remove=(), **tensors):
    state = seed_mae() | tensors
    return {name: tensor for name, tensor in state.items() if name not in remove}


@pytest.mark.parametrize(
    ("state", "match"),
    [
        (changed(**{"blocks.0.attn.bonus": torch.zeros(2)}), r"blocks\.0\.attn\.bonus: found a key that is not known"),
        (changed(**{"head.0.weight": torch.zeros(2)}), r"head\.0\.weight: found a key that is not known"),
        (changed(["norm.bias"]), r"encoder\.norm\.bias: found nothing"),
        (changed(["cls_token"]), "cls_token: found nothing"),
        (changed([f"patch_embed.{i}.proj.weight" for i in range(3)]), "patch_embed.* found nothing, expected a patch"),
        (changed(["decoder_pred.2.weight"]), r"reconstruct\.4\.weight: found nothing"),
        (changed(["decoder_blocks.0.norm1.weight"]), r"decoder_blocks\.0\.norm1\.weight: found nothing"),
        (changed(**{"norm.weight": torch.ones(31)}), r"encoder\.norm\.weight: found 31, expected 32"),
        (
            changed(pos_embed=sincos_positions(WIDTH, 4, "paper")),
            "pos_embed: found other values, expected .*column first",
        ),
        (changed(pos_embed=torch.zeros(1, 16, WIDTH)), "pos_embed: found 15 patches, expected a square"),
        (changed(decoder_pos_embed=torch.zeros(1, 2, 3)), r"decoder_pos_embed: found \(1, 2, 3\)"),
        (changed(**{"patch_embed.3.proj.weight": random(WIDTH, 3, 8, 8)}), "patch_embed.3.* 3 channels again"),
        (changed(**{"decoder_pred.7.bias": torch.zeros(64)}), "decoder_pred.7.bias: found head 7"),
        (changed(**{"blocks.5.norm1.weight": torch.ones(WIDTH)}), r"blocks: found \[0, 1, 5\]"),
        (changed(["mask_token", "decoder_embed.weight"]), r"head\.weight: found nothing"),
        ({"weight": torch.zeros(2, 2)}, "patch_embed.proj.weight: found nothing"),
        ({"epoch": 3}, "model.epoch: found int, expected a tensor"),
    ],
)
def test_every_key_must_fit(tmp_path, state, match):
    path = wrapped(tmp_path / "theirs.pth", state)
    with pytest.raises(WeightsError, match=match) as refused:
        import_checkpoint(path, tmp_path / "w.safetensors", OPTIONS)
    assert str(path) in str(refused.value)
    assert not (tmp_path / "w.safetensors").exists()


def test_what_the_file_cannot_tell_must_be_said(tmp_path):
    path = wrapped(tmp_path / "a.pth", seed_mae())
    with pytest.raises(WeightsError, match="heads: found 2 x 32 with heads = 0"):
        import_checkpoint(path, tmp_path / "w.safetensors", ImportOptions())
    with pytest.raises(ConfigurationError, match="heads: found 5, expected a divisor of the width 32"):
        import_checkpoint(path, tmp_path / "w.safetensors", ImportOptions(heads=5))
    path = wrapped(tmp_path / "b.pth", with_lora(fine_tuned(encoder({"patch_embed": 1}))))
    with pytest.raises(WeightsError, match=r"lora_q\.A: found adapters, expected the factor on x A B"):
        import_checkpoint(path, tmp_path / "w.safetensors", OPTIONS)


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_no_pickled_code_runs(tmp_path):
    path = wrapped(tmp_path / "theirs.pth", seed_mae(), extra=Hostile(tmp_path / "ran"))
    with pytest.raises(
        WeightsError, match=r"theirs\.pth: pickle: found \w+\.mkdir, expected only tensors, plain types"
    ):
        import_checkpoint(path, tmp_path / "w.safetensors", OPTIONS)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_checkpoint_is_refused(tmp_path, share):
    path = wrapped(tmp_path / "theirs.pth", seed_mae())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError, match=r"theirs\.pth: (file|pickle): found"):
        import_checkpoint(path, tmp_path / "w.safetensors", OPTIONS)


def test_no_file_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="file: found nothing"):
        import_checkpoint(tmp_path / "none.pth", tmp_path / "w.safetensors")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
@pytest.mark.parametrize("key", ["model", "state_dict", None])
def test_wrapped_checkpoints_are_read(tmp_path, prefix, key):
    """As DistributedDataParallel, torch.compile and Lightning leave them."""
    plain, wrapped = tmp_path / "plain.pth", tmp_path / "wrapped.pth"
    state = seed_mae()
    torch.save(state, plain)
    under = {f"{prefix}{name}": tensor for name, tensor in state.items()}
    torch.save(under if key is None else {key: under, "epoch": 3}, wrapped)
    for path in (plain, wrapped):
        import_checkpoint(path, path.with_suffix(".safetensors"), OPTIONS)
    one, other = (registry.read(path.with_suffix(".safetensors")).state for path in (plain, wrapped))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    path = tmp_path / "nan.pth"
    state = seed_mae()
    state["norm.bias"][3] = float("nan")
    torch.save({"model": state}, path)
    with pytest.raises(WeightsError, match=r"norm.bias: found 1 values that are not finite"):
        import_checkpoint(path, tmp_path / "out.safetensors", OPTIONS)
    assert not (tmp_path / "out.safetensors").exists()
    state["norm.bias"][3] = 0.0
    torch.save({"model": state}, path)
    import_checkpoint(path, tmp_path / "out.safetensors", OPTIONS)
    model = registry.load(tmp_path / "out.safetensors")
    with torch.no_grad():
        model.mask_token[0, 0, 0] = float("inf")
    registry.save(tmp_path / "inf.safetensors", model)
    with pytest.raises(WeightsError, match=r"mask_token: found 1 values that are not finite"):
        registry.load(tmp_path / "inf.safetensors")
