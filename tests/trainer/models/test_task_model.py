# SPDX-License-Identifier: GPL-3.0-or-later
"""Task models: trainable parameters, cached features, weights files, and the equality of exported ONNX."""

from __future__ import annotations

import io
import json
import logging

import numpy as np
import onnxruntime
import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file
from wavesfm_core.errors import ConfigurationError
from wavesfm_trainer.models import registry, weights
from wavesfm_trainer.models.mae import MaskedAutoencoder
from wavesfm_trainer.models.pretrained import from_pretrained, load_pretrained
from wavesfm_trainer.models.step_random import StepRandom
from wavesfm_trainer.models.task_model import BlockHead, TaskArgs, TaskModel
from wavesfm_trainer.models.vit import EncoderArgs
from wavesfm_trainer.models.weights import WeightsError

TOY = {"size": "custom", "image": 32, "patch": 8, "depth": 3, "width": 32, "heads": 4}
TOY |= {"decoder_depth": 2, "decoder_width": 16, "decoder_heads": 4}
LORA = {"trainable": "lora", "lora_rank": 3, "lora_alpha": 4.0}
GRID = {"head": "block", "grid": (4, 2, 12), "n_outputs": 0}


def args(**fields):
    return EncoderArgs(**TOY | fields)


def task(**fields):
    return TaskArgs(**{"n_outputs": 5, "trainable": "probe"} | fields)


def toy(encoder=None, **fields):
    torch.manual_seed(0)
    model = TaskModel(encoder or args(), task(**fields))
    for name, parameter in model.named_parameters():
        if name.endswith(".B"):
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def tiles(n=3, channels=1, seed=1):
    return torch.randn(n, channels, 32, 32, generator=torch.Generator().manual_seed(seed))


def trains(model):
    return {name for name, p in model.named_parameters() if p.requires_grad}


def count(model, *prefixes):
    return sum(p.numel() for n, p in model.named_parameters() if p.requires_grad and n.startswith(prefixes))


@pytest.fixture
def pretrained(tmp_path):
    torch.manual_seed(5)
    registry.save(tmp_path / "mae.safetensors", MaskedAutoencoder(args(channels=(1, 3))))
    return tmp_path / "mae.safetensors"


# What trains


def test_the_papers_counts_of_trainable_parameters():
    with torch.device("meta"):
        last, low = (TaskModel(EncoderArgs(size="paper"), task(n_outputs=20, trainable=t)) for t in ("last", "lora"))
        code = TaskModel(EncoderArgs(size="paper"), task(n_outputs=20, trainable="lora", trainable_reading="code"))
    assert count(last, "encoder.") == 6_304_768  # 6.3 M
    assert count(low, "encoder.") == 1_228_800
    assert count(last, "head.") == count(low, "head.") == 20 * 513
    assert count(code, "encoder.") == 1_228_800 + 16 * 16 * 512 + 512 + 512 + 2 * 512


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"trainable": "probe"}, {"head"}),
        ({"trainable": "last", "last_blocks": 1}, {"head", "encoder.blocks.2"}),
        ({"trainable": "last", "last_blocks": 3}, {"head", *(f"encoder.blocks.{i}" for i in range(3))}),
        ({"trainable": "all"}, {"head", "encoder"}),
        (
            {"trainable": "probe", "trainable_reading": "code"},
            {"head", "encoder.cls", "encoder.norm", "encoder.patch_embed"},
        ),
    ],
)
def test_what_trains(fields, expected):
    model = toy(**fields)
    names = {name for name, _ in model.named_parameters()}
    assert trains(model) == {name for name in names if name.startswith(tuple(expected))}


def test_lora_trains_its_adapters_only_and_all_blocks_have_them():
    model = toy(**LORA)
    expected = {f"encoder.blocks.{i}.attn.qkv.lora_{x}.{m}" for i in range(3) for x in "qv" for m in "AB"}
    assert trains(model) == expected | {"head.weight", "head.bias"}


