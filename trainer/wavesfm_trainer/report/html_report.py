# SPDX-License-Identifier: GPL-3.0-or-later
"""A study as one HTML page: tables and figures are inlined, nothing is loaded from elsewhere, faults are listed."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure
from wavesfm_core.atomic_file import write_atomically
from wavesfm_core.errors import InputError

from ..evaluation.compare_estimators import NAME as COMPARISON
from ..evaluation.compare_estimators import read_comparison
from ..evaluation.metrics import SnrCurve, confusion_matrix, over_snr, position_errors
from ..evaluation.run_files import BETTER, HEADLINES, Evaluation
from . import figures
from .comparison import draw_comparison
from .study import SCRATCH, Group, Study, read_study, settings, trend
from .tables import (
    Table,
    against_scratch,
    all_metrics,
    by_task,
    channel_table,
    factor_of,
    runs_table,
    scenario_of,
    table_three,
    title_of,
)

log = logging.getLogger(__name__)

BAND = "Line: mean over seeds; band: lowest to highest seed."


@dataclass(frozen=True)
class Picture:
    """A drawn figure."""

    title: str
    """Title."""
    caption: str
    """Text below the figure."""
    figure: Figure
    """The figure."""
    photo: bool = False
    """Inline it as PNG, not as SVG, because it is made of pixels."""

    @property
    def data(self) -> str:
        return figures.encode(self.figure, "png" if self.photo else "svg")


@dataclass(frozen=True)
class Section:
    """A heading with its tables and figures."""

    title: str
    """Heading."""
    tables: list[Table] = field(default_factory=list)
    """Tables."""
    pictures: list[Picture] = field(default_factory=list)
    """Figures."""


def write_report(directory: Path, page: Path | None = None, figures_dir: Path | None = None) -> Path:
    """Gather the runs below a folder and write the page, atomically; returns its path.

    Parameters
    ----------
    directory : folder of the runs.
    page : the page; None: report.html in the folder.
    figures_dir : folder for each figure as PDF; None: none.

    Raises
    ------
    InputError : nothing to report, or the page cannot be written.
    """
    study = read_study(directory)
    page = directory / "report.html" if page is None else page
    sections = make_sections(study)
    text = render(study, sections)
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(page, text)
        if figures_dir is not None:
            _save_figures(sections, figures_dir)
    except OSError as error:
        raise InputError(page, "page", error, "a place that can be written") from None
    log.info("%s: %d runs in %d groups, %d refused", page, len(study.runs), len(study.groups), len(study.refused))
    return page


def render(study: Study, sections: list[Section]) -> str:
    """The page as text; every word that came from a run is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True, undefined=StrictUndefined
    )
    runs = study.runs
    n_seeds = len({run.seed for run in runs})
    return environment.get_template("report.html.j2").render(
        title=f"Study {study.directory.resolve().name}",
        summary=f"{len(runs)} runs in {len(study.groups)} groups that differ only in the seed; {n_seeds} seeds.",
        n_runs=len(runs),
        refused=[r.reason.removeprefix(f"{study.directory}/") for r in study.refused],
        waiting=[str(run.path.relative_to(study.directory)) for run in runs if run.evaluation is None],
        remarks=[f"{g.task or g.command}, {g.label}: {remark}" for g in study.groups for remark in g.remarks],
        sections=sections,
    )


def make_sections(study: Study) -> list[Section]:
    """All tables and figures that the study has data for."""
    sections = []
    if (overview := table_three(study)) is not None:
        sections.append(Section("Results", [overview]))
    tuned = [g for g in study.groups if g.command != "pretrain"]
    trained = by_task(tuned)
    for task in sorted({g.task for g in tuned}):
        evaluated = {title: groups for title, groups in trained.items() if groups[0].task == task}
        for title, groups in evaluated.items():
            tables = [all_metrics(groups), *filter(None, [against_scratch(groups)])]
            sections.append(Section(title, tables, list(_task_pictures(groups))))
        if curves := _trends([g for g in tuned if g.task == task]):
            (sections[-1] if evaluated else _added(sections, Section(task))).pictures.extend(curves)
    if pretrained := [g for g in study.groups if g.command == "pretrain"]:
        tables = [all_metrics(groups) for groups in by_task(pretrained).values()]
        pictures = [*_trends(pretrained), *_reconstructions(pretrained)]
        sections.append(Section("Pre-training", tables, pictures))
    sections += [_comparison(path, study) for path in sorted(study.directory.rglob(COMPARISON))]
    sections.append(Section("Every run", [runs_table(study)]))
    return sections


