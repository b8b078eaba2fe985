# SPDX-License-Identifier: GPL-3.0-or-later
"""Run directories: written, read back strictly, grouped by everything but the seed, and gathered on one page."""

from __future__ import annotations

import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_trainer.evaluation.run_files import read_evaluation, write_evaluation
from wavesfm_trainer.report.html_report import write_report
from wavesfm_trainer.report.study import SCRATCH, read_run, read_study, trend
from wavesfm_trainer.report.tables import against_scratch, by_task, table_three

LABELS = ("walk", "<b>run</b>", "fall")


def make_run(root: Path, name: str, seed: int = 0, history: str | None = None, **config) -> Path:
    run = root / name
    run.mkdir(parents=True)
    usual = {"command": "finetune", "recipe": "", "task": "has", "method": "probe", "pretrained": "", "seed": seed}
    usual |= {"name": name, "args": {"lr": 0.001, "seed": seed}, "trainable_parameters": 1000}
    usual |= {"watched": "val_class_accuracy", "mode": "max", "objective": {}, "data": {"training": {}}}
    (run / "config.json").write_text(json.dumps(usual | config))
    if history is None:
        history = "step,epoch,train_loss,val_class_accuracy\n5,1,1.5,0.5\n10,2,1.1,\n15,3,0.9,0.9\n20,4,0.8,0.8\n"
    (run / "metrics.csv").write_text(history)
    return run


def class_arrays(right: int, n: int = 30) -> dict[str, np.ndarray]:
    """Ten samples of each class; the first `right` of each are told right, the others as the next class."""
    target = np.repeat(np.arange(3), n // 3)
    said = np.where(np.tile(np.arange(n // 3), 3) < right, target, (target + 1) % 3)
    return {"target": target, "logits": np.eye(3, dtype=np.float32)[said] * 5}


def evaluate_classes(run: Path, right: int, task: str = "has"):
    return write_evaluation(run, "classification", task, "test", class_arrays(right), labels=LABELS)


def evaluate_position(run: Path, error_m: float, seed: int):
    rng = np.random.default_rng(seed)
    target = rng.uniform(0, 10, (40, 2)).astype(np.float32)
    away = rng.normal(size=(40, 2)).astype(np.float32) * error_m
    arrays = {"target_m": target, "predicted_m": target + away}
    return write_evaluation(run, "position", "pos", "test", arrays, axes=("x", "y"))


def evaluate_channel(run: Path, factor: float):
    snr = np.tile(np.arange(-10, 21, 2.0), 5).astype(np.float32)
    arrays = {"squared_error": factor * 10 ** (-snr / 20.0), "power": np.ones(len(snr)), "snr_db": snr}
    ls = {"snr_db": [-10.0, 20.0], "mse": [10.0, 0.01], "nmse_db": [10.0, -20.0]}
    return write_evaluation(run, "channel", "ce", "test", arrays, baselines={"LS": ls})


def reconstruction_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    original = rng.normal(size=(2, 1, 16, 16)).astype(np.float32)
    arrays = {"loss": rng.random(8), "original": original, "ratio": np.array([0.5, 0.75], np.float32)}
    for i, n_hidden in enumerate((8, 12)):
        arrays[f"reconstruction_{i}"] = original * 0.5
        arrays[f"hidden_{i}"] = np.arange(16)[None] < np.full((2, 1), n_hidden)
    return arrays


# --- the files of a run ---


def test_an_evaluation_comes_back_as_it_was_written(tmp_path):
    arrays = class_arrays(8) | {"index": np.arange(30), "group": np.repeat(["p1", "p2", "p3"], 10)}
    made = write_evaluation(tmp_path, "classification", "has", "test", arrays, labels=LABELS)
    back = read_evaluation(tmp_path)
    assert made.metrics["class_accuracy"] == pytest.approx(0.8)
    assert (back.metrics, back.labels, back.interval, back.n_samples) == (made.metrics, LABELS, made.interval, 30)
    assert back.interval[0] <= 0.8 <= back.interval[1]
    assert all(np.array_equal(back.arrays[name], arrays[name]) for name in arrays)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evaluation.json", "predictions.npz"]


def test_every_kind_is_written_and_read(tmp_path):
    assert evaluate_position(tmp_path / "p", 1.0, 0).metrics["mean_error_m"] == pytest.approx(1.25, abs=0.3)
    mean = np.mean(2 * 10 ** (-np.arange(-10, 21, 2.0) / 20))
    assert evaluate_channel(tmp_path / "c", 2.0).metrics["nmse_db"] == pytest.approx(10 * math.log10(mean))
    write_evaluation(tmp_path / "m", "pretraining", "mwm", "validation", reconstruction_arrays())
    assert read_evaluation(tmp_path / "p").axes == ("x", "y")
    assert read_evaluation(tmp_path / "c").baselines["LS"]["nmse_db"] == [10.0, -20.0]
    assert read_evaluation(tmp_path / "m").split == "validation"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"logits": None}, "logits: found nothing"),
        ({"logits": np.zeros((30, 2), np.float32)}, "logits: found 2 columns, expected 3, one per label"),
        ({"logits": np.full((30, 3), np.nan, np.float32)}, "logits: found 90 values not finite"),
        ({"target": np.zeros(29, int)}, "target: found 29 rows|logits: found 30 rows"),
        ({"target": np.full(30, 3)}, "target: found 3 to 3, expected 0 to 2"),
        ({"target": np.zeros(30)}, "target: found float64 with 1 dimensions"),
        ({"group": np.array([None] * 30)}, "group: found object"),
    ],
)
def test_wrong_arrays_are_refused_and_nothing_is_written(tmp_path, change, message):
    arrays = {name: a for name, a in (class_arrays(5) | change).items() if a is not None}
    with pytest.raises(InputError, match=message):
        write_evaluation(tmp_path / "run", "classification", "has", "test", arrays, labels=LABELS)
    assert not (tmp_path / "run").exists()


