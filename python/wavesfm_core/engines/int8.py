# SPDX-License-Identifier: GPL-3.0-or-later
"""Models with products in int8 for the CPU: made once by calibration, kept in the cache, checked when opened."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..atomic_file import write_atomically
from ..errors import EngineError
from ..packages import install_command
from ..preprocess.golden_inputs import golden_inputs
from ..types import Tensor
from .base import Engine
from .tensorrt.plan_cache import default_directory, read_own
from .tensorrt.precisions import RELATIVE_TOLERANCES

if TYPE_CHECKING:
    from ..bundle.bundle import Bundle

TOLERANCE = RELATIVE_TOLERANCES["int8"]
"""Allowed difference from float32 as a share of the largest output."""
CHANGED_LIMIT = 0.02
"""Allowed share of tiles whose most probable label changes."""
PRODUCTS = ("MatMul", "Gemm", "Conv")
"""Operators that are quantised, where they multiply by weights."""
MODEL_LIMIT, RECORD_LIMIT = 1 << 31, 1 << 16


@dataclass(frozen=True)
class Int8Record:
    """What a quantised model was made of, and how far it is from float32."""

    model: str
    """sha256 of the bundle's ONNX file."""
    sha256: str
    """sha256 of the quantised one."""
    calibrated: int
    """Tiles from which the ranges come."""
    checked: int
    """Tiles on which it was compared: the golden tiles, and those of a calibration set that gave no ranges."""
    difference: float
    """Largest difference of the first output from float32, as a share of its largest value."""
    changed: float
    """Share of the checked tiles whose largest output is another one; 0 for other tasks than classification."""


def model_path(bundle: Bundle) -> Path:
    """Where the cache holds the bundle's model in int8."""
    return default_directory() / "int8" / f"{bundle.spec.sha256}.onnx"


def quantise(bundle: Bundle, inputs: Mapping[str, Tensor] | None = None) -> tuple[bytes, int, dict[str, Tensor]]:
    """The model with products in int8 and all else in float32, by onnxruntime's static quantisation.

    Parameters
    ----------
    bundle : Bundle
        Model in float32.
    inputs : Mapping of str to ndarray, optional
        Calibration tiles as the model takes them, float32 [n, ...], 2 or more. Every second one gives ranges, the
        others are for the check. The golden tiles are for both.

    Returns
    -------
    model : bytes
        The ONNX file, with QuantizeLinear and DequantizeLinear.
    calibrated : int
        Tiles that gave ranges.
    check : dict of str to ndarray
        Inputs for the check.

    Raises
    ------
    EngineError
        onnxruntime or onnx is missing, or the model cannot be quantised.
    """
    bundle.require_model()
    try:
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        expected = install_command("onnxruntime", "onnx")
        raise EngineError("int8", "runtime", error, expected) from error
    ranges = check = golden_inputs(bundle.spec, bundle.golden())
    if inputs is not None:
        if (given := len(next(iter(inputs.values())))) < 2:
            raise EngineError(bundle.path, "int8 calibration", f"{given} tile", "2 or more: for ranges and to check")
        check = {name: np.concatenate([array, inputs[name][1::2]]) for name, array in ranges.items()}
        ranges = {name: np.concatenate([array, inputs[name][::2]]) for name, array in ranges.items()}
    count = len(next(iter(ranges.values())))
    with tempfile.TemporaryDirectory() as folder:
        plain, made = Path(folder, "plain.onnx"), Path(folder, "int8.onnx")
        try:
            quant_pre_process(str(bundle.model_path), str(plain), skip_symbolic_shape=True)
            quantization.quantize_static(
                str(plain),
                str(made),
                _reader(quantization.CalibrationDataReader, ranges),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=list(PRODUCTS),
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True},  # products of two activations, those of attention, stay
            )
        except Exception as error:  # these tools raise anything
            raise EngineError(bundle.model_path, "int8", f"{error}"[:300], "a model to quantise") from error
        return made.read_bytes(), count, check


def _reader(base: type[Any], inputs: Mapping[str, Tensor]) -> Any:
    """The tiles one by one, as onnxruntime's calibration asks for them."""

    class Reader(base):  # type: ignore[misc]
        def __init__(self) -> None:
            count = len(next(iter(inputs.values())))
            self._left: Iterator[dict[str, Tensor]] = iter(
                {name: array[i : i + 1] for name, array in inputs.items()} for i in range(count)
            )

        def get_next(self) -> dict[str, Tensor] | None:
            return next(self._left, None)

    return Reader()


