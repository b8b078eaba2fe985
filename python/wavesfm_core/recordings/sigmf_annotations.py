# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings as SigMF annotations beside a recording: merged, sorted once, and written whole or not at all."""

from __future__ import annotations

import contextlib
import copy
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..atomic_file import write_atomically
from ..errors import ConfigurationError, InputError
from ..types import NOISE
from .findings import Finding
from .recording import Recording
from .sigmf_meta import DATA, META, load_meta, validate_meta

BOX_SHARE = 0.8
"""Share of the band that the box of a finding covers when nothing tells its edges: viewers write a label above a box,
which must end within the band."""


def annotate(recording: Recording, findings: Iterable[Finding], path: Path | None = None) -> Path:
    """Add one annotation for each finding but noise to the recording's SigMF metadata; returns its path.

    All fields and annotations that were present stay, but those that the same bundle left in an earlier run, which are
    replaced. A recording without metadata gets some beside it. A link is followed and stays, a file keeps its mode.

    Parameters
    ----------
    recording : Recording
        The one that was classified.
    findings : iterable of Finding
        In any order.
    path : Path, optional
        Where the metadata goes instead; what is there is replaced, and beside the recording nothing changes. SigMF
        wants the samples, or a link to them, in the same directory.

    Raises
    ------
    InputError
        Metadata there is wrong or of another recording.
    ConfigurationError
        The metadata cannot be written.
    """
    findings = list(findings)
    path, meta = _metadata(recording, path)
    fresh = [_annotation(recording, finding) for finding in findings if finding.label != NOISE]
    generators = {_generator(finding) for finding in findings}
    kept = [annotation for annotation in meta["annotations"] if annotation.get("core:generator") not in generators]
    meta["annotations"] = sorted(kept + fresh, key=lambda annotation: annotation["core:sample_start"])
    validate_meta(meta, path)
    _link_samples(recording, path, meta["global"].get("core:dataset"))
    text = json.dumps(meta, indent=4, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        write_atomically(path, text, follow_links=True)
    except OSError as error:
        raise ConfigurationError(path, "file", error.strerror or error, "a place that can be written") from error
    return path


def annotation_path(recording: Recording, folder: Path | None) -> Path | None:
    """Where `annotate` is to write in a folder; None, its default, for no folder."""
    return None if folder is None else folder / (recording.meta_path or recording.path.with_suffix(META)).name


def _metadata(recording: Recording, path: Path | None) -> tuple[Path, dict[str, Any]]:
    if recording.meta_path is not None:
        return path or recording.meta_path, load_meta(recording.meta_path)[0]
    beside = recording.path.with_name(recording.path.stem + META)
    elsewhere = path is not None and path.resolve() != beside.resolve()
    if not elsewhere and beside.exists():
        meta, _ = load_meta(beside)
        dataset = meta["global"].get("core:dataset")
        if dataset != recording.path.name:
            raise InputError(beside, "core:dataset", repr(dataset) if dataset else "nothing", repr(recording.path.name))
        return beside, meta
    return path or beside, _new_metadata(recording)


def _new_metadata(recording: Recording) -> dict[str, Any]:
    """Metadata of a raw file, of one with a header, or of an archive: their samples lie between other bytes."""
    import sigmf

    datatype = recording.format.sigmf_datatype
    if datatype is None:
        found = f"samples of {recording.format.bits} bits"
        raise InputError(recording.path, "format", found, "8, 16, 32 or 64 bits, which SigMF has")
    frames = recording.format.sample_bytes * recording.n_channels
    extents = recording.extents
    trailing = recording.path.stat().st_size - extents[-1].first_byte
    trailing -= (recording.n_samples - extents[-1].start_sample) * frames
    meta = copy.deepcopy(recording.metadata) or {
        "global": {},
        "captures": [_first_capture(recording)],
        "annotations": [],
    }
    fields = {"core:datatype": datatype, "core:version": sigmf.__specification__, **meta["global"]}
    fields["core:dataset"] = recording.path.name
    if trailing:
        fields["core:trailing_bytes"] = trailing
    if recording.rate_hz > 0:
        fields.setdefault("core:sample_rate", recording.rate_hz * recording.format.stored_per_sample)
    if extents[0].first_byte:
        if not meta["captures"] or meta["captures"][0]["core:sample_start"] > fields.get("core:offset", 0):
            meta["captures"].insert(0, {"core:sample_start": fields.get("core:offset", 0)})
        meta["captures"][0]["core:header_bytes"] = extents[0].first_byte
    return {**meta, "global": fields}


def _first_capture(recording: Recording) -> dict[str, Any]:
    capture: dict[str, Any] = {"core:sample_start": 0}
    if recording.centre_hz is not None:
        # of real samples the frequency of their 0 Hz
        quarter = 0.0 if recording.format.is_complex else recording.rate_hz / 2
        capture["core:frequency"] = recording.centre_hz - quarter
    if recording.time is not None:
        capture["core:datetime"] = recording.time.as_dict()["utc"]
    return capture


def _link_samples(recording: Recording, path: Path, dataset: str | None) -> None:
    """Links to the samples beside the metadata at `path`, under the names that readers and viewers look for.

    Viewers know NAME.sigmf-data only, and samples from the first byte on; core:dataset says another name to the others.
    """
    viewed = path.name.removesuffix(META) + DATA
    _link(recording.path, path.with_name(dataset or viewed))
    if dataset and not recording.extents[0].first_byte and not path.with_name(viewed).exists():
        with contextlib.suppress(ConfigurationError):
            _link(recording.path, path.with_name(viewed))


def _link(samples: Path, link: Path) -> None:
    """Make a link to the samples, where they do not lie there; raises ConfigurationError where another file does."""
    try:
        if link.exists() and link.samefile(samples):
            return
        if link.exists() and not link.is_symlink():
            raise ConfigurationError(link, "file", "another recording", "another --output, or that one moved away")
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(os.path.realpath(samples), os.path.realpath(link.parent)))
    except OSError as error:
        expected = "a directory in which a link to the samples can be made"
        raise ConfigurationError(link, "link", error.strerror or error, expected) from None


def _annotation(recording: Recording, finding: Finding) -> dict[str, Any]:
    stored = recording.format.stored_per_sample
    offset = (recording.metadata or {}).get("global", {}).get("core:offset", 0)
    tiles = "1 tile" if finding.tiles == 1 else f"{finding.tiles} tiles"
    confidence = "" if finding.confidence is None else f"confidence {finding.confidence:.3f}, mean of "
    detected = "" if finding.snr_db is None else f"; {finding.snr_db:.1f} dB over noise, bursts: {finding.n_bursts}"
    annotation: dict[str, Any] = {
        "core:sample_start": offset + finding.start_sample * stored,
        "core:sample_count": finding.n_samples * stored,
        "core:label": finding.label,
        "core:comment": confidence
        + tiles
        + detected
        + (f"; sample rate {finding.rate_note}" if finding.rate_note else ""),
        "core:generator": _generator(finding),
    }
    edges = finding.edges_hz(BOX_SHARE)
    if edges is not None:
        annotation["core:freq_lower_edge"], annotation["core:freq_upper_edge"] = edges
    return annotation


def _generator(finding: Finding) -> str:
    return f"wavesfm {finding.bundle_id}"