def test_predictions_of_another_evaluation_are_refused(tmp_path):
    evaluate_classes(tmp_path / "a", 5)
    evaluate_classes(tmp_path / "b", 6)
    shutil.copy(tmp_path / "b" / "predictions.npz", tmp_path / "a")
    with pytest.raises(InputError, match=r"a/predictions.npz: sha256"):
        read_evaluation(tmp_path / "a")


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("format", 2, "format: found 2, expected 1"),
        ("metrics", {"class_accuracy": "high"}, "metrics.class_accuracy: found 'high'"),
        ("headline", "speed", "headline: found speed"),
        ("labels", None, "labels: found None, expected list"),
        ("n_samples", 31, "n_samples: found 31, expected 30"),
        ("kind", "poetry", "kind: found 'poetry'"),
        ("baselines", {"LS": {"mse": [1.0]}}, "baselines.LS"),
    ],
)
def test_an_altered_evaluation_is_refused_by_its_field(tmp_path, name, value, message):
    evaluate_classes(tmp_path, 5)
    path = tmp_path / "evaluation.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(InputError, match=message):
        read_evaluation(tmp_path)


# --- runs and groups ---


def test_a_run_reads_its_history_with_gaps(tmp_path):
    run = read_run(make_run(tmp_path, "a"))
    assert run.evaluation is None
    assert run.history["epoch"].tolist() == [1, 2, 3, 4]
    epochs, values, mode = run.monitored()
    assert (epochs.tolist(), values.tolist(), mode) == ([1, 3, 4], [0.5, 0.9, 0.8], "max")


@pytest.mark.parametrize(
    "file, text, message",
    [
        ("config.json", "{", "config.json: content"),
        ("config.json", "[]", "config.json: content: found list, expected an object"),
        ("config.json", '{"name": "a"}', "config.json: command: found nothing"),
        ("metrics.csv", "step,epoch\n1,2,3\n", "metrics.csv: row 2: found 3 fields, expected 2 fields"),
        ("metrics.csv", "step,epoch,val_class_accuracy\n1,2,high\n", "metrics.csv: val_class_accuracy"),
        (
            "metrics.csv",
            "step,epoch,val_loss\n1,1,2\n",
            "columns: found step, epoch, val_loss, expected 'val_class_acc",
        ),
        ("metrics.csv", "time,loss\n", "columns: found time, loss, expected step, epoch"),
        ("predictions.npz", "", "evaluation.json: file: found nothing"),
    ],
)
def test_a_broken_run_is_refused_by_file_and_field(tmp_path, file, text, message):
    run = make_run(tmp_path, "a")
    (run / file).write_text(text)
    with pytest.raises(InputError, match=message):
        read_run(run)