def _comparison(path: Path, study: Study) -> Section:
    """Tables and figures of `wavesfm-train compare-channels`: a table for each scenario, figures for the first."""
    place = path.parent.relative_to(study.directory)
    title = "Channel estimation" if place == Path(".") else f"Channel estimation: {place}"
    try:
        pools = read_comparison(path)
    except InputError as error:
        log.warning("refused: %s", error)
        reason = str(error).removeprefix(f"{study.directory}/")
        return Section(title, [Table("Could not be read", ("reason",), ((reason,),))])
    where = f"{pools[0].slots} unseen slots of {scenario_of(pools[0])}. Dashed: no models."
    pictures = [
        Picture(title, where, draw_comparison(pools[0], decibel))
        for title, decibel in (("Mean squared error over SNR", False), ("Normalised error over SNR", True))
    ]
    return Section(title, [channel_table(pool) for pool in pools], pictures)


def _added(sections: list[Section], section: Section) -> Section:
    sections.append(section)
    return section


def _task_pictures(groups: list[Group]) -> Iterator[Picture]:
    chosen, remark = _best_variants(groups)
    draw: dict[str, Callable[[list[Group], str], Iterator[Picture]]] = {
        "classification": _confusions,
        "position": _positions,
        "channel": _channels,
    }
    yield from draw[groups[0].kind](chosen, remark)
    yield from _lora(groups)


def _best_variants(groups: list[Group]) -> tuple[list[Group], str]:
    """The best group of each model and method, and a sentence if others were left out."""
    chosen: dict[tuple[str, str], Group] = {}
    for group in groups:
        held = chosen.get((group.model, group.method))
        if held is None or _worth(group) > _worth(held):
            chosen[group.model, group.method] = group
    remark = " Of several variants of a model and method, the best is drawn." if len(chosen) < len(groups) else ""
    return list(chosen.values()), remark


def _worth(group: Group) -> float:
    interval = group.interval(HEADLINES[group.kind]) if group.kind else None
    if interval is None:
        return -math.inf
    return interval.mean if BETTER[group.kind] == "max" else -interval.mean


def _evaluations(group: Group) -> list[Evaluation]:
    return [run.evaluation for run in group.runs if run.evaluation is not None]


def _confusions(groups: list[Group], remark: str) -> Iterator[Picture]:
    lists = dict.fromkeys(e.labels for g in groups for e in _evaluations(g))
    for labels in lists:
        matrices = {}
        for group in groups:
            alike = [e.arrays for e in _evaluations(group) if e.labels == labels]
            if alike:
                counts = [confusion_matrix(a["target"], a["logits"].argmax(axis=1), len(labels)) for a in alike]
                matrices[group.label] = np.sum(counts, axis=0)
        caption = "Per cent of each true class, over all seeds; cells below 0.5 % are empty." + remark
        yield Picture("Confusion", caption, figures.confusions(matrices, labels))


def _positions(groups: list[Group], remark: str) -> Iterator[Picture]:
    errors = {}
    for group in groups:
        arrays = [e.arrays for e in _evaluations(group)]
        errors[group.label] = np.concatenate([position_errors(a["predicted_m"], a["target_m"]) for a in arrays])
    caption = (
        "Density (left), cumulative share (right), over all seeds; the axis ends at the worst model's 99 %." + remark
    )
    yield Picture("Positioning error", caption, figures.position_errors(errors))


def _channels(groups: list[Group], remark: str) -> Iterator[Picture]:
    for metric, title in (("mse", "Mean squared error over SNR"), ("nmse_db", "Normalised error over SNR")):
        curves = {g.label: c for g in groups if (c := _snr_curve(g, metric)) is not None}
        for name, curve in _baselines(groups, metric).items():
            curves.setdefault(name, curve)
        if curves:
            caption = f"Bins of 2 dB. {BAND} Dashed: other estimators on the same samples." + remark
            yield Picture(title, caption, figures.over_snr(curves, decibel=metric == "nmse_db"))


def _snr_curve(group: Group, metric: str) -> figures.Curve | None:
    found: list[SnrCurve] = []
    for evaluation in _evaluations(group):
        a = evaluation.arrays
        found.append(over_snr(a["squared_error"], a["power"], a["snr_db"]))
    bins = np.unique(np.concatenate([c.snr_db for c in found]))
    if not len(bins):
        return None
    values = np.full((len(found), len(bins)), np.nan)
    for row, curve in zip(values, found):
        row[np.searchsorted(bins, curve.snr_db)] = getattr(curve, metric)
    return figures.Curve(bins, values)


