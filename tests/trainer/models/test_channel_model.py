# SPDX-License-Identifier: GPL-3.0-or-later
"""The channel estimator: equality with LMMSE before training, autocast, weights files, and refusals."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import safetensors
import torch
from safetensors.torch import save_file
from support.toy_pools import COMB, SPEC, channels
from wavesfm_core.bundle.covariance import Covariances
from wavesfm_core.bundle.ofdm_spec import OFDMSpec
from wavesfm_core.channel.estimators import LMMSE
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_core.preprocess.pilot_grid import at_pilots, least_squares_tiles, observe
from wavesfm_trainer.data.generators.sionna_grids import send
from wavesfm_trainer.data.numerologies import read_numerology
from wavesfm_trainer.models import registry
from wavesfm_trainer.models.channel_model import ChannelModel, ModeArgs, encoder_for
from wavesfm_trainer.models.vit import EncoderArgs
from wavesfm_trainer.models.weights import WeightsError

ENCODER = EncoderArgs(
    size="custom", depth=2, width=32, heads=2, decoder_depth=1, decoder_width=16, decoder_heads=2
)  # fmt: skip
MODES = ModeArgs(frequency_modes=6, patch=4)


def covariances(spec: OFDMSpec) -> Covariances:
    return Covariances.learn([channels(spec, 400, seed=1)])


def make(spec: OFDMSpec = SPEC, args: ModeArgs = MODES, random: bool = False) -> ChannelModel:
    torch.manual_seed(0)
    model = ChannelModel.of(args, spec, ENCODER, covariances(spec)).eval()
    if random:
        torch.nn.init.normal_(model.head.weight, std=0.3)
    return model


def received(spec: OFDMSpec, snr_db: float, count: int = 5):
    """Channels, grids, what the pilots say, and the model's inputs."""
    channel = channels(spec, count, seed=2)
    grids = send(np.random.default_rng(3), channel, np.full(count, snr_db, np.float32), spec).received
    seen = observe(grids, spec)
    tiles, roots = least_squares_tiles(seen.ls)
    return channel, grids, seen, (torch.from_numpy(tiles), torch.from_numpy(np.float32(seen.snr_db))[:, None]), roots


def complex_grid(output: torch.Tensor, spec: OFDMSpec) -> np.ndarray:
    parts = output.detach().numpy().reshape(len(output), 2, *spec.grid_shape)
    return parts[:, 0] + 1j * parts[:, 1]


@pytest.mark.parametrize("spec", [SPEC, COMB], ids=["square", "comb"])
@pytest.mark.parametrize("args", [MODES, ModeArgs(5, 3, False, False)], ids=["additive", "gains only"])
@pytest.mark.parametrize("snr_db", [-10.0, 5.0, 30.0])
def test_at_first_it_is_lmmse_with_the_measured_snr(spec, args, snr_db):
    _, grids, seen, inputs, roots = received(spec, snr_db)
    expected = LMMSE(spec, covariances(spec)).estimate(grids, seen)
    found = complex_grid(make(spec, args)(*inputs), spec) * roots[:, None, None, None]
    assert found == pytest.approx(expected, abs=2e-5 * float(np.abs(expected).max()))


def test_it_runs_with_106_resource_blocks_of_nr():
    spec = read_numerology("nr106")
    nr = dataclasses.replace(spec, subcarriers=144, pilot_quadrants=spec.pilot_quadrants[:144])
    args = ModeArgs(frequency_modes=24)
    model = ChannelModel.of(args, nr, ENCODER, covariances(nr)).eval()
    assert (model.encoder_args.image, len(model.seen)) == (24, 12)  # two of six rows of patches hold antennas
    _, grids, seen, inputs, roots = received(nr, 10.0, 2)
    found = complex_grid(model(*inputs), nr) * roots[:, None, None, None]
    expected = LMMSE(nr, covariances(nr)).estimate(grids, seen)
    assert found == pytest.approx(expected, abs=2e-5 * float(np.abs(expected).max()))


@pytest.mark.parametrize("spec", [SPEC, COMB], ids=["square", "comb"])
def test_modes_of_a_channel_come_back_as_its_grid(spec):
    model = make(spec)
    channel = channels(spec, 4, seed=5)
    tiles, roots = least_squares_tiles(np.ascontiguousarray(at_pilots(channel, spec)))
    modes = model.analyse(torch.from_numpy(tiles))
    power = modes.square().sum(dim=(1, 2, 3, 4)).numpy()
    assert power == pytest.approx(np.sum(tiles**2, axis=(1, 2, 3)), rel=1e-3)
    back = complex_grid(model.synthesise(modes), spec) * roots[:, None, None, None]
    at = at_pilots(back, spec)
    assert at == pytest.approx(at_pilots(channel, spec), abs=0.02)


