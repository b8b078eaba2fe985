# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables of a study: the paper's Table III, every figure of merit, differences to training from scratch, the runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..evaluation.compare_estimators import BACKING_OFF, LS, PoolCurves
from ..evaluation.metrics import Interval, difference_interval
from ..evaluation.run_files import BETTER, HEADLINES
from .study import SCRATCH, Group, Run, Study

NONE = "-"
PLUS_MINUS = "\u00b1"
ONE_SEED = "One seed: in brackets the 95 % bootstrap interval over test samples, which does not cover other seeds."
SEEDS = f"Mean {PLUS_MINUS} half the 95 % confidence interval of the mean over n seeds (Student's t)."
EPOCHS = "Epochs: the epoch with the best validation figure (as the paper counts), mean over seeds."
# metric -> title, unit, factor, decimals (None: three significant digits)
_SHOWN: dict[str, tuple[str, str, float, int | None]] = {
    "class_accuracy": ("mean per-class accuracy", "%", 100, 2),
    "class_accuracy_absent_zero": ("mean per-class accuracy, absent classes as 0", "%", 100, 2),
    "accuracy": ("accuracy", "%", 100, 2),
    "top3_accuracy": ("top-3 accuracy", "%", 100, 2),
    "macro_f1": ("macro F1", "%", 100, 2),
    "mean_error_m": ("mean error", "m", 1, 3),
    "std_error_m": ("std. dev. of the error", "m", 1, 3),
    "nmse_db": ("NMSE", "dB", 1, 2),
    "mse": ("mean squared error", "", 1, None),
    "loss": ("reconstruction loss", "", 1, None),
}
# what Table III shows per task of a kind
_COLUMNS = {
    "classification": ("class_accuracy",),
    "position": ("mean_error_m", "std_error_m"),
    "channel": ("mse", "nmse_db"),
    "pretraining": ("loss",),
}


@dataclass(frozen=True)
class Table:
    """A table of text cells."""

    title: str
    """Title."""
    columns: tuple[str, ...]
    """Titles of the columns."""
    rows: tuple[tuple[str, ...], ...]
    """Cells."""
    heads: tuple[tuple[str, int], ...] = ()
    """(title, number of columns below) above the titles."""
    notes: tuple[str, ...] = ()
    """Sentences below the table."""
    best: frozenset[tuple[int, int]] = frozenset()
    """Cells (row, column) of the best values."""
    words: frozenset[int] = frozenset({0})
    """Columns of text, which are aligned to the left."""

    def markdown(self) -> str:
        """The table in Markdown; heads precede the titles of their columns."""
        titles = list(self.columns)
        at = 0
        for head, span in self.heads:
            for i in range(at, at + span):
                titles[i] = f"{head}: {titles[i]}" if head else titles[i]
            at += span
        lines = [titles, ["---"] * len(titles), *self.rows]
        cells = [[str(cell).replace("|", "\\|") for cell in line] for line in lines]
        return "\n".join("| " + " | ".join(line) + " |" for line in cells)


def title_of(metric: str) -> str:
    """Title of the metric with its unit in brackets."""
    title, unit, _, _ = _shown(metric)
    return f"{title} ({unit})" if unit else title


def factor_of(metric: str) -> float:
    """Factor from a value to the unit of `title_of`."""
    return _shown(metric)[2]


def number(value: float, metric: str) -> str:
    """A value in the metric's unit and with its digits; NONE if it does not exist."""
    _, _, factor, decimals = _shown(metric)
    if not math.isfinite(value):
        return NONE
    return f"{value * factor:.3g}" if decimals is None else f"{value * factor:.{decimals}f}"


def plus_minus(interval: Interval | None, metric: str) -> str:
    """`mean +- half`; the mean alone if there is no half."""
    if interval is None:
        return NONE
    if not math.isfinite(interval.half):
        return number(interval.mean, metric)
    _, _, factor, decimals = _shown(metric)
    if decimals is None:  # two digits of the spread, and the mean as far as it is known
        decimals = max(0, 1 - math.floor(math.log10(interval.half * factor))) if interval.half > 0 else 4
    return f"{interval.mean * factor:.{decimals}f} {PLUS_MINUS} {interval.half * factor:.{decimals}f}"


def task_title(group: Group) -> str:
    """The task, with the split unless it is the test split."""
    return group.task if group.split in ("", "test") else f"{group.task} ({group.split} split)"


