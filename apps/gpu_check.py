#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures the engines of a GPU on this machine and writes gpu-report.json and gpu-report.md; see scripts/gpu-check.

Rows: the tests that need a GPU; parity of every shipped bundle and of one of the paper's size (random weights) in each
precision; tiles per second at batch 1 to 256 and latency at batch 1, beside torch and onnxruntime. Missing packages and
devices give rows "not available". Exit code: 0; 1 if something failed; 2 for a wrong parameter.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
for folder in ("trainer", "tests"):  # the peer's model, and the synthetic bundle of the paper's size
    sys.path.append(str(ROOT / folder))

from gpu_contenders import (  # noqa: E402
    LIBRARIES,
    PAPER_OUTPUTS,
    Contender,
    NotAvailable,
    contenders,
    missing_for_torch,
    product_rate,
)
from wavesfm_core.bundle.bundle import SPEC, Bundle  # noqa: E402
from wavesfm_core.engines.availability import cuda_devices  # noqa: E402
from wavesfm_core.engines.onnxruntime import OnnxRuntimeEngine  # noqa: E402
from wavesfm_core.preprocess.golden_inputs import golden_inputs  # noqa: E402

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PAPER_TILES = 64  # tiles of the parity of the paper's size: the reference on the CPU takes 0.1 s for each
AGREEMENT_TILES = 1000
GPU_TESTS = ROOT / "tests/engines/test_gpu.py"
PAPER_NAME = "paper-preset"
LEAST_RUNS, MOST_RUNS = 3, 10_000
# 12 blocks of width 512 over 196 tokens: 24 N D^2 for the weights' products and 4 N^2 D for attention's
PAPER_FLOP = 12 * (24 * 196 * 512**2 + 4 * 196**2 * 512)
Row = dict[str, Any]
SECTIONS = {
    "parity": ("model", "engine", "precision", "cosine", "agreement", "difference", "build_s", "plan_mb", "memory_mb"),
    "tiles_per_s": ("model", "engine", "precision", *(f"batch_{n}" for n in BATCHES), "memory_mb"),
    "latency": ("model", "engine", "precision", "p50_ms", "p99_ms"),
    "goals": ("goal", "wanted", "found"),
}


def varied(bundle: Bundle, count: int) -> dict[str, np.ndarray]:
    """Inputs of `count` different tiles: golden tiles, each shifted by a random number of columns."""
    golden = bundle.golden()
    rows = [i % len(golden.tiles) for i in range(count)]
    shifts = np.random.default_rng(0).integers(0, golden.tiles[0].shape[-1], count)
    tiles = np.stack([np.roll(golden.tiles[row], shift, -1) for row, shift in zip(rows, shifts)])
    return golden_inputs(bundle.spec, golden, rows, tiles)


def cut(inputs: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """The first `count` tiles of a batch."""
    return {name: np.ascontiguousarray(values[:count]) for name, values in inputs.items()}


def durations(engine: Any, inputs: Mapping[str, np.ndarray], seconds: float) -> np.ndarray:
    """Seconds of each run, for about `seconds` in all, after one run that is not counted."""
    engine.run(inputs)
    took: list[float] = []
    while len(took) < LEAST_RUNS or (sum(took) < seconds and len(took) < MOST_RUNS):
        start = time.perf_counter()
        engine.run(inputs)
        took.append(time.perf_counter() - start)
    return np.array(took)


def compared(outputs: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], labels: bool) -> Row:
    """Smallest cosine similarity and largest difference over the outputs, and the share of equal labels."""
    pairs = [(outputs[name].ravel().astype(float), values.ravel().astype(float)) for name, values in expected.items()]
    row: Row = {
        "cosine": min(float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))) for a, b in pairs),
        "difference": max(float(np.abs(a - b).max()) for a, b in pairs),
    }
    if labels:
        name = next(iter(expected))
        row["agreement"] = float(np.mean(outputs[name].argmax(1) == expected[name].argmax(1)))
    return row


def parity(name: str, bundle: Bundle | None, tiles: int, all_contenders: Iterable[Contender]) -> list[Row]:
    """Rows of each contender with the bundle's weights, against onnxruntime in float32 on the CPU.

    bundle: None only where no contender is available.
    """
    inputs: dict[str, np.ndarray] = {}
    expected: dict[str, np.ndarray] = {}
    rows = []
    for contender in all_contenders:
        if not contender.weights:
            continue

        def measure(contender: Contender = contender) -> Row:
            assert bundle is not None
            if not expected:
                inputs.update(varied(bundle, tiles))
                expected.update(OnnxRuntimeEngine(bundle).run(inputs))
            start = time.perf_counter()
            engine = contender.open(bundle, 64)
            opened_s = time.perf_counter() - start
            try:
                row = compared(engine.run(inputs), expected, bundle.spec.head.task == "classification")
                return {**row, "tiles": tiles, "build_s": opened_s, **facts(engine)}
            finally:
                engine.close()

        rows.append(row_of({"model": name, **named(contender)}, contender.missing, measure))
    return rows