def test_frozen_parameters_get_no_gradient_and_trainable_ones_do():
    for fields in ({"trainable": "last", "last_blocks": 1}, LORA, {"trainable": "all"}):
        model = toy(**fields)
        model(tiles()).square().sum().backward()
        assert {n for n, p in model.named_parameters() if p.grad is not None} == trains(model)


def test_layer_decay_falls_towards_the_input():
    model = toy(args(rate_input=True, film=True), trainable="all")
    groups = model.parameter_groups(1e-3, 0.05, 0.5)
    scale = {name: group["lr_scale"] for group in groups for name in group["names"]}
    assert scale["head.weight"] == scale["encoder.norm.weight"] == scale["encoder.film_scale"] == 1
    assert [scale[f"encoder.blocks.{i}.mlp.fc1.weight"] for i in range(3)] == [0.125, 0.25, 0.5]
    assert scale["encoder.patch_embed.1.weight"] == scale["encoder.cls"] == scale["encoder.rate.unknown"] == 0.0625
    assert all(group["lr"] == 1e-3 * group["lr_scale"] for group in groups)
    with pytest.raises(ConfigurationError, match="layer_decay: found 0"):
        model.parameter_groups(1e-3, 0.05, 0.0)


def test_a_backbone_frozen_at_random_is_warned_of(caplog, pretrained):
    with caplog.at_level(logging.WARNING):
        toy(trainable="all").parameter_groups(1e-3, 0.05)
        from_pretrained(pretrained, task(), 1)[0].parameter_groups(1e-3, 0.05)
    assert not caplog.records
    toy(trainable="probe").parameter_groups(1e-3, 0.05)
    assert "the frozen parameters are random" in caplog.text


# Heads and pooling


def test_pooling_takes_the_token_or_the_mean():
    tile = tiles()
    for reading, start in (("paper", 0), ("code", 1)):
        encoder = args(reading=reading)
        token, avg = toy(encoder).eval(), toy(encoder, pooling="avg").eval()
        tokens = token.encoder.tokens(tile)
        assert torch.allclose(token(tile), token.head(tokens[:, 0]), atol=1e-5)
        assert torch.allclose(avg(tile), avg.head(tokens[:, start:].mean(dim=1)), atol=1e-5)


def test_a_squashed_position_lies_within_the_area():
    model = toy(output="position", squash=True)
    model.head.weight.data *= 100
    plain = toy(output="position")
    plain.head.weight.data *= 100
    assert torch.allclose(model(tiles()), plain(tiles()).tanh())
    assert plain(tiles()).abs().max() > 1


def test_kept_patches_are_all_that_is_looked_at():
    model, tile = toy(), tiles(2)
    keep = torch.tensor([[0, 5], [3, 15]])
    blank = torch.zeros_like(tile)
    blank[0, :, :8, :8], blank[0, :, 8:16, 8:16] = tile[0, :, :8, :8], tile[0, :, 8:16, 8:16]
    blank[1, :, :8, 24:], blank[1, :, 24:, 24:] = tile[1, :, :8, 24:], tile[1, :, 24:, 24:]
    assert torch.allclose(model(tile, keep=keep), model(blank, keep=keep))
    assert not torch.allclose(model(tile, keep=keep), model(tile))


def test_a_block_head_lays_out_the_channel():
    model = toy(**GRID).eval()
    assert model.task_args.output_name == "channel"
    assert (model.head.strip, model.head.n_tokens) == (8, 3)
    tile = tiles(2)
    out = model(tile)
    assert out.shape == (2, 2, 4, 24)
    head, tokens = model.head, model.encoder.tokens(tile)
    x = head.norm(head.block(head.embed(tokens) + head.positions))
    for i in range(3):
        values = head.out(x[:, 1 + i]).view(2, 4, 8, 2)  # antenna, column, part
        assert torch.allclose(out[..., 8 * i : 8 * i + 8], values.permute(0, 3, 1, 2), atol=1e-5)


