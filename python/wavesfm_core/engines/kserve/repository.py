# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle as a model repository of NVIDIA Triton; OpenVINO Model Server reads the same folders."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from ...atomic_file import write_atomically
from ...bundle.bundle import Bundle
from ...bundle.spec import TensorSpec
from ...errors import ConfigurationError

CONFIG, LABELS, MODEL = "config.pbtxt", "labels.txt", "model.onnx"
INSTANCE_KINDS = {"auto": "KIND_AUTO", "cpu": "KIND_CPU", "gpu": "KIND_GPU"}


@dataclass(frozen=True)
class RepositoryOptions:
    """How Triton runs a model.

    Raises
    ------
    ConfigurationError
        A value out of range.
    """

    name: str = ""
    """Name of the model on the server; "" for the bundle's."""
    version: int = 1
    """Number of the version's folder."""
    max_batch: int = 64
    """Most tiles that Triton gives the model at once."""
    queue_delay_us: int = 2000
    """Microseconds for which Triton waits for further requests to fill a batch."""
    device: str = "auto"
    """Where Triton runs the model: one of INSTANCE_KINDS."""

    def __post_init__(self) -> None:
        rules = {
            "name": (bool(re.fullmatch(r"[A-Za-z0-9._-]{0,255}", self.name)), "letters, digits, '.', '_' and '-'"),
            "version": (1 <= self.version < 1 << 31, "1 or more"),
            "max_batch": (1 <= self.max_batch <= 4096, "1 to 4096"),
            "queue_delay_us": (0 <= self.queue_delay_us <= 10_000_000, "0 to 10000000"),
            "device": (self.device in INSTANCE_KINDS, "one of " + ", ".join(INSTANCE_KINDS)),
        }
        for field, (holds, expected) in rules.items():
            if not holds:
                raise ConfigurationError("repository", field, repr(getattr(self, field)), expected)


def export_repository(bundle: Bundle, directory: str | Path, options: RepositoryOptions | None = None) -> Path:
    """Write DIRECTORY/NAME with config.pbtxt, labels.txt and VERSION/model.onnx.

    A version appears whole or not at all, so that a server that polls the directory never reads a part.

    Parameters
    ----------
    bundle : Bundle
        Model to serve.
    directory : str or Path
        Repository; made if it does not exist.
    options : RepositoryOptions, optional
        Name, version and batches.

    Returns
    -------
    Path
        Folder of the model.

    Raises
    ------
    ConfigurationError
        The version exists, or the directory cannot be written.
    BundleError
        The ONNX file is not the one of the bundle.
    """
    options = options or RepositoryOptions()
    bundle.require_model()
    name = options.name or re.sub(r"[^A-Za-z0-9._-]", "_", bundle.spec.name)
    folder = Path(directory) / name
    version = folder / str(options.version)
    if version.exists():
        raise ConfigurationError(version, "version", "a folder that exists", "another version, or no such folder")
    scratch = folder / f".{options.version}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        write_atomically(scratch / MODEL, bundle.model_path.read_bytes())
        if bundle.spec.head.labels:
            write_atomically(folder / LABELS, "".join(f"{label}\n" for label in bundle.spec.head.labels))
        write_atomically(folder / CONFIG, triton_config(bundle, name, options))
        os.replace(scratch, version)
    except OSError as error:
        raise ConfigurationError(folder, "repository", error.strerror or error, "a folder to write to") from error
    return folder


def triton_config(bundle: Bundle, name: str, options: RepositoryOptions) -> str:
    """The text of config.pbtxt for a model of this name on the server."""
    spec = bundle.spec
    labelled = spec.outputs[0].name if spec.head.labels else ""
    inputs = ",\n".join(_tensor(tensor) for tensor in spec.inputs)
    outputs = ",\n".join(_tensor(tensor, LABELS if tensor.name == labelled else "") for tensor in spec.outputs)
    return f"""\
name: {_quoted(name)}
backend: "onnxruntime"
max_batch_size: {options.max_batch}
input [
{inputs}
]
output [
{outputs}
]
dynamic_batching {{ max_queue_delay_microseconds: {options.queue_delay_us} }}
instance_group [ {{ kind: {INSTANCE_KINDS[options.device]} }} ]
parameters {{ key: "wavesfm_bundle" value: {{ string_value: {_quoted(bundle.id)} }} }}
parameters {{ key: "wavesfm_sha256" value: {{ string_value: {_quoted(spec.sha256)} }} }}
"""


def _tensor(tensor: TensorSpec, labels: str = "") -> str:
    dims = ", ".join(map(str, tensor.shape[1:]))
    extra = f" label_filename: {_quoted(labels)}" if labels else ""
    return f"  {{ name: {_quoted(tensor.name)} data_type: TYPE_FP32 dims: [ {dims} ]{extra} }}"


def _quoted(text: str) -> str:
    """A string of protobuf's text format; bytes other than printable ASCII as octal escapes."""
    plain = (chr(b) if 32 <= b < 127 and b not in b'"\\' else f"\\{b:03o}" for b in text.encode())
    return '"' + "".join(plain) + '"'
