# SPDX-License-Identifier: GPL-3.0-or-later
"""Predictions as SigMF annotations beside a recording: merged, sorted once, and written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..atomic_file import write_atomically
from ..errors import ConfigurationError, InputError
from ..types import NOISE, Prediction
from .iqfile import SIGMF_DATATYPES, Recording
from .sigmf_meta import META, load_meta, validate_meta


def annotate(recording: Recording, predictions: Iterable[Prediction], path: Path | None = None) -> Path:
    """Add one annotation for each run of equal labels to the recording's SigMF metadata; returns the metadata's path.

    Tiles of noise are left out. All fields and annotations that were there stay, but those that the same bundle left in
    an earlier run, which are replaced. A raw recording gets metadata of its own beside it, with core:dataset naming it.
    path: where the metadata goes instead; what is there is replaced, and beside the recording nothing changes. SigMF
    wants the samples, or a link to them, in the same directory.
    Raises InputError where metadata there is wrong or of another recording, ConfigurationError where it cannot be
    written.
    """
    path, meta = _metadata(recording, path)
    fresh = [_annotation(run) for run in _runs(predictions)]
    ours = {annotation["core:generator"] for annotation in fresh}
    kept = [annotation for annotation in meta["annotations"] if annotation.get("core:generator") not in ours]
    meta["annotations"] = sorted(kept + fresh, key=lambda annotation: annotation["core:sample_start"])
    validate_meta(meta, path)
    text = json.dumps(meta, indent=4, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        write_atomically(path, text, follow_links=True)
    except OSError as error:
        raise ConfigurationError(path, "file", error.strerror or error, "a place that can be written") from error
    return path


def _metadata(recording: Recording, path: Path | None) -> tuple[Path, dict[str, Any]]:
    if recording.meta_path is not None:
        return path or recording.meta_path, load_meta(recording.meta_path)
    beside = recording.path.with_name(recording.path.stem + META)
    elsewhere = path is not None and path.resolve() != beside.resolve()
    if not elsewhere and beside.exists():
        meta = load_meta(beside)
        dataset = meta["global"].get("core:dataset")
        if dataset != recording.path.name:
            raise InputError(beside, "core:dataset", repr(dataset) if dataset else "nothing", repr(recording.path.name))
        return beside, meta
    return path or beside, _new_metadata(recording)


def _new_metadata(recording: Recording) -> dict[str, Any]:
    import sigmf

    datatype = next(name for name, told in SIGMF_DATATYPES.items() if told == recording.sample_format)
    fields: dict[str, Any] = {"core:datatype": datatype, "core:version": sigmf.__specification__}
    fields["core:dataset"] = recording.path.name
    if recording.rate_hz > 0:
        fields["core:sample_rate"] = recording.rate_hz
    capture: dict[str, Any] = {"core:sample_start": 0}
    if recording.centre_hz is not None:
        capture["core:frequency"] = recording.centre_hz
    return {"global": fields, "captures": [capture], "annotations": []}


def _runs(predictions: Iterable[Prediction]) -> list[list[Prediction]]:
    """Predictions without a gap between them, of one label, rate and centre frequency; noise is left out."""
    runs: list[list[Prediction]] = []
    for prediction in predictions:
        if prediction.label == NOISE:
            continue
        last = runs[-1][-1] if runs else None
        if last is not None and _continues(last, prediction):
            runs[-1].append(prediction)
        else:
            runs.append([prediction])
    return runs


def _continues(last: Prediction, this: Prediction) -> bool:
    alike = (last.label, last.rate_hz, last.centre_hz) == (this.label, this.rate_hz, this.centre_hz)
    # overlapping frames make a tile a little longer than the way to the next
    return alike and this.start_sample <= last.start_sample + last.n_samples


def _annotation(run: list[Prediction]) -> dict[str, Any]:
    first, last = run[0], run[-1]
    mean = sum(prediction.confidence or 0.0 for prediction in run) / len(run)
    tiles = "1 tile" if len(run) == 1 else f"{len(run)} tiles"
    annotation: dict[str, Any] = {
        "core:sample_start": first.start_sample,
        "core:sample_count": last.start_sample + last.n_samples - first.start_sample,
        "core:label": first.label,
        "core:comment": f"confidence {mean:.3f}, mean of {tiles}",
        "core:generator": f"wavesfm {first.bundle_id}",
    }
    if first.centre_hz is not None and first.rate_hz > 0:
        annotation["core:freq_lower_edge"] = first.centre_hz - first.rate_hz / 2
        annotation["core:freq_upper_edge"] = first.centre_hz + first.rate_hz / 2
    return annotation