def test_the_papers_grid_is_42_strips_of_16_columns():
    with torch.device("meta"):
        head = BlockHead(EncoderArgs(size="paper", channels=(2,)), (16, 14, 48))
    assert (head.strip, head.n_tokens, head.out.out_features) == (16, 42, 16 * 16 * 2)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"n_outputs": 0}, "n_outputs"),
        ({"head": "mlp"}, "head"),
        ({"head": "block", "grid": (16, 14, 48)}, "n_outputs"),
        ({"head": "block", "n_outputs": 0}, "grid"),
        ({"grid": (1, 2, 3)}, "grid"),
        ({"output": "channel"}, "output"),
        ({"squash": True}, "squash"),
        ({"pooling": "max"}, "pooling"),
        ({"trainable": "some"}, "trainable"),
        ({"lora_rank": 0}, "lora_rank"),
        ({"lora_alpha": 0.0}, "lora_alpha"),
    ],
)
def test_contradictions_are_refused_by_name(fields, field):
    with pytest.raises(ConfigurationError) as refused:
        task(**fields)
    assert refused.value.field == field


def test_args_that_the_encoder_cannot_have_are_refused():
    with pytest.raises(ConfigurationError, match="last_blocks: found 4, expected 1 to 3"):
        toy(trainable="last", last_blocks=4)
    with pytest.raises(ConfigurationError, match=r"grid: found \(4, 1, 17\), expected"):
        toy(head="block", grid=(4, 1, 17), n_outputs=0)
    with pytest.raises(ConfigurationError, match="keep"):
        toy(**GRID)(tiles(), keep=torch.zeros(3, 2, dtype=torch.int64))


# Prefix


@pytest.mark.parametrize(
    ("fields", "depth"),
    [
        ({"trainable": "probe"}, 3),
        ({"trainable": "probe", "pooling": "avg"}, 3),
        ({"trainable": "probe", "output": "position", "squash": True}, 3),
        ({"trainable": "probe"} | GRID, 3),
        ({"trainable": "last", "last_blocks": 1}, 2),
        ({"trainable": "last", "last_blocks": 1} | GRID, 2),
        (LORA, 0),
        ({"trainable": "all"}, 0),
        ({"trainable": "last", "last_blocks": 1, "trainable_reading": "code"}, 0),
    ],
)
def test_outputs_from_the_prefix_are_the_outputs(fields, depth):
    model = toy(args(rate_input=True), **fields)
    tile, rate = tiles(), torch.tensor([[6.0], [0.0], [7.0]])
    assert model.prefix_depth() == depth
    kept = model.prefix(tile, rate)
    assert not kept.requires_grad
    assert torch.allclose(model.from_prefix(kept), model(tile, rate), atol=1e-6)
    if depth:  # and trains the same
        model(tile, rate).sum().backward()
        expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        model.from_prefix(kept).sum().backward()
        assert all(torch.allclose(p.grad, expected[n], atol=1e-5) for n, p in model.named_parameters() if n in expected)


def test_a_probe_keeps_only_what_its_head_sees():
    assert toy().prefix(tiles()).shape == (3, 32)
    assert toy(trainable="last", last_blocks=1).prefix(tiles()).shape == (3, 17, 32)


def test_frozen_blocks_lose_their_stochastic_depth():
    model = toy(args(drop_path=0.4), trainable="last", last_blocks=1).train()
    assert model.encoder.drop_path == pytest.approx([0, 0, 0.4])
    model.set_step_random(StepRandom(0, 0))
    assert torch.equal(model.prefix(tiles()), model.prefix(tiles()))
    assert toy(args(drop_path=0.4), trainable="all").encoder.drop_path == pytest.approx([0, 0.2, 0.4])


# Weights


