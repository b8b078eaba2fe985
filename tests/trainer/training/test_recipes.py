# SPDX-License-Identifier: GPL-3.0-or-later
"""Every recipe that ships, run at toy size through the command line; and what a wrong recipe is told."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.errors import ConfigurationError
from wavesfm_trainer import cli
from wavesfm_trainer.data import tile_dataset as tiles
from wavesfm_trainer.data.cache import write_cache
from wavesfm_trainer.data.readers.base import Raw
from wavesfm_trainer.data.tasks import TASKS, read_task
from wavesfm_trainer.models import registry
from wavesfm_trainer.signals.dataset import SignalDataset
from wavesfm_trainer.signals.views import view_dataset
from wavesfm_trainer.training.recipes import read_recipe, recipe_names, runs_of

pytestmark = pytest.mark.filterwarnings("ignore")  # what torch and Lightning say of themselves
TOY = {"size": "custom", "depth": 1, "width": 32, "heads": 2, "decoder_depth": 1, "decoder_width": 16}
PAPER_TASKS = ("human-activity", "rf-classification", "positioning", "channel-estimation")
PRETRAINING = ("rf-spectrograms", "wifi-csi", "csi-5g")


def call(*arguments):
    """Exit code of the command, run in this process."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", ["wavesfm-train", *map(str, arguments)])
        cli.main()
    return ended.value.code or 0


def said(capsys):
    """What went to standard error, in one line."""
    return " ".join(capsys.readouterr().err.split())


def target_of(task, index, rng):
    if task.kind == "classification":
        return index % len(task.labels)
    if task.kind == "position":
        return rng.uniform(0, 30, 3).astype(np.float32)
    antennas, symbols, subcarriers = task.grid or (1, 1, 1)
    channel = rng.standard_normal((2, antennas, symbols * subcarriers)).astype(np.float32)
    return channel if task.kind == "channel" else None


