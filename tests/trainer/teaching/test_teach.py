# SPDX-License-Identifier: GPL-3.0-or-later
"""From labelled recordings to a bundle: taught on a toy encoder, whose weights are random."""

from __future__ import annotations

import contextlib
import csv
from dataclasses import replace

import numpy as np
import pytest
from support.labelled_recordings import SIGNALS, annotation, make_recordings, write_sigmf
from support.toy_runs import TILE_SPEC, make_pretrained, make_run
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.bundle.spec import HeadSpec
from wavesfm_core.errors import BundleError, ConfigurationError, InputError
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.recordings.iqfile import open_recording
from wavesfm_trainer.evaluation.average import save_half
from wavesfm_trainer.teaching import generated
from wavesfm_trainer.teaching.adapters import AdapterOptions
from wavesfm_trainer.teaching.encoder import open_start
from wavesfm_trainer.teaching.heads import LinearHead, Samples, fit_head
from wavesfm_trainer.teaching.options import TeachOptions
from wavesfm_trainer.teaching.sources import collect
from wavesfm_trainer.teaching.teach import teach
from wavesfm_trainer.teaching.verdicts import accuracy
from wavesfm_trainer.teaching.views import make_views
from wavesfm_trainer.teaching.write import refuse_out, write_bundle_of, write_report

pytestmark = [pytest.mark.filterwarnings("ignore:.*LeafSpec"), pytest.mark.filterwarnings("ignore:# The axis name")]
KNOWN = ("noise", "lora")


class Quiet:
    """Counts what the steps report."""

    def __init__(self):
        self.done = {}

    @contextlib.contextmanager
    def step(self, words, total):
        self.done[words] = 0

        def advance(count):
            self.done[words] += count

        yield advance
        assert self.done[words] == total


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_recordings(tmp_path_factory.mktemp("recordings"))


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    head = HeadSpec("classification", KNOWN)
    return make_run(tmp_path_factory.mktemp("start") / "run", TILE_SPEC, head, rate_input=True)


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Few generated tiles."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generated, "KNOWN_TILES", 6)
        patch.setattr(generated, "OTHER_TILES", 1)
        patch.setattr(generated, "BACKGROUND_TILES", {"noise": 4, "unknown": 4})
        yield


@pytest.fixture(scope="module")
def taught(folder, start):
    return teach(folder, start, TeachOptions(unknown=False, views=4, licence="CC0-1.0"), Quiet())


def test_labels_are_learnt_and_judged_on_other_recordings(taught):
    assert taught.head.labels == tuple(sorted(SIGNALS))
    assert len(taught.verdicts) == 18 and len(taught.recordings) == 9
    assert accuracy(taught.verdicts) > 0.7  # 0.33 by chance; the encoder is random
    assert not taught.folds.by_time