@pytest.mark.parametrize("fields", [{}, LORA, GRID, {"trainable": "last", "last_blocks": 1, "pooling": "avg"}])
def test_a_task_model_comes_back_from_its_file(tmp_path, fields):
    model = toy(args(rate_input=True), **fields).eval()
    registry.save(tmp_path / "w.safetensors", model, extra={"labels": ["a", "b"]})
    again = registry.load(tmp_path / "w.safetensors")
    assert isinstance(again, TaskModel)
    assert (again.encoder_args, again.task_args) == (model.encoder_args, model.task_args)
    assert torch.equal(again(tiles()), model(tiles()))
    assert trains(again) == trains(model)
    assert registry.read(tmp_path / "w.safetensors").extra == {"labels": ["a", "b"]}
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_equal_models_are_equal_files(tmp_path):
    model, extra = toy(), {"labels": ["ä", "b"], "recipe": "r", "row": {"epoch": 3}}
    paths = [tmp_path / f"{i}.safetensors" for i in range(8)]
    for path in paths:
        registry.save(path, model, extra)
    assert len({path.read_bytes() for path in paths}) == 1
    assert registry.read(paths[0]).extra == extra


def test_only_models_with_a_weights_file_are_saved(tmp_path):
    with pytest.raises(WeightsError, match="model: found Linear, expected one of masked_autoencoder, task_model"):
        registry.save(tmp_path / "w.safetensors", torch.nn.Linear(2, 2))
    assert not list(tmp_path.iterdir())


def test_a_masked_autoencoder_comes_back_from_its_file(pretrained):
    model = registry.load(pretrained)
    torch.manual_seed(5)
    same = MaskedAutoencoder(args(channels=(1, 3))).eval()
    noise = torch.rand(2, 16)
    assert torch.equal(model(tiles(2, 3), noise=noise).prediction, same(tiles(2, 3), noise=noise).prediction)


def test_averaged_weights_can_be_written_for_a_model(tmp_path):
    model = toy()
    average = {name: tensor * 0.5 for name, tensor in model.state_dict().items()}
    registry.save(tmp_path / "w.safetensors", model, state=average)
    assert torch.equal(registry.load(tmp_path / "w.safetensors").head.weight, model.head.weight * 0.5)
    with pytest.raises(WeightsError, match=r"head\.weight: found nothing"):
        registry.save(tmp_path / "w.safetensors", model, state={k: v for k, v in average.items() if k != "head.weight"})


def test_the_encoder_is_taken_strictly_and_what_is_new_is_said(pretrained):
    model, loaded = from_pretrained(pretrained, task(**LORA), 1)
    source = load_file(pretrained)
    qkv = model.encoder.blocks[1].attn.qkv
    assert torch.equal(qkv.qkv.weight, source["encoder.blocks.1.attn.qkv.weight"])
    assert torch.equal(model.encoder.patch_embed["1"].weight, source["encoder.patch_embed.1.weight"])
    adapters = {f"encoder.blocks.{i}.attn.qkv.lora_{x}.{m}" for i in range(3) for x in "qv" for m in "AB"}
    assert set(loaded.new) == {"head.weight", "head.bias"} | adapters
    assert set(loaded.taken) | set(loaded.new) == {name for name, _ in model.named_parameters()}
    unused = {name for name in source if not name.startswith("encoder.")}
    assert set(loaded.unused) == unused | {"encoder.patch_embed.3.weight", "encoder.patch_embed.3.bias"}


def test_a_patch_embedding_that_pretraining_never_saw_trains(pretrained, tmp_path):
    model, loaded = from_pretrained(pretrained, task(), 4)
    new = {"encoder.patch_embed.4.weight", "encoder.patch_embed.4.bias"}
    assert new < set(loaded.new)
    assert trains(model) == new | {"head.weight", "head.bias"}
    assert model.prefix_depth() == 0
    known, _ = from_pretrained(pretrained, task(), 3)
    assert trains(known) == {"head.weight", "head.bias"}
    assert known.prefix_depth() == 3
    registry.save(tmp_path / "w.safetensors", model)  # and goes on training after a round trip
    assert trains(registry.load(tmp_path / "w.safetensors")) == trains(model)