def by_task(groups: list[Group]) -> dict[str, list[Group]]:
    """Evaluated groups by the title of their task, in order."""
    tasks: dict[str, list[Group]] = {}
    for group in groups:
        if group.evaluated:
            tasks.setdefault(task_title(group), []).append(group)
    return dict(sorted(tasks.items()))


def table_three(study: Study) -> Table | None:
    """The paper's Table III: model (and method) by task; None if no fine-tuning has been evaluated."""
    tasks = by_task([g for g in study.groups if g.command != "pretrain"])
    if not tasks:
        return None
    names = {(g.model == SCRATCH, g.model, g.method, g.variant): None for groups in tasks.values() for g in groups}
    heads, titles, columns, notes = [("", 2)], ["model", "trained"], [], [SEEDS, EPOCHS]
    for task, groups in tasks.items():
        task_columns = _task_columns(groups, list(names))
        heads.append((task, len(task_columns)))
        titles += [title for title, _ in task_columns]
        columns += task_columns
        sizes = sorted({r.evaluation.n_samples for g in groups for r in g.evaluated if r.evaluation})
        if len(sizes) > 1:
            notes.append(f"{task}: evaluated on splits of different sizes ({', '.join(map(str, sizes))} samples).")
    rows = [
        (model, " ".join(part for part in (method, variant) if part), *(cells[i] for _, cells in columns))
        for i, (_, model, method, variant) in enumerate(names)
    ]
    if any("[" in cell for row in rows for cell in row[2:]):
        notes.append(ONE_SEED)
    best = _best(tasks, list(names), titles)
    return Table("Model by task", tuple(titles), tuple(rows), tuple(heads), tuple(notes), best, frozenset({0, 1}))


def _task_columns(groups: list[Group], names: list[tuple]) -> list[tuple[str, list[str]]]:
    by_name = {(g.model == SCRATCH, g.model, g.method, g.variant): g for g in groups}
    listed = [by_name.get(name) for name in names]
    headline, *others = _COLUMNS[groups[0].kind]
    columns = [(title_of(headline), [_headline(g) if g else NONE for g in listed])]
    columns += [(title_of(m), [_mean(g, m) if g else NONE for g in listed]) for m in others]
    columns.append(("epochs", [_epochs(g) if g else NONE for g in listed]))
    columns.append(("n", [str(len(g.evaluated)) if g else NONE for g in listed]))
    return columns


def _best(tasks: dict[str, list[Group]], names: list[tuple], titles: list[str]) -> frozenset[tuple[int, int]]:
    """The best headline of each task that has several groups."""
    found, column = set(), 2
    for groups in tasks.values():
        kind = groups[0].kind
        ranked = [(i.mean, g) for g in groups if (i := g.interval(HEADLINES[kind])) is not None]
        if len(ranked) > 1:
            _, g = (max if BETTER[kind] == "max" else min)(ranked, key=lambda pair: pair[0])
            found.add((names.index((g.model == SCRATCH, g.model, g.method, g.variant)), column))
        column += len(_COLUMNS[kind]) + 2
    return frozenset(found)


def _headline(group: Group) -> str:
    metric = HEADLINES[group.kind]
    interval = group.interval(metric)
    bounds = group.evaluated[0].evaluation.interval if group.evaluated[0].evaluation else None
    if interval is not None and interval.n == 1 and bounds is not None:
        return f"{number(interval.mean, metric)} [{number(bounds[0], metric)}, {number(bounds[1], metric)}]"
    return plus_minus(interval, metric)


def _mean(group: Group, metric: str) -> str:
    interval = group.interval(metric)
    return NONE if interval is None else number(interval.mean, metric)


def _epochs(group: Group, best: bool = True) -> str:
    interval = group.epochs(best)
    return NONE if interval is None else f"{interval.mean:.0f}"


def all_metrics(groups: list[Group]) -> Table:
    """Every figure of merit of one task's groups, mean +- half interval over seeds."""
    metrics = list(dict.fromkeys(m for g in groups for r in g.evaluated if r.evaluation for m in r.evaluation.metrics))
    columns = ("model", *(title_of(m) for m in metrics), "best epoch", "epochs to within 1 % of the best")
    rows = [
        (g.label, *(plus_minus(g.interval(m), m) for m in metrics), _epochs(g), _epochs(g, best=False)) for g in groups
    ]
    return Table("All figures", columns, tuple(rows), notes=(SEEDS,))