def raws(task, count):
    rng = np.random.default_rng(count)
    for index in range(count):
        array = rng.uniform(0.1, 1, (task.channels, 9, 12)).astype(np.float32)
        published = ("train", "test")[index >= count // 2] if task.split == "published" else ""
        yield Raw(
            array, target_of(task, index, rng), f"file{index}", f"group{index}", published, snr_db=float(index % 20)
        )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with a prepared file for each task of the recipes."""
    root = tmp_path_factory.mktemp("data")
    for name in (*PAPER_TASKS, *PRETRAINING):
        task = read_task(name)
        write_cache(root / f"{name}.h5", task, list(raws(task, 240 if name == "rf-classification" else 60)))
    spec = SpectrogramSpec(rows_per_tile=8)
    for part, seed in (("train", 1), ("validation", 2), ("test", 3)):
        dataset = SignalDataset(seed, spec.tile_samples, spec.min_samples)
        tiles.write_shards(root / "rf20" / part, dataset, spec, 20)
        views = view_dataset("mixed", seed, spec.tile_samples, spec.min_samples)
        tiles.write_shards(root / "rf20-open" / part, views, spec, 20)
    return root


def toy(*, model=True):
    changes = ["loop.batch_size=10", "loop.tensorboard=false", "loop.precision=32-true"]
    changes += [f"model.{name}={value}" for name, value in {**TOY, "decoder_heads": 2}.items()] if model else []
    return ["--epochs", 1, "--seed", 3, *(part for change in changes for part in ("--set", change))]


@pytest.fixture(scope="module")
def pretrained(data, tmp_path_factory):
    """Runs of every pre-training recipe."""
    root = tmp_path_factory.mktemp("pretrained")
    for name in recipe_names():
        if read_recipe(name).command == "pretrain":
            assert call("pretrain", name, "--data", data, "--out", root / name, *toy()) == 0
    return root


def test_the_papers_experiments_are_there():
    pretrainings = {"vit-all", "vit-rfs", "vit-wifi", "vit-5g", "vit-rfs-wifi", "rf20-pretrain"}
    tasks = {*PAPER_TASKS, *(f"{name}-sl" for name in PAPER_TASKS), "lora-grid"}
    tasks |= {"rf20", "rf20-refine", "rf20-open", "rf20-open-refine"}
    assert {*recipe_names()} == pretrainings | tasks | {"chanest", "chanest-nr"}  # run in test_channel_training


@pytest.mark.parametrize("name", [n for n in recipe_names() if read_recipe(n).command == "pretrain"])
def test_pretraining_recipes_run(pretrained, name):
    config = json.loads((pretrained / name / "config.json").read_text())
    assert (config["name"], config["command"], config["seed"]) == (name, "pretrain", 3)
    assert set(config["data"]["training"]) == set(read_recipe(name).data)
    model = registry.load(pretrained / name / "weights.safetensors")
    channels = {read_task(task).channels for task in read_recipe(name).data}
    assert set(model.args.channels) == channels and model.args.rate_input == (name == "rf20-pretrain")


@pytest.mark.parametrize("name", [n for n in recipe_names() if read_recipe(n).command == "finetune"])
def test_finetuning_recipes_run(data, pretrained, tmp_path, name):
    recipe = read_recipe(name)
    options = toy(model=not recipe.pretrained)
    source = "rf20-pretrain" if name.startswith("rf20") else "vit-all"
    if recipe.pretrained:
        options += ["--pretrained", pretrained / source]
    if recipe.method.trainable == "last":
        options += ["--set", "method.last_blocks=1"]
    if recipe.sweep:
        options += ["--set", "sweep={method.lora_rank: [1, 2], method.lora_alpha: [4.0]}"]
    assert call("finetune", name, "--data", data, "--out", tmp_path / "run", *options) == 0
    made = [path.parent for path in sorted((tmp_path / "run").rglob("config.json"))]
    assert len(made) == (2 if recipe.sweep else 1)
    config = json.loads((made[0] / "config.json").read_text())
    assert config["method"] == recipe.method.trainable and config["task"] == recipe.task
    assert config["pretrained"] == (
        "" if not recipe.pretrained else "rf20-pretrain" if name.startswith("rf20") else "vit-all"
    )
    model = registry.load(made[0] / "weights.safetensors")
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained and (recipe.method.trainable == "all") == (trained == {n for n, _ in model.named_parameters()})


def test_refining_goes_on_from_a_run_with_its_head(data, pretrained, tmp_path, caplog):
    begun, refined = tmp_path / "begun", tmp_path / "refined"
    for name, source, out in (("rf20", pretrained / "rf20-pretrain", begun), ("rf20-refine", begun, refined)):
        caplog.clear()
        with caplog.at_level("INFO"):
            assert call(
                "finetune", name, "--data", data, "--pretrained", source, "--out", out, *toy(model=False),
                "--set", "loop.lr=1.0e-9", "--set", "loop.min_lr=1.0e-9",
            ) == 0  # fmt: skip
    assert "new: none" in caplog.text
    assert json.loads((refined / "config.json").read_text())["pretrained"] == "rf20"
    before, after = (registry.load(out / "weights.safetensors").head.weight for out in (begun, refined))
    assert torch.allclose(before, after, atol=1e-5) and before.abs().max() > 1e-3


def test_a_sweep_is_every_combination_with_every_seed():
    recipe = read_recipe("lora-grid")
    runs = runs_of(recipe)
    assert len(runs) == 8 * 4 * 3 and len({suffix for suffix, _ in runs}) == len(runs)
    found = {(one.method.lora_rank, one.method.lora_alpha, one.loop.seed) for _, one in runs}
    assert len(found) == len(runs) and (50, 8.0, 2) in found


def test_changes_reach_the_recipe():
    recipe = read_recipe("positioning", ["loop.lr=0.002", "method.last_blocks=3", "model={drop_path: 0.1}"])
    assert (recipe.loop.lr, recipe.method.last_blocks, recipe.model.drop_path) == (0.002, 3, 0.1)
    assert recipe.loop.epochs == 200  # what was not changed


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [
        ("loop.epoch=3", "loop.epoch", "one of epochs"),
        ("loop.epochs=many", "loop.epochs", "int"),
        ("loop.warmup_epochs=300", "loop.warmup_epochs", "0 to below epochs"),
        ("method.trainable=some", "trainable", "one of probe"),
        ("pretrained=false", "method.trainable", "all, when not pretrained"),
        ("data={wifi-csi: {}}", "data.wifi-csi", "one of labels_per_class"),
        ("data={labels_per_class: -1}", "data.labels_per_class", "0 (all) or more"),
        ("labels={labels_per_class: 1}", "labels", "data: {labels_per_class"),
        ("model.size=nano", "model", "drop_path only"),
        ("task=''", "task", "the task to learn"),
        ("sweep={loop.x: [1]}", "loop.x", "SECTION.KEY"),
        ("sweep={5: [1]}", "sweep", "SECTION.KEY: [values]"),
        ("sweep={loop.lr: [abc]}", "loop.lr", "float"),
        ("sweep={loop.lr: [1.0, -1.0]}", "loop.lr", "a positive number"),
        ("sweep={loop.epochs: [200, 200]}", "sweep", "different values"),
        ("sweep={method.lora_rank: [1, 2]}", "method.lora_rank", "none with method.trainable last"),
        ("method.lora_rank=3", "method.lora_rank", "none with method.trainable last, which does not use it"),
        ("method={trainable: probe, last_blocks: 1}", "method.last_blocks", "none with method.trainable probe"),
        ("learning.loss=none", "learning.loss", "one of cross_entropy"),
        ("augmentation.kind=x", "augmentation.kind", "one of none"),
        ("model.drop_path=2.0", "model.drop_path", "0 or more, below 1"),
        ("seeds=[1, 1]", "seeds", "different whole numbers"),
        ("command=train", "command", "one of pretrain, finetune"),
        ("loop", "change", "SECTION.KEY=VALUE"),
    ],
)
def test_a_wrong_recipe_is_one_sentence(change, field, expected):
    with pytest.raises(ConfigurationError) as caught:
        recipe = read_recipe("positioning", [change])
        runs_of(recipe)
        from wavesfm_trainer.models.task_model import TaskArgs

        method = {name: value for name, value in vars(recipe.method).items() if name != "decoder_into_head"}
        TaskArgs(n_outputs=3, **{**method, "pooling": "token"})
    assert field in str(caught.value) and expected in str(caught.value) and "\n" not in str(caught.value)


def test_pretraining_has_no_layer_decay():
    with pytest.raises(ConfigurationError, match=r"vit-5g.yml: loop.layer_decay: found 0.75, expected 1 with command"):
        read_recipe("vit-5g", ["loop.layer_decay=0.75"])


def test_a_sweep_over_what_trains_may_set_what_some_of_it_uses():
    recipe = read_recipe("positioning", ["sweep={method.trainable: [last, lora]}", "method.lora_rank=7"])
    assert [one.method.lora_rank for _, one in runs_of(recipe)] == [7, 7] * len(recipe.seeds)


def test_what_a_task_has_can_be_turned_off_and_features_kept_or_not(data, tmp_path):
    learning = {"label_smoothing": 0.05, "class_weights": True, "cache_prefix": "auto"}
    for changes, expected in (
        ([], learning),
        (["label_smoothing=0", "class_weights=false"], learning | {"label_smoothing": 0.0, "class_weights": False}),
        (["label_smoothing=0.2", "cache_prefix=never"], learning | {"label_smoothing": 0.2, "cache_prefix": "never"}),
    ):
        run = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
        options = [part for change in changes for part in ("--set", f"learning.{change}")]
        assert call("finetune", "rf-classification-sl", "--data", data, "--out", run, *toy(), *options) == 0
        args = json.loads((run / "config.json").read_text())["objective"]["args"]
        assert {name: args[name] for name in learning} == expected


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        (
            "lora-grid",
            "sweep={method.lora_rank: [2, 1000]}",
            "lora-grid: method.lora_rank: found 1000, expected 1 to 32",
        ),
        ("positioning", "sweep={learning.loss: [mse, snr_mse]}", "positioning: learning.loss: found snr_mse"),
        ("positioning", "method.last_blocks=2", "positioning: method.last_blocks: found 2, expected 1 to 1"),
        ("positioning", "learning={loss: cross_entropy}", "positioning: learning.loss: found cross_entropy, expected"),
    ],
)
def test_what_does_not_fit_model_or_task_is_named_before_the_first_run(
    data, pretrained, tmp_path, capsys, name, change, says
):
    source = ("--pretrained", pretrained / "vit-5g", "--set", "method.last_blocks=1")
    options = (*toy(model=False), *(source if name == "positioning" else source[:2]), "--set", change)
    assert call("finetune", name, "--data", data, "--out", tmp_path / "run", *options) == 2
    assert says in said(capsys)
    assert not (tmp_path / "run").exists()


def test_a_task_of_ones_own_is_evaluated(data, pretrained, tmp_path):
    """By its file, whose name is in the recipe; its data lie under its own name."""
    path = tmp_path / "mine.yml"
    text = (TASKS / "positioning.yml").read_text().replace("name: positioning", "name: mypos")
    path.write_text(text)
    task = read_task(path)
    write_cache(tmp_path / "mypos.h5", task, list(raws(task, 60)))
    run = tmp_path / "run"
    options = ("--set", f"task={path}", "--set", "method.last_blocks=1", "--pretrained", pretrained / "vit-5g")
    assert call("finetune", "positioning", "--data", tmp_path, "--out", run, *toy(model=False), *options) == 0
    config = json.loads((run / "config.json").read_text())
    assert (config["task"], config["task_file"]) == ("mypos", str(path))
    assert call("evaluate", run, "--data", tmp_path) == 0
    assert json.loads((run / "evaluation.json").read_text())["task"] == "mypos"


def test_a_file_that_is_no_recipe(tmp_path):
    path = tmp_path / "list.yml"
    for text, expected in (
        ("- 1", "keys and values"),
        ("a: [", "YAML"),
        ("command: pretrain\nname: x", "pre-training"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match=expected):
            read_recipe(path)
    with pytest.raises(ConfigurationError, match=r"\.yml file or one of .*vit-all"):
        read_recipe("vit-everything")


def test_weights_and_data_must_fit_the_recipe(data, pretrained, tmp_path, capsys):
    run = tmp_path / "run"
    assert call("finetune", "positioning", "--data", data, "--out", run, *toy(model=False)) == 2
    assert "--pretrained" in capsys.readouterr().err
    scratch = ("finetune", "positioning-sl", "--data", data, "--out", run, "--pretrained", pretrained / "vit-all")
    assert call(*scratch, *toy()) == 2
    assert "from scratch" in capsys.readouterr().err
    assert call("finetune", "positioning-sl", "--data", tmp_path, "--out", run, *toy()) == 2
    assert "positioning.h5" in capsys.readouterr().err
    other = ("finetune", "positioning-sl", "--data", data / "human-activity.h5", "--out", run)
    assert call(*other, *toy()) == 2
    assert "found classification, expected position" in capsys.readouterr().err
    assert call("pretrain", "positioning", "--data", data, "--out", run, *toy()) == 2
    assert not run.exists()


def test_data_of_another_task_are_refused_by_every_recipe(data, tmp_path, capsys):
    """A single file for --data would else be taken for each of a recipe's data sets."""
    run = tmp_path / "run"
    assert call("pretrain", "vit-all", "--data", data / "csi-5g.h5", "--out", run, *toy()) == 2
    assert "csi-5g.h5: task: found csi-5g, expected rf-spectrograms, as the recipe has it" in said(capsys)
    other = replace(read_task("positioning"), name="uwb-position")
    write_cache(tmp_path / "places.h5", other, list(raws(other, 60)))
    assert call("finetune", "positioning-sl", "--data", tmp_path / "places.h5", "--out", run, *toy()) == 2
    assert "task: found uwb-position, expected positioning" in said(capsys)
    assert not run.exists()


def test_a_run_does_not_go_on_from_other_weights(data, pretrained, tmp_path, capsys, caplog):
    again, run = tmp_path / "again", tmp_path / "run"
    assert call("pretrain", "vit-5g", "--data", data, "--out", again, *toy(), "--seed", 4) == 0
    begin = ("finetune", "positioning", "--data", data, "--out", run, *toy(model=False))
    begin += ("--set", "method.last_blocks=1", "--pretrained")
    assert call(*begin, pretrained / "vit-5g") == 0
    assert call(*begin, pretrained / "vit-5g") == 0  # the same again is the run that is there
    capsys.readouterr()
    assert call(*begin, again) == 2
    assert "config.json: pretrained_sha256: found " in said(capsys)
    config = json.loads((run / "config.json").read_text())
    del config["pretrained_sha256"]  # as earlier versions left it
    (run / "config.json").write_text(json.dumps(config))
    assert call(*begin, again) == 0
    assert "does not say which weights it started from" in caplog.text


def test_a_warmup_set_by_hand_is_not_scaled_with_the_epochs():
    by_hand = read_recipe("positioning", ["loop.warmup_epochs=2"], epochs=24).loop
    assert (by_hand.epochs, by_hand.warmup_epochs) == (24, 2)
    whole = read_recipe("positioning", ["loop={warmup_epochs: 3}"], epochs=24).loop
    assert (whole.epochs, whole.warmup_epochs) == (24, 3)
    scaled = read_recipe("positioning", ["loop.lr=0.002"], epochs=24).loop
    assert (scaled.epochs, scaled.warmup_epochs) == (24, pytest.approx(10 * 24 / 200))
    longer = read_recipe("rf20-refine", ["loop.warmup_epochs=9"], epochs=20).loop  # more than the recipe's 7 epochs
    assert (longer.epochs, longer.warmup_epochs) == (20, 9)
    with pytest.raises(ConfigurationError, match=r"loop.warmup_epochs: found 30.0, expected 0 to below epochs \(24\)"):
        read_recipe("positioning", ["loop.warmup_epochs=30"], epochs=24)


def test_few_labels_are_the_same_for_every_method_and_swept(data, pretrained, tmp_path):
    shown = {}
    for name, options in {
        "scratch": ("human-activity-sl", *toy()),
        "probe": ("human-activity", *toy(model=False), "--pretrained", pretrained / "vit-all"),
    }.items():
        recipe, *rest = options
        changes = ("--set", "sweep={data.labels_per_class: [1, 2]}")
        assert call("finetune", recipe, "--data", data, "--out", tmp_path / name, *rest, *changes) == 0
        for run in (tmp_path / name).iterdir():
            split = json.loads((run / "split.json").read_text())["training"]["human-activity"]
            config = json.loads((run / "config.json").read_text())["data"]["training"]["human-activity"]
            count = config["subset"]["labels_per_class"]
            assert split["examples_per_class"] == [count] * 6
            shown.setdefault(count, []).append(split["rows"])
    assert {count: len(rows) for count, rows in shown.items()} == {1: 2, 2: 2}
    assert all(one == other for one, other in shown.values())


def test_pretraining_goes_on_from_weights(data, pretrained, tmp_path, capsys):
    """Those of other channel counts are kept, new ones start at random; another size is refused by its key."""
    run = tmp_path / "run"
    still = ("--set", "loop.lr=1.0e-9", "--set", "loop.min_lr=1.0e-9")
    begin = ("pretrain", "vit-wifi", "--data", data, "--out", run, "--pretrained", pretrained / "vit-5g", *toy())
    assert call(*begin, *still) == 0
    before, after = (registry.load(path / "weights.safetensors") for path in (pretrained / "vit-5g", run))
    assert (before.args.channels, after.args.channels) == ((4,), (3, 4))
    for name, tensor in before.state_dict().items():
        assert torch.allclose(tensor, after.state_dict()[name], atol=1e-5), name
    assert json.loads((run / "config.json").read_text())["pretrained"] == "vit-5g"
    capsys.readouterr()
    assert call(*begin[:5], tmp_path / "other", *begin[6:], "--set", "model.depth=2") == 2
    assert "encoder.depth: found 1, expected 2" in said(capsys)
    assert call(*begin[:5], tmp_path / "other", *begin[6:], "--set", "masking.cls_in_pretraining=false") == 2
    assert "cls_in_pretraining: found True, expected False" in said(capsys)


def test_a_channel_head_starts_from_the_decoder_on_request(data, pretrained, tmp_path, capsys):
    still = ("--set", "loop.lr=1.0e-9", "--set", "loop.min_lr=1.0e-9", "--set", "method.decoder_into_head=true")
    source = ("--pretrained", pretrained / "vit-all", *toy(model=False))
    run = tmp_path / "run"
    begin = ("finetune", "channel-estimation", "--data", data, "--out", run, "--set", "method.last_blocks=1")
    assert call(*begin, *source, *still) == 0
    decoder, head = (registry.read(path / "weights.safetensors").state for path in (pretrained / "vit-all", run))
    for name, theirs in (
        ("embed", "decoder_embed"),
        ("block.mlp.fc1", "decoder_blocks.0.mlp.fc1"),
        ("norm", "decoder_norm"),
    ):
        assert torch.allclose(head[f"head.{name}.weight"], decoder[f"{theirs}.weight"], atol=1e-5)
    assert json.loads((run / "config.json").read_text())["objective"]["start"] == {"decoder_into_head": True}
    capsys.readouterr()
    again = ("finetune", "channel-estimation", "--data", data, "--out", tmp_path / "again", *toy(model=False), *still)
    assert call(*again, "--set", "method.last_blocks=1", "--pretrained", run) == 2
    assert "method.decoder_into_head: found true with" in said(capsys)
    linear = ("finetune", "positioning", "--data", data, "--out", tmp_path / "linear", *source, *still)
    assert call(*linear, "--set", "method.last_blocks=1") == 2
    assert "method.decoder_into_head: found True, expected false for task positioning" in said(capsys)
    with pytest.raises(ConfigurationError, match=r"method.decoder_into_head: found True, expected false, when not pre"):
        read_recipe("channel-estimation-sl", ["method.decoder_into_head=true"])