def test_a_cls_token_that_pretraining_did_without_is_new(tmp_path):
    registry.save(tmp_path / "mae.safetensors", MaskedAutoencoder(args(), cls_in_pretraining=False))
    model, loaded = from_pretrained(tmp_path / "mae.safetensors", task(), 1)
    assert "encoder.cls" in loaded.new
    assert trains(model) == {"encoder.cls", "head.weight", "head.bias"}


def test_a_block_head_can_take_the_decoders_first_block(pretrained):
    source = load_file(pretrained)
    model, loaded = from_pretrained(pretrained, task(**GRID), 1, decoder_into_head=True)
    assert torch.equal(model.head.block.mlp.fc1.weight, source["decoder_blocks.0.mlp.fc1.weight"])
    assert torch.equal(model.head.embed.weight, source["decoder_embed.weight"])
    assert {n for n in loaded.new if n.startswith("head.")} == {"head.out.weight", "head.out.bias"}
    _, apart = from_pretrained(pretrained, task(**GRID), 1)
    assert {"head.block.mlp.fc1.weight", "head.embed.weight"} < set(apart.new)


def test_an_encoder_of_other_args_is_refused(pretrained):
    loaded = registry.read(pretrained)
    for fields, field in (({"width": 64}, "width"), ({"reading": "code"}, "reading"), ({"rate_input": True}, "rate")):
        with pytest.raises(WeightsError, match=rf"mae\.safetensors: encoder\.{field}"):
            load_pretrained(TaskModel(args(**fields), task()), loaded)


def test_a_state_that_lacks_or_adds_is_refused(pretrained):
    loaded = registry.read(pretrained)

    def changed(**changes):
        state = {k: v for k, v in (dict(loaded.state) | changes).items() if v is not None}
        return weights.Weights(loaded.where, loaded.kind, loaded.config, state, {})

    for name, tensor, found in (
        ("encoder.blocks.1.norm1.weight", None, "found nothing, expected 32"),
        ("encoder.patch_embed.1.weight", None, "found nothing, expected 32x64"),
        ("encoder.blocks.9.norm1.weight", torch.zeros(32), "found a tensor, expected none"),
        ("encoder.norm.weight", torch.zeros(16), "found 16, expected 32"),
    ):
        with pytest.raises(WeightsError, match=f"{name}: {found}"):
            load_pretrained(toy(), changed(**{name: tensor}))


@pytest.mark.parametrize("head", [False, True])
def test_training_goes_on_from_a_task_model_with_or_without_its_head(tmp_path, head):
    source = toy()
    torch.nn.init.ones_(source.head.weight)
    registry.save(tmp_path / "w.safetensors", source)
    model = toy()
    loaded = load_pretrained(model, registry.read(tmp_path / "w.safetensors"), head=head)
    assert model.pretrained and model.new == ()
    assert loaded.new == (() if head else ("head.weight", "head.bias"))
    for name, tensor in source.state_dict().items():
        if name != "head.bias":  # zero in both
            assert torch.equal(model.state_dict()[name], tensor) is (head or name != "head.weight"), name