def compile_int8(
    bundle: Bundle, open_cpu: Callable[[Bundle], Engine], inputs: Mapping[str, Tensor] | None = None
) -> Int8Record:
    """Quantise the bundle's model, compare it with float32, and keep it in the cache if it is near enough.

    Parameters
    ----------
    bundle : Bundle
        Model in float32.
    open_cpu : callable
        Opens a bundle's ONNX file on the CPU in float32, whatever is in it.
    inputs : Mapping of str to ndarray, optional
        See `quantise`.

    Returns
    -------
    Int8Record
        The model's difference from float32.

    Raises
    ------
    EngineError
        See `quantise`; or the loss of accuracy is over TOLERANCE or CHANGED_LIMIT.
    """
    model, calibrated, check = quantise(bundle, inputs)
    target = model_path(bundle)
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.NamedTemporaryFile(dir=target.parent, suffix=".onnx") as scratch:
        scratch.write(model)
        scratch.flush()
        exact = _outputs(open_cpu(bundle), check)
        outputs = _outputs(open_cpu(dataclasses.replace(bundle, model_path=Path(scratch.name))), check)
    name = bundle.spec.outputs[0].name
    difference, changed = _loss(exact[name], outputs[name], bundle.spec.head.task == "classification")
    record = Int8Record(
        bundle.spec.sha256, hashlib.sha256(model).hexdigest(), calibrated, len(exact[name]), difference, changed
    )
    if difference > TOLERANCE or changed > CHANGED_LIMIT:
        found = f"outputs {difference:.1%} off, {changed:.1%} of {record.checked} labels changed"
        expected = f"at most {TOLERANCE:.0%} and {CHANGED_LIMIT:.0%}; more calibration tiles may help"
        raise EngineError(bundle.path, "int8 accuracy", found, expected)
    write_atomically(target, model, mode=0o600)
    write_atomically(_record_path(target), json.dumps(dataclasses.asdict(record), indent=1) + "\n", mode=0o600)
    return record


def open_int8(bundle: Bundle, open_cpu: Callable[[Bundle], Engine]) -> Engine:
    """Open the bundle's model in int8 from the cache.

    Parameters
    ----------
    bundle : Bundle
        Model in float32.
    open_cpu : callable
        Opens a bundle's ONNX file on the CPU in float32, whatever is in it.

    Returns
    -------
    Engine
        Its `relative_tolerance` is TOLERANCE.

    Raises
    ------
    EngineError
        There is none in the cache, or it was changed.
    """
    path = model_path(bundle)
    try:
        record = Int8Record(**json.loads(read_own(_record_path(path), RECORD_LIMIT)))
        right = (record.model, record.sha256) == (
            bundle.spec.sha256,
            hashlib.sha256(read_own(path, MODEL_LIMIT)).hexdigest(),
        )
    except FileNotFoundError:
        expected = f"wavesfm compile {bundle.path} --precision int8 --device cpu, once"
        raise EngineError("engine", "precision int8", "no such model in the cache", expected) from None
    except (OSError, ValueError, TypeError) as error:
        raise EngineError(path, "record", error, "a model that this program made") from error
    if not right:
        raise EngineError(path, "sha256", "another model", "the one that was checked")
    engine = open_cpu(dataclasses.replace(bundle, model_path=path))
    described: Any = engine
    described.relative_tolerance = TOLERANCE
    described.description = engine.description.replace(", f32,", ", int8,")
    return engine


def clear_int8() -> tuple[int, int]:
    """Remove all models in int8 from the cache; their number and their bytes."""
    models = list((default_directory() / "int8").glob("*.onnx"))
    n_bytes = sum(path.stat().st_size for path in models)
    for path in models:
        _record_path(path).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    return len(models), n_bytes


def _record_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _outputs(engine: Engine, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Outputs for all tiles, in small batches."""
    try:
        count = len(next(iter(inputs.values())))
        parts = [engine.run({k: v[i : i + 8] for k, v in inputs.items()}) for i in range(0, count, 8)]
    finally:
        engine.close()
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _loss(exact: Tensor, outputs: Tensor, labels: bool) -> tuple[float, float]:
    """Largest difference as a share of the largest output, and the share of tiles whose label changes."""
    if not np.isfinite(outputs).all():
        return float("inf"), 1.0
    difference = float(np.max(np.abs(outputs - exact)) / np.max(np.abs(exact)))
    return difference, float(np.mean(outputs.argmax(-1) != exact.argmax(-1))) if labels else 0.0