def test_an_evaluation_of_another_task_is_refused(tmp_path):
    run = make_run(tmp_path, "a")
    evaluate_classes(run, 5, task="rf")
    with pytest.raises(InputError, match=r"evaluation.json: task: found rf, expected has"):
        read_run(run)


def test_groups_differ_in_more_than_the_seed(tmp_path):
    for seed in (2, 0, 1):
        make_run(tmp_path, f"small-{seed}", seed)
        make_run(tmp_path, f"fast-{seed}", seed, args={"lr": 0.1, "seed": seed})
    groups = read_study(tmp_path).groups
    assert [[r.name for r in g.runs] for g in groups] == [
        ["small-0", "small-1", "small-2"],
        ["fast-0", "fast-1", "fast-2"],
    ]
    assert [g.variant for g in groups] == ["lr=0.001", "lr=0.1"]
    assert {g.model for g in groups} == {SCRATCH}


def test_what_a_split_by_another_seed_changes_does_not_part_a_group(tmp_path):
    for seed in (0, 1):
        data = {"training": {"set": {"examples": 100 + seed, "sha256": str(seed), "repeats": 1}}}
        objective = {"kind": "finetuning", "head": {"low_m": [0.1 * seed]}, "model": {"lora_rank": 4}}
        make_run(tmp_path, f"a-{seed}", seed, data=data, objective=objective, git_commit="abc")
    (group,) = read_study(tmp_path).groups
    assert len(group.runs) == 2
    assert group.remarks == ('trained on different numbers of examples: {"set": 100}, {"set": 101}',)


def test_seeds_of_pretraining_are_followed_to_their_recipe(tmp_path):
    for seed in (0, 1):
        parent = make_run(tmp_path, f"pre-{seed}", seed, command="pretrain", recipe="vit-all", task="", method="")
        make_run(tmp_path, f"tuned-{seed}", seed, pretrained=str(parent / "weights.safetensors"))
    make_run(tmp_path, "other", 0, pretrained="elsewhere.safetensors")
    tuned = [g for g in read_study(tmp_path).groups if g.command == "finetune"]
    assert [(g.model, len(g.runs)) for g in tuned] == [("elsewhere.safetensors", 1), ("vit-all", 2)]


def test_a_seed_twice_and_mixed_commits_are_remarked(tmp_path):
    make_run(tmp_path, "a", 0, git_commit="1" * 40)
    make_run(tmp_path, "b", 0, git_commit="2" * 40)
    (group,) = read_study(tmp_path).groups
    assert "seed 0 more than once (a, b)" in group.remarks[0]
    assert group.remarks[1] == "runs of different commits: 1111111111, 2222222222"


def test_splits_do_not_mix(tmp_path):
    for seed, split in enumerate(("test", "validation")):
        write_evaluation(
            make_run(tmp_path, split, seed), "classification", "has", split, class_arrays(5), labels=LABELS
        )
    assert list(by_task(list(read_study(tmp_path).groups))) == ["has", "has (validation split)"]


def test_epochs_and_trend_of_a_group(tmp_path):
    make_run(tmp_path, "a", 0)
    make_run(tmp_path, "b", 1, history="step,epoch,val_class_accuracy\n5,1,0.6\n10,2,0.7\n")
    (group,) = read_study(tmp_path).groups
    assert group.epochs().mean == 2.5
    epochs, values = trend(group, "val_class_accuracy")
    assert epochs.tolist() == [1, 2, 3, 4]
    assert np.array_equal(values, [[0.5, math.nan, 0.9, 0.8], [0.6, 0.7, math.nan, math.nan]], equal_nan=True)
    with pytest.raises(ConfigurationError, match="column: found nothing"):
        trend(group, "nothing")


def test_nothing_to_report_is_said(tmp_path):
    with pytest.raises(InputError, match="runs: found none"):
        read_study(tmp_path)
    with pytest.raises(InputError, match="directory: found nothing"):
        read_study(tmp_path / "absent")


# --- tables ---