def speed(name: str, bundle: Bundle | None, seconds: float, contender: Contender) -> tuple[Row, Row]:
    """Rows of tiles per second and latency of a contender; bundle: None only where it is not available."""
    row = {"model": name, **named(contender)}
    latency: Row = {}

    def measure() -> Row:
        assert bundle is not None
        engine = contender.open(bundle, max(BATCHES))
        try:
            inputs = varied(bundle, max(BATCHES))
            rates = {}
            for batch in BATCHES:
                took = durations(engine, cut(inputs, batch), seconds)
                rates[f"batch_{batch}"] = batch / float(np.median(took))
                if batch == 1:
                    latency.update(zip(("p50_ms", "p99_ms"), np.percentile(took, (50, 99)).tolist()))
            return {**rates, **facts(engine)}
        finally:
            engine.close()

    rates = row_of(row, contender.missing, measure)
    why = {key: rates[key] for key in ("not_available", "failed") if key in rates}
    return rates, {**row, **{name: value * 1e3 for name, value in latency.items()}, **({} if latency else why)}


def named(contender: Contender) -> Row:
    """Which contender a row is of."""
    return {"engine": contender.name, "precision": contender.precision}


def facts(engine: Any) -> Row:
    """What an engine says of itself, as far as it does."""
    row: Row = {"description": engine.description}
    if (memory := getattr(engine, "memory_bytes", None)) is not None:
        row["memory_mb"] = memory / 1e6
    if (plan := getattr(engine, "plan", None)) is not None:
        row.update(plan_mb=plan.n_bytes / 1e6, build_s=plan.built_s, warnings=list(plan.warnings))
        row.update(layers=plan.layers, layers_read_back=plan.read_back)
    return row


def row_of(row: Row, missing: str, measure: Callable[[], Row]) -> Row:
    """The row with what was measured, with `not_available` and why, or with `failed` and why."""
    if missing:
        return {**row, "not_available": missing}
    try:
        return {**row, **measure()}
    except NotAvailable as error:
        return {**row, "not_available": str(error)}
    except Exception as error:  # one row that fails must not cost the others
        return {**row, "failed": f"{type(error).__name__}: {error}"}