def against_scratch(groups: list[Group]) -> Table | None:
    """Headline of each group minus that of the best group trained from scratch; None without such a group.

    The interval is Welch's over seeds. A verdict is given only if the interval excludes 0.
    """
    kind = groups[0].kind
    metric, sign = HEADLINES[kind], 1 if BETTER[kind] == "max" else -1
    scratch = [g for g in groups if g.model == SCRATCH and len(g.values(metric))]
    others = [g for g in groups if g.model != SCRATCH and len(g.values(metric))]
    if not scratch or not others:
        return None
    reference = max(scratch, key=lambda g: sign * g.values(metric).mean())
    rows = []
    for group in others:
        found = difference_interval(group.values(metric), reference.values(metric))
        verdict = "not distinguishable" if math.isfinite(found.low) else "too few seeds to say"
        if found.low > 0 or found.high < 0:
            verdict = "better" if sign * found.mean > 0 else "worse"
        rows.append((group.label, plus_minus(found, metric), verdict))
    note = (
        f"Against {reference.label}; 95 % interval of the difference (Welch's t), not corrected for the number of rows."
    )
    columns = ("model", title_of(metric), "verdict")
    return Table("Against training from scratch", columns, tuple(rows), notes=(note,), words=frozenset({0, 2}))


def channel_table(pool: PoolCurves) -> Table:
    """NMSE of each estimator at each SNR on one pool; in brackets the share of slots that backed off."""
    rows = []
    for name, curve in pool.estimators.items():
        shares = curve.backed_off or [None] * len(pool.snr_db)
        cells = [f"{x:.2f}" if s is None else f"{x:.2f} ({s:.0%})" for x, s in zip(curve.nmse_db, shares)]
        rows.append((name, *cells))
    notes = [f"{pool.slots} slots of {scenario_of(pool)}, none of them trained on."]
    notes += [excess_over_ls_note(name, pool.excess_db(name)) for name in pool.estimators if name.endswith(BACKING_OFF)]
    columns = ("estimator", *(f"{snr_db:g}" for snr_db in pool.snr_db))
    heads = (("", 1), ("NMSE (dB) at an SNR of (dB)", len(pool.snr_db)))
    return Table(f"Pool {pool.name}", columns, tuple(rows), heads, tuple(notes))


def excess_over_ls_note(name: str, excess_db: float) -> str:
    """A sentence about the largest excess of an estimator's error over that of least squares."""
    if excess_db > 0:
        return f"{name}: up to {excess_db:.2f} dB worse than {LS}."
    if excess_db == 0:
        return f"{name}: never worse than {LS}."
    return f"{name}: at every SNR at least {-excess_db:.2f} dB better than {LS}."


def scenario_of(pool: PoolCurves) -> str:
    """The scenario of a pool in words."""
    model, speed = pool.scenario.get("model", "?"), pool.scenario.get("speed_m_per_s", 0)
    spread_s = pool.scenario.get("delay_spread_s")
    return f"{model}, {speed:g} m/s" + (f", delay spread {spread_s * 1e9:g} ns" if spread_s else "")


def runs_table(study: Study) -> Table:
    """Every run by its directory with its result; also those not evaluated."""
    columns = ("run", "task", "model", "seed", "trainable parameters", "headline", "best epoch", "commit")
    rows = [_run_row(study, group, run) for group in study.groups for run in group.runs]
    return Table("Runs", columns, tuple(rows), words=frozenset({0, 1, 2, 5, 7}))


def _run_row(study: Study, group: Group, run: Run) -> tuple[str, ...]:
    if run.evaluation is None:
        headline = "not evaluated"
    else:
        metric = run.evaluation.headline
        headline = f"{title_of(metric)}: {number(run.evaluation.metrics[metric], metric)}"
        if run.evaluation.interval is not None:
            headline += " [" + ", ".join(number(b, metric) for b in run.evaluation.interval) + "]"
    epochs = Group((run,), group.model).epochs()
    return (
        str(run.path.relative_to(study.directory)),
        run.task or NONE,
        group.label,
        str(run.seed),
        f"{run.trainable_parameters:,}",
        headline,
        NONE if epochs is None else f"{epochs.mean:.0f}",
        str(run.config.get("git_commit") or NONE)[:10],
    )


def _shown(metric: str) -> tuple[str, str, float, int | None]:
    if metric in _SHOWN:
        return _SHOWN[metric]
    if metric.endswith("_m"):
        return metric.removesuffix("_m").replace("_", " "), "m", 1, 3
    return metric.replace("_", " "), "", 1, None