@pytest.fixture(scope="module")
def study_dir(tmp_path_factory) -> Path:
    """Two models on three tasks with three seeds, LoRA of two ranks with one seed, a pre-training; two broken runs."""
    root = tmp_path_factory.mktemp("study")
    for seed in range(3):
        pre = make_run(root, f"pre/all-{seed}", seed, command="pretrain", recipe="ViT-All", task="mwm", method="")
        write_evaluation(pre, "pretraining", "mwm", "validation", reconstruction_arrays())
        for model, pretrained, gain in (("all", str(pre), 2), ("sl", "", 0)):
            run = make_run(root, f"has/{model}-{seed}", seed, pretrained=pretrained)
            evaluate_classes(run, 6 + gain + seed % 2)
            run = make_run(root, f"pos/{model}-{seed}", seed, pretrained=pretrained, task="pos", method="last")
            evaluate_position(run, 1 / (1 + gain), seed)
            run = make_run(root, f"ce/{model}-{seed}", seed, pretrained=pretrained, task="ce", method="last")
            evaluate_channel(run, 1 + 0.1 * seed - 0.2 * gain)
    for alpha in (1, 8):
        for rank in (2, 4):
            args = {"lr": 0.001, "lora_alpha": alpha, "lora_rank": rank}
            run = make_run(
                root, f"has/lora-{alpha}-{rank}", args=args, method="lora", pretrained=str(root / "pre/all-0"),
                trainable_parameters=1000 * rank,
            )  # fmt: skip
            evaluate_classes(run, 5 + rank // 2 + alpha // 8)
    make_run(root, "has/not-evaluated", 7)
    (make_run(root, "has/torn", 8) / "config.json").write_text('{"name": ')
    run = make_run(root, "has/altered", 9)
    evaluate_classes(run, 5)
    (run / "predictions.npz").write_bytes(b"not an archive")
    return root


def test_table_three_has_a_row_for_each_model_and_columns_for_each_task(study_dir):
    table = table_three(read_study(study_dir))
    assert [head for head, _ in table.heads] == ["", "ce", "has", "pos"]
    assert len(table.columns) == sum(span for _, span in table.heads) == 2 + 4 + 3 + 4
    rows = {row[:2]: row[2:] for row in table.rows}
    assert len(rows) == len(table.rows) == 2 + 2 + 4  # probe and last of both models, four LoRA variants
    accuracy = rows["ViT-All", "probe"][4:7]
    # 80, 90, 80 % over three seeds: mean 83.33, half 4.3027 * 5.7735 / sqrt(3); best epoch 3
    assert accuracy == ("83.33 \u00b1 14.34", "3", "3")
    assert rows[SCRATCH, "probe"][:4] == ("-", "-", "-", "-")
    one = rows["ViT-All", "lora lora_alpha=8 lora_rank=4"][4]
    assert re.fullmatch(r"80\.00 \[\d\d\.\d\d, \d\d\.\d\d\]", one)
    assert any(note.startswith("One seed") for note in table.notes)
    best = {(table.rows[r][:2], table.columns[c]) for r, c in table.best}
    assert (("ViT-All", "probe"), "mean per-class accuracy (%)") in best
    assert (("ViT-All", "last"), "mean error (m)") in best
    assert len(best) == 3


def test_digits_follow_the_spread_where_the_scale_is_open(tmp_path):
    for seed, factor in enumerate((1.0, 1.01, 1.02)):
        evaluate_channel(make_run(tmp_path, f"a-{seed}", seed, task="ce"), factor)
    (row,) = table_three(read_study(tmp_path)).rows
    assert re.fullmatch(r"0\.9\d\d \u00b1 0\.0\d\d", row[2]) or re.fullmatch(r"1\.\d{3} \u00b1 0\.0\d\d", row[2])


def test_variants_stand_in_the_order_of_their_numbers(tmp_path):
    for rank in (50, 8, 100):
        make_run(tmp_path, f"r{rank}", args={"lora_rank": rank}, method="lora")
    assert [g.variant for g in read_study(tmp_path).groups] == ["lora_rank=8", "lora_rank=50", "lora_rank=100"]


def test_markdown_has_a_line_for_each_row(study_dir):
    table = table_three(read_study(study_dir))
    lines = table.markdown().splitlines()
    assert len(lines) == len(table.rows) + 2
    assert "has: mean per-class accuracy (%)" in lines[0]
    assert all(line.count("|") == len(table.columns) + 1 for line in lines)


def test_differences_to_scratch_are_judged_by_their_interval(study_dir):
    tasks = by_task([g for g in read_study(study_dir).groups if g.command != "pretrain"])
    assert [row[2] for row in against_scratch(tasks["pos"]).rows] == ["better"]
    verdicts = {row[0]: row[2] for row in against_scratch(tasks["has"]).rows}
    assert verdicts.pop("ViT-All, probe") == "better"
    assert set(verdicts.values()) == {"too few seeds to say"}


# --- the page ---


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_has_everything_names_what_is_broken_and_loads_nothing(study_dir, tmp_path):
    path = write_report(study_dir, tmp_path / "out" / "page.html")
    page = Page(path.read_text())
    assert page.open == []
    text = "".join(page.words)
    assert "2 of 28 run directories could not be read" in text
    assert "torn/config.json: content" in text
    assert "altered/predictions.npz: sha256" in text
    assert "has/not-evaluated" in text
    assert "83.33 \u00b1 14.34" in text
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert all(attrs["src"].startswith("data:image/") for attrs in images)
    titles = [attrs["alt"].split(":")[0] for attrs in images]
    for wanted in ("Confusion", "Positioning error", "Mean squared error over SNR", "Over epochs", "LoRA on ViT-All"):
        assert wanted in titles
    assert any(t.startswith("Reconstructions by ViT-All") for t in titles)
    assert not [
        tag for tag, attrs in page.tags if tag in ("script", "link") or attrs.get("href") or attrs.get("srcset")
    ]
    assert not list(path.parent.glob("*.partial"))


def test_figures_are_also_kept_as_files(tmp_path):
    make_run(tmp_path, "a")
    write_report(tmp_path, figures_dir=tmp_path / "figures")
    (figure,) = (tmp_path / "figures").iterdir()
    assert figure.name == "01-has-over-epochs.pdf" and figure.read_bytes().startswith(b"%PDF")


def test_words_of_a_run_are_escaped(tmp_path):
    evaluate_classes(make_run(tmp_path, "a", task="<script>alert(1)</script>"), 5, task="<script>alert(1)</script>")
    page = Page(write_report(tmp_path).read_text())
    assert "script" not in [tag for tag, _ in page.tags]
    assert "<script>alert(1)</script>" in "".join(page.words)


def test_a_study_of_broken_runs_only_still_says_so(tmp_path):
    (make_run(tmp_path, "a") / "config.json").write_text("")
    text = write_report(tmp_path).read_text()
    assert "1 of 1 run directories" in text and "a/config.json: content" in text


def test_runs_that_are_not_evaluated_show_their_trends(tmp_path):
    make_run(tmp_path, "a")
    text = write_report(tmp_path).read_text()
    assert "Over epochs" in text and "because they were not evaluated" in text


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    evaluate_classes(make_run(tmp_path, "one"), 9)
    monkeypatch.setattr("wavesfm_core.atomic_file.os.fsync", full)
    with pytest.raises(InputError, match=r"predictions.npz: writing: found No space left on device, expected room"):
        evaluate_classes(tmp_path / "one", 8)
    with pytest.raises(InputError, match=r"report.html: page: found .*No space left on device"):
        write_report(tmp_path)
    assert read_evaluation(tmp_path / "one").metrics["class_accuracy"] == pytest.approx(0.9)
    assert not list(tmp_path.rglob("*.part")) and not (tmp_path / "report.html").exists()


def test_a_page_that_cannot_be_written_is_refused(tmp_path):
    make_run(tmp_path, "a")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"page.html: page"):
        write_report(tmp_path, tmp_path / "file" / "page.html")


def test_an_extended_run_is_no_seed_of_one_that_had_its_length_from_the_start(tmp_path):
    """Its learning rate rose again, so the two were trained by different schedules."""
    for seed in (0, 1):
        make_run(tmp_path, f"whole-{seed}", seed)
    make_run(tmp_path, "extended", 2, extended_from=[20])
    assert sorted(len(group.runs) for group in read_study(tmp_path).groups) == [1, 2]