def test_adapters_are_merged_where_a_start_is_made_from_them(tmp_path):
    source = toy(trainable="lora", lora_rank=2)
    with torch.no_grad():
        for name, parameter in source.named_parameters():
            if ".lora_" in name:
                parameter.normal_(std=0.2)
    registry.save(tmp_path / "w.safetensors", source)
    held = registry.read(tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").unlink()  # what was read counts, not the file as it is now
    for fields in ({}, {"trainable": "lora", "lora_rank": 3}):  # new adapters start at nothing
        model = TaskModel(args(), task(**fields))
        loaded = load_pretrained(model, held, head=True)
        assert loaded.unused == () and all(".lora_" in name for name in loaded.new)
        tile = tiles()
        torch.testing.assert_close(model.eval()(tile), source.eval()(tile), rtol=1e-4, atol=1e-5)


def rewrite(path, change_state=None, change_config=None, **note):
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    state, config = load_file(path), json.loads(metadata["config"])
    if change_state:
        change_state(state)
    if change_config:
        change_config(config)
    save_file(state, path, metadata=metadata | {"config": json.dumps(config)} | note)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"change_state": lambda s: s.pop("head.bias")}, r"head\.bias: found nothing, expected a tensor of 5"),
        ({"change_state": lambda s: s.update(x=torch.zeros(2))}, "x: found a tensor of 2, expected none"),
        ({"change_state": lambda s: s.update({"head.bias": torch.zeros(6)})}, r"head\.bias: found 6, expected 5"),
        (
            {"change_state": lambda s: s.update({"head.bias": torch.zeros(5).bfloat16()})},
            r"head\.bias: found torch.bfloat16, expected torch.float32 or torch.float16",
        ),
        ({"change_config": lambda c: c["encoder"].update(depth=2)}, r"blocks\.2\..*found a tensor.*expected none"),
        ({"change_config": lambda c: c["encoder"].update(depth=10**9)}, "depth: found 1000000000"),
        ({"change_config": lambda c: c["encoder"].update(colour=1)}, "colour"),
        ({"change_config": lambda c: c["task"].update(head="mlp")}, r"TaskArgs\.head: found 'mlp'"),
        ({"change_config": lambda c: c.pop("task")}, "config: found .*expected .*task"),
        ({"config": "{"}, "config: found invalid JSON"),
        ({"config": "[" * 100_000}, "config: found invalid JSON"),
        ({"config": "[]"}, "config: found list, expected an object"),
        ({"format": "other"}, "metadata: found other"),
        ({"kind": "gan"}, "metadata: found .*gan, expected .*task_model"),
    ],
)
def test_a_file_that_is_not_what_it_says_is_refused(tmp_path, change, match):
    path = tmp_path / "w.safetensors"
    registry.save(path, toy())
    rewrite(path, **change)
    with pytest.raises(WeightsError, match=match) as refused:
        registry.load(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path, share):
    path = tmp_path / "w.safetensors"
    registry.save(path, toy())
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(WeightsError, match=r"w\.safetensors: file: found truncated"):
        registry.load(path)


def test_no_file_and_no_place_to_write_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="file: found nothing"):
        registry.load(tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match="file: found not written"):
        registry.save(tmp_path / "none" / "w.safetensors", toy())


def test_merging_changes_neither_outputs_nor_labels(tmp_path):
    model = toy(**LORA).eval()
    expected = model(tiles())
    assert model.merge() == 3
    assert torch.allclose(model(tiles()), expected, atol=1e-5)
    registry.save(tmp_path / "w.safetensors", model)
    assert torch.equal(registry.load(tmp_path / "w.safetensors")(tiles()), model(tiles()))
    assert model.merge() == 0


# ONNX


@pytest.mark.parametrize(
    ("fields", "shape"),
    [({}, (5,)), (LORA | {"pooling": "avg"}, (5,)), (GRID, (2, 4, 24))],
    ids=["linear", "lora merged", "block"],
)
def test_onnx_says_the_same_at_any_batch(fields, shape, caplog):
    model = toy(args(depth=1, rate_input=True), **fields).eval()
    model.merge()
    caplog.set_level(logging.ERROR)  # the exporter logs every symbol at DEBUG
    buffer = io.BytesIO()
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.onnx.export(
        model,
        (tiles(2), torch.full((2, 1), 6.0)),
        dynamo=True,
        verbose=False,
        input_names=["tile", "log10_rate"],
        output_names=[model.task_args.output_name],
        dynamic_shapes=({0: batch}, {0: batch}),
    )
    program.save(buffer)
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    for n in (1, 2, 7):
        tile, rate = tiles(n), torch.linspace(0, 7, n)[:, None]
        (found,) = session.run(None, {"tile": tile.numpy(), "log10_rate": rate.numpy()})
        assert found.shape == (n, *shape)
        with torch.no_grad():
            assert np.allclose(found, model(tile, rate).numpy(), atol=2e-5)