def test_its_own_error_is_that_of_core():
    lmmse, model = LMMSE(SPEC, covariances(SPEC)), make()
    full = float((model.powers * model.spread_powers).sum())  # the rest is between the pilots, and nobody's
    for snr_db in (-10.0, 0.0, 20.0):
        found = float(model.linear_error(torch.tensor([10 ** (-snr_db / 10)])))
        assert found + 1 - full == pytest.approx(lmmse.error(snr_db), rel=1e-4, abs=1e-6)


def test_every_part_of_the_encoder_learns():
    model = make(random=True)
    _, _, _, inputs, _ = received(SPEC, 0.0)
    model(*inputs).square().sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []


def test_what_the_encoder_says_changes_gains_and_adds():
    model = make()
    _, _, _, inputs, _ = received(SPEC, 0.0)
    before = model.coefficients(*inputs)
    each = torch.arange(model.head.bias.numel()) % 3
    with torch.no_grad():
        model.head.bias[each == 0] = 60.0  # believe all that is shown
    shown = model.args.frequency_modes
    after = model.coefficients(*inputs)
    assert torch.equal(after[..., shown:], before[..., shown:])
    torch.testing.assert_close(after[..., :shown], model.analyse(inputs[0])[..., :shown], rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        model.head.bias.zero_()
        model.head.bias[each == 2] = 1.0  # the imaginary part, one deviation of what is not known
    noise = 10 ** (-inputs[1] / 10)[:, :, None, None, None]
    deviation = (model.powers * noise / (model.powers + noise) / (1 + noise)).sqrt()
    apart = model.coefficients(*inputs) - before
    torch.testing.assert_close(apart[:, 1, ..., :shown], deviation[:, 0, ..., :shown], rtol=1e-3, atol=1e-5)
    assert not apart[:, 0].any()


def test_autocast_is_for_the_encoder_alone():
    model = make()
    _, _, _, inputs, _ = received(SPEC, 40.0)
    expected = model(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(*inputs)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_slot_alone_is_the_same_as_in_a_batch():
    model = make(random=True)
    _, _, _, (tiles, snr_db), _ = received(SPEC, 3.0)
    alone = torch.cat([model(tiles[i : i + 1], snr_db[i : i + 1]) for i in range(len(tiles))])
    torch.testing.assert_close(alone, model(tiles, snr_db), rtol=1e-4, atol=1e-5)


def test_a_file_brings_back_the_same_model_constants_and_all(tmp_path):
    model = make(COMB, random=True)
    registry.save(tmp_path / "w.safetensors", model, {"a": 1})
    back = registry.load(tmp_path / "w.safetensors")
    assert isinstance(back, ChannelModel) and back.config() == model.config() and back.spec == COMB
    _, _, _, inputs, _ = received(COMB, 5.0)
    assert torch.equal(back(*inputs), model(*inputs))
    assert back.covariances().space == pytest.approx(covariances(COMB).space, abs=1e-6)


def damage(path, **changes):
    """Rewrite the file's config."""
    with safetensors.safe_open(path, framework="pt") as file:
        note = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    config = json.loads(note["config"])
    for key, value in changes.items():
        config[key] = value if not isinstance(value, dict) else {**config[key], **value}
    save_file(tensors, path, {**note, "config": json.dumps(config)})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"held": 3}, "held"),
        ({"held": "x"}, "the arguments of a model"),
        ({"modes": {"patch": 2}}, "encoder"),
        ({"modes": {"patch": 0}}, "patch"),
        ({"modes": {"colour": 1}}, "colour"),
        ({"numerology": {"antennas": 5}}, "found"),
        ({"numerology": {"pilot_symbols": [4, 1]}}, "pilot_symbols"),
        ({"more": 1}, "config"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused_by_name(tmp_path, changes, said):
    registry.save(tmp_path / "w.safetensors", make())
    damage(tmp_path / "w.safetensors", **changes)
    with pytest.raises(WeightsError, match=said):
        registry.load(tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("args", "field"), [({"frequency_modes": 0}, "frequency_modes"), ({"patch": 0}, "patch"), ({"patch": 129}, "patch")]
)
def test_options_are_refused_by_name(args, field):
    with pytest.raises(ConfigurationError, match=field):
        ModeArgs(**args)


@pytest.mark.parametrize("given", [{"channels": (2,)}, {"image": 32}, {"patch": 4, "image": 224}, {"rate_input": True}])
def test_what_the_modes_decide_is_not_for_the_model_options(given):
    with pytest.raises(ConfigurationError, match=f"model: {next(iter(given))}"):
        encoder_for(MODES, SPEC, dataclasses.replace(ENCODER, **given))


def test_more_modes_than_pilots_and_other_covariances_are_refused():
    with pytest.raises(ConfigurationError, match="frequency_modes: found 17, expected at most 16"):
        ChannelModel.of(ModeArgs(17), SPEC, ENCODER, covariances(SPEC))
    with pytest.raises(InputError, match="space"):
        ChannelModel.of(MODES, SPEC, ENCODER, covariances(COMB))
    with pytest.raises(ConfigurationError, match="layer_decay"):
        make().parameter_groups(1e-3, 0.0, 0.75)
