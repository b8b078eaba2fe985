"""From a run to a bundle: ONNX with a dynamic batch and half-precision weights, refused unless it equals torch."""

from __future__ import annotations

import platform
from dataclasses import replace
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from wavesfm_core.bundle import README, Bundle, bundle_inputs, write_bundle
from wavesfm_core.errors import BundleError
from wavesfm_core.gate import PowerGate
from wavesfm_core.golden import Golden
from wavesfm_core.heads import ClassificationHead
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.preprocess import prepare
from wavesfm_core.spec import BundleSpec, HeadSpec, TensorSpec

from .evaluation import TorchEngine, Trained, load_run
from .model import ViT
from .signals import CLASSES
from .signals.dataset import SignalDataset

TOLERANCE = 2e-3  # logits are of order 10; both sides compute in float32
GOLDEN_SEED = 977
GOLDEN_TILES = 6
HALF_FROM = 1024  # elements; smaller tensors (biases, norms) stay in float32


def bundle_spec(trained: Trained, name: str) -> BundleSpec:
    """The contract of a trained classifier."""
    side = (trained.preprocess.height, trained.preprocess.width)
    views = [view for label in trained.labels for view in CLASSES[label].views]
    return BundleSpec(
        name=name,
        preprocess=trained.preprocess,
        inputs=(TensorSpec("tile", (-1, 1, *side), "tile"), TensorSpec("log10_rate", (-1, 1), "log10_rate")),
        outputs=(TensorSpec("logits", (-1, len(trained.labels))),),
        head=HeadSpec("classification", trained.labels),
        sha256="",
        tolerance=TOLERANCE,
        rates_hz=(min(view.low_hz for view in views), max(view.high_hz for view in views)),
        licence="GPL-3.0-or-later",
        training_data=f"wavesfm_trainer.signals, generated with seed {trained.config['seed']}; no recordings",
        versions={"torch": torch.__version__, "onnx": onnx.__version__, "python": platform.python_version()}
        | {"wavesfm-core": version("wavesfm-core")},
    )


def export_bundle(run: Path, directory: Path, name: str, training_data: str = "") -> Bundle:
    """Export a run; raises BundleError when ONNX differs from torch, or batch 1 from batch N, beyond the tolerance.

    A model card (README.md) that is already in the directory is kept; training_data: for bundle.json, by default from
    the run.
    """
    trained = load_run(run)
    halve_weights(trained.model)
    spec = bundle_spec(trained, name)
    if training_data:
        spec = replace(spec, training_data=training_data)
    card = directory / README
    readme = card.read_text(encoding="utf-8") if card.is_file() else f"# {name}\n\n{spec.training_data}\n"
    golden = make_golden(trained, spec)
    model = to_onnx(trained.model, spec)
    check_parity(model, spec, golden)
    return write_bundle(directory, spec, model, golden, readme)


def run_pipeline(run: Path) -> Pipeline:
    """A run behind the same pipeline as its bundle, with torch for the engine."""
    trained = load_run(run)
    spec = bundle_spec(trained, run.name)
    bundle = Bundle(run, spec, f"{run.name}@unexported", run / "model.safetensors")
    head = ClassificationHead(spec.head, bundle.id)
    return Pipeline(bundle, TorchEngine(trained.model), head, PowerGate(spec=spec.preprocess))


@torch.no_grad()
def halve_weights(model: ViT) -> None:
    """Round the large weights to float16 in place, so that torch holds exactly what the file will."""
    for parameter in model.parameters():
        if parameter.numel() >= HALF_FROM:
            parameter.copy_(parameter.half().float())


def to_onnx(model: ViT, spec: BundleSpec) -> bytes:
    """ONNX bytes: batch dynamic in 1..1024, float32 arithmetic, weights stored in float16 behind casts."""
    example = bundle_inputs(spec, np.zeros((2, *spec.inputs[0].shape[1:]), np.float32), [1e6, 2e6])
    batch = torch.export.Dim("batch", min=1, max=1024)
    names = [tensor.name for tensor in spec.inputs]
    program = torch.onnx.export(
        model.eval(),
        tuple(torch.from_numpy(example[name]) for name in names),
        dynamo=True,
        input_names=names,
        output_names=[tensor.name for tensor in spec.outputs],
        dynamic_shapes=tuple({0: batch} for _ in names),
        external_data=False,
        verbose=False,
    )
    buffer = BytesIO()
    onnx.save(_with_half_weights(program.model_proto), buffer)
    return buffer.getvalue()


def _with_half_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < HALF_FROM:
            continue
        values = onnx.numpy_helper.to_array(tensor)
        half = values.astype(np.float16)
        if not np.array_equal(half.astype(np.float32), values):
            continue  # fixed tables (positions) that were not rounded keep their precision
        original = tensor.name
        tensor.CopyFrom(onnx.numpy_helper.from_array(half, original + "_half"))
        casts.append(onnx.helper.make_node("Cast", [original + "_half"], [original], to=onnx.TensorProto.FLOAT))
    for position, node in enumerate(casts):
        graph.node.insert(position, node)
    del graph.value_info[:]
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]  # the exporter's stack traces, with paths of this machine
        part.doc_string = ""
    onnx.checker.check_model(model)
    return model


def make_golden(trained: Trained, spec: BundleSpec) -> Golden:
    """Short recordings of several classes, what they are prepared to, and torch's outputs for them."""
    pre = spec.preprocess
    dataset = SignalDataset(GOLDEN_SEED, pre.min_samples * 3, pre.min_samples, partial_share=1.0, snr_db=(10, 25))
    step = max(1, len(trained.labels) // GOLDEN_TILES)
    examples = [dataset[i * step] for i in range(GOLDEN_TILES)]
    tiles = tuple(prepare(example.iq, pre) for example in examples)
    rates = np.array([example.rate_hz for example in examples])
    outputs = TorchEngine(trained.model).run(bundle_inputs(spec, np.stack(tiles), rates))
    return Golden(tuple(example.iq for example in examples), rates, tiles, outputs)


def check_parity(model: bytes, spec: BundleSpec, golden: Golden) -> None:
    """Refuse a model whose outputs differ from torch's, or whose batch of N differs from N batches of 1."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    inputs = bundle_inputs(spec, np.stack(golden.tiles), golden.rate_hz)
    together = _run(session, inputs, spec)
    one_by_one = [
        _run(session, {name: value[i : i + 1] for name, value in inputs.items()}, spec)
        for i in range(len(golden.tiles))
    ]
    for name, values in together.items():
        _refuse(values, golden.outputs[name], f"{name} of ONNX against torch", spec.tolerance)
        single = np.concatenate([outputs[name] for outputs in one_by_one])
        _refuse(values, single, f"{name} of batch {len(values)} against batch 1", spec.tolerance)


def _run(session: onnxruntime.InferenceSession, inputs: dict[str, NDArray], spec: BundleSpec) -> dict[str, NDArray]:
    names = [tensor.name for tensor in spec.outputs]
    return dict(zip(names, session.run(names, inputs), strict=True))


def _refuse(a: NDArray, b: NDArray, what: str, tolerance: float) -> None:
    difference = float(np.abs(a - b).max()) if a.shape == b.shape else float("inf")
    if not difference <= tolerance:
        raise BundleError("export", what, f"a difference of {difference:.3g}", f"at most {tolerance:g}")