def _baselines(groups: list[Group], metric: str) -> dict[str, figures.Curve]:
    """Curves of other estimators, from the first evaluation that has them: they depend on the samples only."""
    found: dict[str, figures.Curve] = {}
    for group in groups:
        for evaluation in _evaluations(group):
            for name, curve in evaluation.baselines.items():
                if metric in curve and name not in found:
                    found[name] = figures.Curve(np.array(curve["snr_db"]), np.array([curve[metric]]), reference=True)
    return found


def _trends(groups: list[Group]) -> list[Picture]:
    """A figure for each monitored column."""
    pictures = []
    columns = dict.fromkeys(
        (run.config["watched"], run.config["mode"]) for g in groups for run in g.runs if run.monitored() is not None
    )
    for column, mode in columns:
        with_it = [g for g in groups if any(r.config.get("watched") == column and r.monitored() for r in g.runs)]
        chosen, remark = _best_variants(with_it)
        metric = column.removeprefix("val_")
        series = {g.label: trend(g, column) for g in chosen}
        curves = {name: figures.Curve(x, values * factor_of(metric)) for name, (x, values) in series.items()}
        log = mode == "min" and not metric.endswith("_db")  # decibels are logarithms already
        figure = figures.trends(curves, f"validation {title_of(metric)}", log)
        pictures.append(Picture("Over epochs", f"On the validation split. {BAND}{remark}", figure))
    return pictures


def _reconstructions(groups: list[Group]) -> Iterator[Picture]:
    for group in groups:
        for evaluation in _evaluations(group)[:1]:
            arrays = evaluation.arrays
            if "original" in arrays:
                n = len(arrays["ratio"])
                figure = figures.reconstructions(
                    arrays["original"],
                    [float(r) for r in arrays["ratio"]],
                    [arrays[f"reconstruction_{i}"] for i in range(n)],
                    [arrays[f"hidden_{i}"] for i in range(n)],
                )
                seed = group.evaluated[0].seed
                caption = f"{evaluation.split} split, first channel, seed {seed}; seen patches are shown as they are."
                yield Picture(f"Reconstructions by {group.label}", caption, figure, photo=True)


def _lora(groups: list[Group]) -> Iterator[Picture]:
    """A figure for each pre-trained model with two or more LoRA groups."""
    for model in dict.fromkeys(g.model for g in groups if g.method == "lora"):
        adapted = [g for g in groups if g.method == "lora" and g.model == model and _alpha(g) is not None]
        if len(adapted) < 2:
            continue
        lines = {
            f"alpha = {alpha:g}": _points([g for g in adapted if _alpha(g) == alpha])
            for alpha in sorted({_alpha(g) for g in adapted})  # type: ignore[type-var]
        }
        references = {}
        for name, members in (
            ("last blocks", [g for g in groups if g.method == "last" and g.model == model]),
            (SCRATCH, [g for g in groups if g.model == SCRATCH]),
        ):
            if members:
                references[name] = _points([max(members, key=_worth)])
        kind = groups[0].kind
        figure = figures.lora_pareto(lines, references, title_of(HEADLINES[kind]), BETTER[kind] == "max")
        caption = "Mean over seeds; bars: 95 % interval. Ringed: no point of as few parameters is as good."
        yield Picture(f"LoRA on {model}", caption, figure)


def _alpha(group: Group) -> float | None:
    found = [v for name, v in settings(group.runs[0]).items() if name.split(".")[-1] == "lora_alpha"]
    return float(found[0]) if found and isinstance(found[0], (int, float)) else None


def _points(groups: list[Group]) -> figures.Points:
    metric = HEADLINES[groups[0].kind]
    found = [(g.runs[0].trainable_parameters, i) for g in groups if (i := g.interval(metric)) is not None]
    factor = factor_of(metric)
    return figures.Points(
        np.array([n for n, _ in found], float),
        np.array([i.mean * factor for _, i in found]),
        np.array([i.half * factor for _, i in found]),
    )


def _save_figures(sections: list[Section], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    pictures = [(section, picture) for section in sections for picture in section.pictures]
    for i, (section, picture) in enumerate(pictures, start=1):
        name = re.sub(r"[^a-z0-9]+", "-", f"{section.title} {picture.title}".lower()).strip("-")
        figures.save(picture.figure, directory / f"{i:02}-{name}.pdf", dpi=300)