def run_tests(out: Path) -> Row:
    """The tests that need a GPU: how many passed, failed and were skipped."""
    report = out / "gpu-tests.xml"
    report.unlink(missing_ok=True)
    installed = [
        "-P",
        "-m",
        "pytest",
        "-q",
        "-o",
        "pythonpath=tests",
    ]  # tests the installed package
    command = [sys.executable, *installed, "-m", "gpu", f"--junitxml={report}", str(GPU_TESTS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if not report.is_file():
        return {"failed": (done.stdout + done.stderr).strip()[-500:]}
    counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
    suite = ET.parse(report).getroot().find("testsuite")
    counts.update({name: int(suite.get(name, 0)) for name in counts} if suite is not None else {})
    if counts["failures"] + counts["errors"]:
        return {**counts, "failed": done.stdout.strip()[-500:]}
    return counts if counts["tests"] > counts["skipped"] else {**counts, "not_available": "all were skipped"}


def goals(report: Mapping[str, Any]) -> list[Row]:
    """What was wanted of a GPU, and what was found."""
    rates = {(row["engine"], row["precision"]): row for row in report["tiles_per_s"] if "batch_1" in row}
    fast = next((rates[name, "bf16"] for name in LIBRARIES if (name, "bf16") in rates), {})
    peer, full = rates.get(("torch.compile", "bf16"), {}), report["products_tflops"]
    halves = [r for r in report["parity"] if r["engine"] in LIBRARIES and r["precision"] in ("bf16", "fp16")]
    cosines = [r["cosine"] for r in halves if "cosine" in r]
    agreement = [r["agreement"] for r in halves if "agreement" in r and r["tiles"] >= AGREEMENT_TILES]
    ratio = [fast[f"batch_{n}"] / peer[f"batch_{n}"] for n in BATCHES if fast and peer]
    p50 = [r["p50_ms"] for r in report["latency"] if r["engine"] in LIBRARIES and "p50_ms" in r]
    shares = [fast[f"batch_{n}"] * PAPER_FLOP / 1e12 / full for n in BATCHES if n >= 64 and fast and full]
    found = [
        ("smallest cosine in bf16 and fp16", "0.9995 or more", cosines),
        (f"smallest label agreement in bf16 and fp16 on {AGREEMENT_TILES} tiles", "0.995 or more", agreement),
        ("tiles/s against torch.compile, bf16, worst batch", "1.5 or more", ratio),
        ("latency p50 at batch 1, ms, best precision", "less than 1", p50),
        ("share of the matrix-product rate from batch 64 on, worst batch", "0.6 or more", shares),
    ]
    return [
        {"goal": goal, "wanted": wanted, **({"found": min(values)} if values else {"not_available": "not measured"})}
        for goal, wanted, values in found
    ]


def machine() -> Row:
    """What was measured on."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,compute_cap", "--format=csv,noheader"]
    try:
        gpus = subprocess.run(query, capture_output=True, text=True, timeout=60).stdout.strip().splitlines()
    except (OSError, subprocess.SubprocessError):
        gpus = []
    system = {"python": platform.python_version(), "os": platform.platform()}
    return {"gpus": gpus, "cuda_devices": cuda_devices(), **system}


def synthetic_bundle(directory: Path, **size: int) -> Bundle:
    """A bundle with random weights and golden outputs of onnxruntime on the CPU."""
    from support.synthetic_vit import make_bundle

    draft = make_bundle(directory / "draft", np.zeros((2, PAPER_OUTPUTS), np.float32), **size)
    inputs = golden_inputs(draft.spec, draft.golden())
    return make_bundle(directory / PAPER_NAME, OnnxRuntimeEngine(draft).run(inputs)["logits"], **size)


def measured(models: Path, tiles: int, seconds: float, out: Path) -> dict[str, Any]:
    """The report as plain types."""
    from support.synthetic_vit import PAPER

    everyone = contenders()
    report: dict[str, Any] = {"schema": 1, "machine": machine(), "tests": run_tests(out), "parity": []}
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = scratch  # every plan is built here and now
        some = any(not contender.missing for contender in everyone)
        paper = synthetic_bundle(Path(scratch), **PAPER) if some else None  # it takes a while
        for path in sorted(models.glob(f"*/{SPEC}")):
            report["parity"] += parity(path.parent.name, Bundle.open(path.parent), tiles, everyone)
        report["parity"] += parity(PAPER_NAME, paper, min(tiles, PAPER_TILES), everyone)
        pairs = [speed(PAPER_NAME, paper, seconds, contender) for contender in everyone]
    report["tiles_per_s"], report["latency"] = map(list, zip(*pairs))
    report["products_tflops"] = None if missing_for_torch() else product_rate(seconds)
    return {**report, "goals": goals(report)}


def markdown(report: Mapping[str, Any]) -> str:
    """The report as tables."""
    gpus = "; ".join(report["machine"]["gpus"]) or "no GPU"
    lines = [f"Measured by `scripts/gpu-check` on: {gpus}.", ""]
    lines += [f"Tests that need a GPU: {_cell(report['tests'])}.", ""]
    for section, columns in SECTIONS.items():
        lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        for row in report[section]:
            why = next((f"{_words(key)}: {row[key]}" for key in ("not_available", "failed") if key in row), "")
            cells = [_cell(row.get(column, "")) for column in columns]
            if why:
                cells[next((i for i, cell in enumerate(cells) if not cell), -1)] = _cell(why)
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if value < 1 or value >= 100 else f"{value:.2f}"
    if isinstance(value, dict):
        return ", ".join(f"{_words(key)} {item}" for key, item in value.items())
    return " ".join(str(value).replace("|", "/").split())


def _words(name: str) -> str:
    return name.replace("_", " ")


def failures(report: Mapping[str, Any]) -> int:
    """How many rows failed."""
    rows = [report["tests"], *(row for section in SECTIONS for row in report[section])]
    return sum("failed" in row for row in rows)


def main(arguments: list[str] | None = None) -> int:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("."), help="where the report goes")
    parser.add_argument("--models", type=Path, default=ROOT / "models", help="directory of bundles")
    parser.add_argument("--tiles", type=int, default=1000, help="of the parity of each bundle")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure")
    options = parser.parse_args(arguments)
    if options.tiles < 1 or not options.seconds > 0 or not options.out.is_dir():
        parser.error("--tiles and --seconds must be positive, and --out a directory that is there")
    report = measured(options.models, options.tiles, options.seconds, options.out)
    (options.out / "gpu-report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    text = markdown(report)
    (options.out / "gpu-report.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 1 if failures(report) else 0


if __name__ == "__main__":
    sys.exit(main())