def test_a_box_is_judged_by_a_head_that_has_not_seen_its_recording(folder, start):
    """Labels without meaning are not answered better than by chance."""
    rng = np.random.default_rng(3)
    found = collect(folder, TILE_SPEC)
    names = rng.permutation([each.label for each in found.boxes])
    boxes = [replace(each, label=str(name)) for each, name in zip(found.boxes, names, strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wavesfm_trainer.teaching.teach.collect", lambda *_: replace(found, boxes=tuple(boxes)))
        patch.setattr("wavesfm_trainer.teaching.boxes._refuse_two_labels", lambda _: None)
        shuffled = teach(folder, start, TeachOptions(unknown=False, views=2), Quiet())
    assert accuracy(shuffled.verdicts) < 0.67


def test_views_are_those_of_the_band_search_and_drawn_ones_around(folder):
    found = collect(folder, TILE_SPEC)
    views, notes = make_views(found.boxes[:2], TILE_SPEC, 6, 0, lambda: None)
    first = views.rows(views.box == 0)
    rates = 10 ** first.log10_rate[~first.drawn]
    assert np.allclose(np.sort(rates), np.sort([1.6 * 60e3, 2.56 * 60e3]), rtol=0.1)
    assert first.drawn.sum() == 6 and not notes
    again, _ = make_views(found.boxes[:2], TILE_SPEC, 6, 0, lambda: None)
    assert np.array_equal(again.picture, views.picture)


def test_a_bundle_is_written_that_names_the_signals(taught, folder, tmp_path):
    out = tmp_path / "mine"
    report = refuse_out(out)
    bundle = write_bundle_of(taught, out)
    page = write_report(taught, bundle, report, 12.0)
    assert Bundle.open(out).spec.head == taught.head
    low, high = bundle.spec.rates_hz
    assert 60e3 < low < high <= 1.001e6 and bundle.spec.licence == "CC0-1.0"
    assert "18 labelled boxes of 3 recordings" in bundle.spec.training_data
    text = page.read_text()
    assert "Confusion by box" in text and "tone" in text and str(folder) not in text
    with (page.parent / "corrections.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert text.count("<img ") == len(rows)
    pipeline = Pipeline.open(out, device="onnxruntime", gate_db=None)
    with open_recording(folder / "recording0.sigmf-meta") as recording:
        assert list(pipeline.classify_recording(recording))
    assert "Figures" in (out / "README.md").read_text() or "How good" in (out / "README.md").read_text()


def test_nothing_is_written_where_the_input_is_wrong(start, tmp_path):
    write_sigmf(tmp_path / "r" / "a", np.zeros(9_000), [annotation(0, "x"), annotation(0, "y")])
    with pytest.raises(InputError, match="in one place"):
        teach(tmp_path / "r", start, TeachOptions(), Quiet())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r"]
    with pytest.raises(BundleError, match="directory: found other files"):
        refuse_out(tmp_path / "r")


def test_digital_silence_is_refused(start, tmp_path):
    boxes = [annotation(0, "x"), annotation(7_000, "y"), annotation(14_000, "x"), annotation(21_000, "y")]
    write_sigmf(tmp_path / "a", np.zeros(30_000), boxes)
    with pytest.raises(InputError, match="found digital silence in every box"):
        teach(tmp_path, start, TeachOptions(unknown=False), Quiet())


def test_half_weights_and_pretrained_ones_are_a_start_too(start, tmp_path):
    half = save_half(start / "weights.safetensors", tmp_path / "half.safetensors")
    whole, halved = open_start(start), open_start(half)
    for name, tensor in whole.model.state_dict().items():
        assert np.allclose(tensor.numpy(), halved.model.state_dict()[name].numpy(), atol=2e-3)
    run = make_pretrained(tmp_path / "mae", {"tiles": TILE_SPEC}, rate_input=True)
    pretrained = open_start(run)
    assert pretrained.head is None and pretrained.measured and pretrained.model.task_args.pooling == "avg"
    assert pretrained.model.prefix_depth() == len(pretrained.model.encoder.blocks)
    with pytest.raises(ConfigurationError, match="labels: found none: weights of a pre-training"):
        teach(tmp_path, run, TeachOptions(extend=True), Quiet())


def test_extending_keeps_the_known_rows_and_reports_what_it_costs(few, folder, start):
    extended = teach(folder, start, TeachOptions(extend=True, views=2), Quiet())
    known = open_start(start).known_head()
    assert extended.head.labels == (*KNOWN, *sorted(SIGNALS))
    assert np.array_equal(extended.fitted.weight[:2], known.weight)
    assert np.array_equal(extended.fitted.bias[:2], known.bias)
    assert extended.old.n_tiles == 12 and 0 <= extended.old.after <= 1 and extended.old.without == ()


def test_foreign_signals_are_learnt_as_unknown(few, folder, start):
    found = teach(folder, start, TeachOptions(views=2), Quiet())
    assert found.head.labels == (*sorted(SIGNALS), "noise", "unknown")
    assert found.head.threshold == 0 and 0 < found.head.unknown_from < 1
    called, n = found.rejected
    assert 0 <= called <= n <= 4 + 19


def test_adapters_are_trained_and_merged(folder, start):
    options = TeachOptions("lora", unknown=False, views=1, adapters=AdapterOptions(steps=3, batch=8))
    found = teach(folder, start, options, Quiet())
    held = {each.box for each in found.verdicts}
    assert held == {at for at, part in enumerate(found.folds.part) if part == 0}
    plain = open_start(start).model.encoder.state_dict()
    adapted = found.model.encoder.state_dict()
    changed = [name for name in plain if not np.array_equal(plain[name].numpy(), adapted[name].numpy())]
    assert changed and all(".attn.qkv." in name for name in changed)


def test_options_are_checked():
    with pytest.raises(ConfigurationError, match="method"):
        TeachOptions("magic")
    with pytest.raises(ConfigurationError, match="licence"):
        TeachOptions(licence=" ")


# --- heads


def clusters(rng, n, d=6, classes=3):
    label = np.arange(n) % classes
    return Samples(rng.standard_normal((n, d)) + 3 * np.eye(classes, d)[label], label, np.arange(n) // 6)


def test_a_head_separates_clusters_from_five_samples_each(rng):
    head = fit_head(clusters(rng, 15), 3)
    test = clusters(rng, 600)
    assert np.mean(head.logits(test.features).argmax(axis=1) == test.label) > 0.9


def test_known_rows_stay_and_new_ones_are_learnt_around_them(rng):
    known = fit_head(clusters(rng, 300, classes=2), 2)
    head = fit_head(clusters(rng, 300), 3, known)
    assert np.array_equal(head.weight[:2], known.weight)
    test = clusters(rng, 600)
    assert np.mean(head.logits(test.features).argmax(axis=1) == test.label) > 0.85


def test_a_label_without_a_sample_is_not_chosen(rng):
    samples = clusters(rng, 60, classes=2)
    head = fit_head(samples, 3)
    assert isinstance(head, LinearHead)
    assert set(head.logits(samples.features).argmax(axis=1)) == {0, 1}


@pytest.fixture
def rng():
    return np.random.default_rng(11)
