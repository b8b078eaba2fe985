# SPDX-License-Identifier: GPL-3.0-or-later
"""New SigMF recordings: as two files that are written whole or not at all, or as one archive in memory."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..atomic_file import atomic_path, write_atomically
from ..errors import ConfigurationError
from ..types import StreamTime
from .sample_formats import FORMATS, RawBytes
from .sigmf_meta import DATA, META

SPECIFICATION = "1.2.0"
"""Version of SigMF that the metadata follow."""


@dataclass(frozen=True)
class Capture:
    """Frequency and time from a sample of a recording on."""

    start_sample: int
    """From 0."""
    centre_hz: float | None = None
    """None when unknown."""
    time: StreamTime | None = None
    """None when unknown."""

    def as_dict(self) -> dict[str, Any]:
        """As SigMF has it."""
        fields: dict[str, Any] = {"core:sample_start": self.start_sample}
        if self.centre_hz is not None:
            fields["core:frequency"] = self.centre_hz
        if self.time is not None and (text := self.time.as_dict()["utc"]) is not None:
            fields["core:datetime"] = text
        return fields


@dataclass(frozen=True)
class NewRecording:
    """Samples and metadata of a recording that is to be written."""

    raw: Sequence[RawBytes]
    """uint8 arrays, in order."""
    sample_format: str
    """A name of FORMATS that SigMF has too."""
    rate_hz: float
    """Sample rate in Hz."""
    captures: Sequence[Capture]
    """At least one, in order, the first at sample 0."""
    annotations: Sequence[Mapping[str, Any]] = ()
    """As SigMF has them, in any order."""
    description: str = ""
    """One sentence."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further global fields, such as core:hw."""

    def metadata(self, digest: str | None = None) -> str:
        """The text of the metadata file; digest: SHA-512 of the samples."""
        fields: dict[str, Any] = {
            "core:datatype": FORMATS[self.sample_format].sigmf_datatype,
            "core:version": SPECIFICATION,
            "core:sample_rate": self.rate_hz,
            "core:recorder": "gr-wavesfm",
            **({"core:description": self.description} if self.description else {}),
            **({"core:sha512": digest} if digest else {}),
            **self.extra,
        }
        annotations = sorted((dict(each) for each in self.annotations), key=lambda each: each["core:sample_start"])
        captures = [capture.as_dict() for capture in self.captures]
        meta = {"global": fields, "captures": captures, "annotations": annotations}
        return json.dumps(meta, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def write(self, base: Path) -> Path:
        """Write BASE.sigmf-data and then BASE.sigmf-meta; returns the path of the metadata.

        Where the metadata cannot be written the samples are removed again. Raises ConfigurationError.
        """
        data, meta = base.with_name(base.name + DATA), base.with_name(base.name + META)
        digest = hashlib.sha512()
        try:
            with atomic_path(data) as scratch, scratch.open("wb") as file:
                for raw in self.raw:
                    view = memoryview(raw).cast("B")
                    digest.update(view)
                    file.write(view)
        except OSError as error:
            raise ConfigurationError(data, "file", error.strerror or error, "a place that can be written") from error
        try:
            write_atomically(meta, self.metadata(digest.hexdigest()))
        except OSError as error:
            data.unlink(missing_ok=True)
            raise ConfigurationError(meta, "file", error.strerror or error, "a place that can be written") from error
        return meta

    def archive(self, name: str) -> bytes:
        """A SigMF archive (an uncompressed tar) of the recording NAME."""
        samples = b"".join(memoryview(raw).cast("B") for raw in self.raw)
        meta = self.metadata(hashlib.sha512(samples).hexdigest()).encode()
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for suffix, contents in ((META, meta), (DATA, samples)):
                member = tarfile.TarInfo(f"{name}/{name}{suffix}")
                member.size = len(contents)
                archive.addfile(member, io.BytesIO(contents))
        return target.getvalue()


def box_annotation(
    start_sample: int,
    n_samples: int,
    edges_hz: tuple[float, float] | None,
    label: str,
    comment: str = "",
    generator: str = "wavesfm",
) -> dict[str, Any]:
    """One annotation of a box: from a sample on, between two frequencies, as SigMF has it."""
    annotation: dict[str, Any] = {"core:sample_start": start_sample, "core:sample_count": n_samples}
    if edges_hz is not None:
        annotation["core:freq_lower_edge"], annotation["core:freq_upper_edge"] = edges_hz
    if label:
        annotation["core:label"] = label
    if comment:
        annotation["core:comment"] = comment
    return {**annotation, "core:generator": generator}
