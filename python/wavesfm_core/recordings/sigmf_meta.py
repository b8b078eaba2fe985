# SPDX-License-Identifier: GPL-3.0-or-later
"""SigMF metadata, from files and archives, read and validated by the `sigmf` library."""

from __future__ import annotations

import json
import math
import tarfile
import warnings
from pathlib import Path
from typing import IO, Any, BinaryIO, NamedTuple, cast

from ..errors import ConfigurationError, InputError
from ..packages import install_command

META, DATA, ARCHIVE = ".sigmf-meta", ".sigmf-data", ".sigmf"
META_LIMIT = 64 << 20
"""Bytes of metadata, and of one header of an archive."""
_WHOLE = ("core:sample_start", "core:header_bytes", "core:offset", "core:trailing_bytes", "core:num_channels")
MEMBERS_LIMIT = 10_000
"""Members of an archive that are looked at."""


class ArchiveMember(NamedTuple):
    """Where the samples of an archived recording lie in the archive."""

    name: str
    first_byte: int
    n_bytes: int


def meta_path_of(path: Path) -> Path | None:
    """The metadata file that `path` means: itself, beside its data, or with .sigmf-meta added; else None."""
    if path.name.endswith(META):
        return path
    if path.name.endswith(DATA):
        return path.with_name(path.name.removesuffix(DATA) + META)
    beside = path.with_name(path.name + META) if path.name else path
    return beside if not path.exists() and beside.is_file() else None


def is_archive(path: Path) -> bool:
    """Whether the name is that of a SigMF archive."""
    return path.name.endswith(ARCHIVE)


def load_meta(path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Read and validate a .sigmf-meta file: the metadata, its annotations in order, and notes.

    Raises InputError naming the field, ConfigurationError where the library is missing.
    """
    try:
        if path.stat().st_size > META_LIMIT:
            raise InputError(path, "size", f"{path.stat().st_size} bytes", f"at most {META_LIMIT} bytes")
        text = path.read_bytes()
    except FileNotFoundError:
        raise InputError(path, "file", "nothing", "SigMF metadata") from None
    except OSError as error:
        raise InputError(path, "file", error.strerror, "SigMF metadata") from None
    return parse_meta(text, path)


def parse_meta(text: bytes, where: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`load_meta` of the bytes of a file."""
    notes = []
    if text.startswith(b"\xef\xbb\xbf"):
        notes.append("the metadata begins with a byte order mark, which JSON does not allow: left out")
    try:
        meta = json.loads(text.decode("utf-8-sig"), parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise InputError(where, "contents", f"no JSON ({error})"[:200], "SigMF metadata") from None
    if _sort_annotations(meta):
        notes.append("the annotations are not in order: sorted")
    validate_meta(meta, where)
    _make_whole(meta["global"])
    for capture in meta["captures"]:
        _make_whole(capture)
    return meta, tuple(notes)


def _make_whole(fields: dict[str, Any]) -> None:
    """Integers in place of numbers such as 4096.0, which the schema takes for integers too."""
    for name in _WHOLE:
        if isinstance(fields.get(name), float):
            fields[name] = int(fields[name])


def read_archive(path: Path) -> tuple[dict[str, Any], ArchiveMember, tuple[str, ...]]:
    """Metadata and place of the samples of the first recording in a SigMF archive (an uncompressed tar), and notes.

    Nothing is extracted. Raises InputError for an archive that is damaged or holds no recording.
    """
    try:
        with path.open("rb") as file, tarfile.open(fileobj=cast(IO[bytes], _Bounded(file)), mode="r:") as archive:
            members: list[tarfile.TarInfo] = []
            while len(members) < MEMBERS_LIMIT and (member := archive.next()) is not None:
                members.append(member)
            metas = [member for member in members if member.isreg() and member.name.endswith(META)]
            if not metas:
                raise InputError(path, "archive", f"{len(members)} members", f"one named *{META}")
            if metas[0].size > META_LIMIT:
                raise InputError(path, metas[0].name, f"{metas[0].size} bytes", f"at most {META_LIMIT} bytes")
            extracted = archive.extractfile(metas[0])
            text = b"" if extracted is None else extracted.read()
            size = file.seek(0, 2)
    except (tarfile.TarError, OSError, ValueError, OverflowError, EOFError) as error:
        raise InputError(path, "archive", f"no tar ({error})"[:200], "a SigMF archive, not compressed") from None
    meta, notes = parse_meta(text, path)
    if len(metas) > 1:
        notes = (*notes, f"the archive holds {len(metas)} recordings: {metas[0].name} is read")
    return meta, _data_member(path, meta, metas[0].name, members, size), notes


def _data_member(
    path: Path, meta: dict[str, Any], meta_name: str, members: list[tarfile.TarInfo], size: int
) -> ArchiveMember:
    folder = meta_name.rpartition("/")[0]
    named = meta["global"].get("core:dataset")
    names = {meta_name.removesuffix(META) + DATA, *([f"{folder}/{named}".lstrip("/")] if named else [])}
    for member in members:
        if member.name in names and member.isreg() and not member.issparse():
            if member.offset_data + member.size > size:
                found = f"{member.size} bytes at {member.offset_data}"
                raise InputError(path, member.name, found, f"samples within the {size} bytes of the archive")
            return ArchiveMember(member.name, member.offset_data, member.size)
    raise InputError(path, "archive", f"no samples for {meta_name}", f"a member {meta_name.removesuffix(META) + DATA}")


class _Bounded:
    """A file of which no single read is larger than META_LIMIT, as an archive's headers might ask for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell
        self.name = None

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= META_LIMIT:
            raise ValueError(f"a header of {size} bytes")
        return self._file.read(size)


def _sort_annotations(meta: Any) -> bool:
    """Sort a metadata's annotations in place where they can be; True when they were out of order."""
    annotations = meta.get("annotations") if isinstance(meta, dict) else None
    if not isinstance(annotations, list) or not all(isinstance(each, dict) for each in annotations):
        return False
    starts = [each.get("core:sample_start") for each in annotations]
    if not all(isinstance(start, int) for start in starts) or starts == sorted(starts):
        return False
    annotations.sort(key=lambda each: each["core:sample_start"])
    return True


def validate_meta(meta: Any, path: Path) -> None:
    """Raise InputError, naming the field, unless the metadata follows the SigMF schema."""
    try:
        import sigmf.validate
    except ImportError as error:
        raise ConfigurationError(path, "library sigmf", error, install_command("sigmf")) from error
    for section, kind in (("global", dict), ("captures", list), ("annotations", list)):
        if not isinstance(meta, dict) or not isinstance(meta.get(section), kind):
            expected = "SigMF metadata has global, captures and annotations"
            raise InputError(path, section, "nothing of the kind", expected)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # undeclared extensions: no fault of the reader
            sigmf.validate.validate(meta)
    except Exception as error:  # jsonschema's ValidationError, without importing jsonschema for its name
        location = ".".join(map(str, getattr(error, "absolute_path", ()))) or "metadata"
        found = str(getattr(error, "message", error)).splitlines()[0][:200]
        raise InputError(path, location, found, "metadata as the SigMF schema has it") from None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no finite number")
    return value
