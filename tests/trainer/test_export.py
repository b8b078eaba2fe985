"""Export: the bundle is what torch is, and a model for which that cannot be shown is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from wavesfm_core.bundle import Bundle, bundle_inputs
from wavesfm_core.errors import BundleError, InputError
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.spec import SpectrogramSpec, to_dict
from wavesfm_trainer import export
from wavesfm_trainer.evaluation import load_run
from wavesfm_trainer.model import SIZES, ViT, ViTSize
from wavesfm_trainer.signals.dataset import SignalDataset
from wavesfm_trainer.training import save_weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*LeafSpec"),
    pytest.mark.filterwarnings("ignore:# The axis name"),
]
LABELS = ("noise", "wifi", "lora", "wbfm")
SPEC = SpectrogramSpec(rows_per_tile=32)


def make_run(directory, seed):
    """An untrained run whose logits differ from label to label and tile to tile."""
    torch.manual_seed(seed)
    model = ViT(SIZES["toy"], len(LABELS))
    torch.nn.init.normal_(model.head.weight, std=0.5)
    directory.mkdir()
    config = {"args": {"size": "toy"}, "spec": to_dict(SPEC), "labels": list(LABELS), "seed": 5}
    (directory / "config.json").write_text(json.dumps(config))
    save_weights(model, directory / "model.safetensors")
    return directory


@pytest.fixture(scope="module", autouse=True)
def toy_size():
    SIZES["toy"] = ViTSize(depth=2, width=64, heads=2)
    yield
    del SIZES["toy"]


@pytest.fixture(scope="module")
def run(toy_size, tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run", seed=1)


@pytest.fixture(scope="module")
def bundle(run, tmp_path_factory):
    return export.export_bundle(run, tmp_path_factory.mktemp("bundles") / "toy", "toy")


@pytest.fixture
def halved(run):
    trained = load_run(run)
    export.halve_weights(trained.model)
    return trained


def test_the_bundle_opens_and_says_what_it_is(bundle, run):
    spec = Bundle.open(bundle.path).spec
    assert spec.name == "toy"
    assert spec.head.labels == LABELS
    assert spec.preprocess == SPEC
    assert spec.rates_hz == (0.25e6, 25e6)
    assert "seed 5" in spec.training_data
    assert {"torch", "onnx", "wavesfm-core"} <= spec.versions.keys()
    assert (bundle.path / "README.md").read_text() == f"# toy\n\n{spec.training_data}\n"


def test_a_model_card_that_is_there_is_kept(run, tmp_path):
    directory = tmp_path / "toy"
    export.export_bundle(run, directory, "toy")
    (directory / "README.md").write_text("# A card\n")
    made = export.export_bundle(run, directory, "toy", training_data="other tiles")
    assert (directory / "README.md").read_text() == "# A card\n"
    assert made.spec.training_data == "other tiles"


def test_a_pipeline_gives_torchs_probabilities(bundle, halved):
    pipeline = Pipeline.open(bundle.path, device="onnxruntime", gate_db=None)
    example = SignalDataset(3, 3 * SPEC.tile_samples, SPEC.min_samples, 0.0, (20, 20), LABELS)[1]
    predictions = pipeline.classify(example.iq, example.rate_hz)
    assert len(predictions) == 3
    tiles = np.stack([export.prepare(part, SPEC) for part in example.iq.reshape(3, -1)])
    inputs = bundle_inputs(bundle.spec, tiles, [example.rate_hz] * 3)
    with torch.no_grad():
        expected = halved.model(torch.from_numpy(inputs["tile"]), torch.from_numpy(inputs["log10_rate"])).softmax(1)
    found = np.array([[p.probabilities[label] for label in LABELS] for p in predictions])
    assert np.allclose(found, expected.numpy(), atol=1e-4)
    assert found.std() > 0.01


def test_the_batch_is_dynamic(bundle, halved):
    session = onnxruntime.InferenceSession(str(bundle.model_path), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    tile = rng.standard_normal((17, 1, 224, 224)).astype(np.float32)
    rate = rng.choice([0.0, 5.5, 7.0], (17, 1)).astype(np.float32)
    with torch.no_grad():
        expected = halved.model(torch.from_numpy(tile), torch.from_numpy(rate)).numpy()
    for n in (1, 3, 17):
        (logits,) = session.run(["logits"], {"tile": tile[:n], "log10_rate": rate[:n]})
        assert logits.shape == (n, len(LABELS))
        assert np.allclose(logits, expected[:n], atol=export.TOLERANCE)


def test_weights_are_stored_in_half_precision(bundle, halved):
    n_bytes = 4 * sum(p.numel() for p in halved.model.parameters())
    table = 4 * halved.model.positions.numel()  # fixed, so it keeps its precision
    assert bundle.model_path.stat().st_size - table < 0.6 * n_bytes + 60_000  # the graph itself


def test_the_file_says_nothing_of_the_machine_that_wrote_it(bundle):
    data = bundle.model_path.read_bytes()
    assert b"stack_trace" not in data
    assert str(Path(export.__file__).parent).encode() not in data
    assert b".py" not in data


def test_halving_leaves_small_tensors_and_rounds_the_rest(run, halved):
    before = dict(load_run(run).model.named_parameters())
    for name, after in halved.model.named_parameters():
        if after.numel() < export.HALF_FROM:
            assert torch.equal(after, before[name])
        else:
            assert torch.equal(after, before[name].half().float())


def test_golden_tiles_are_of_several_classes_and_short(bundle):
    golden = bundle.golden()
    assert len(golden.tiles) == export.GOLDEN_TILES
    assert all(SPEC.min_samples <= len(iq) <= 3 * SPEC.min_samples for iq in golden.iq)
    assert np.ptp(golden.outputs["logits"], axis=0).max() > 10 * export.TOLERANCE


@pytest.mark.parametrize("error", [2 * export.TOLERANCE, -0.5, np.nan])
def test_a_model_that_differs_from_torch_is_refused(bundle, error):
    golden = bundle.golden()
    outputs = {"logits": golden.outputs["logits"].copy()}
    outputs["logits"][2, 1] += error
    with pytest.raises(BundleError, match="logits of ONNX against torch: found a difference of") as caught:
        export.check_parity(bundle.model_path.read_bytes(), bundle.spec, dataclasses.replace(golden, outputs=outputs))
    assert caught.value.expected == f"at most {export.TOLERANCE:g}"


def test_a_refused_export_leaves_no_bundle(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "to_onnx", lambda model, spec: bundle.model_path.read_bytes())
    other = make_run(tmp_path / "other", seed=2)  # other weights than in that file
    with pytest.raises(BundleError, match="of ONNX against torch"):
        export.export_bundle(other, tmp_path / "bundle", "other")
    assert not (tmp_path / "bundle").exists()


def test_a_model_whose_tiles_see_each_other_is_refused(bundle, monkeypatch):
    honest = export._run

    def leaks(session, inputs, spec):
        outputs = honest(session, inputs, spec)
        alone = len(outputs["logits"]) == 1
        return {"logits": outputs["logits"] + (5 * export.TOLERANCE if alone else 0)}

    monkeypatch.setattr(export, "_run", leaks)
    with pytest.raises(BundleError, match="logits of batch 6 against batch 1"):
        export.check_parity(bundle.model_path.read_bytes(), bundle.spec, bundle.golden())


def test_a_run_that_was_not_exported_gives_the_same_pipeline(run, bundle):
    example = SignalDataset(3, SPEC.tile_samples, SPEC.min_samples, 0.0, (20, 20), LABELS)[2]
    torch_says = export.run_pipeline(run).classify(example.iq, example.rate_hz)[0]
    bundle_says = Pipeline.open(bundle.path, device="onnxruntime").classify(example.iq, example.rate_hz)[0]
    assert torch_says.label == bundle_says.label
    for label in LABELS:  # one has the unrounded weights
        assert torch_says.probabilities[label] == pytest.approx(bundle_says.probabilities[label], abs=0.02)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"config\.json: file: found nothing"):
        export.export_bundle(tmp_path, tmp_path / "bundle", "none")
