# SPDX-License-Identifier: GPL-3.0-or-later
"""One export with everything resolved: the model to be traced, its contract, and where the bundle goes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.bundle.covariance import Covariances
from wavesfm_core.bundle.golden import Golden
from wavesfm_core.bundle.spec import BundleSpec
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.types import UNKNOWN

from ..data.tasks import read_task
from ..evaluation.trained_run import TrainedTask, load_task_run, pilot_grids, task_in, task_spec
from ..models.channel_model import ChannelModel
from ..models.task_model import TaskArgs
from ..signals import CLASSES
from ..signals.views import ALL_LABELS, LEAST_RATE_HZ, MORE_VIEWS
from .golden_inputs import raw_arrays
from .half_weights import round_weights

log = logging.getLogger(__name__)

TOLERANCES = {"fp32": 2e-4, "fp16": 1e-2, "bf16": 5e-2}
"""By precision: allowed difference from torch in float32 over the largest output. Half types keep 11 and 8 bits."""
LEAST_OUTPUT = 0.1
"""Smaller outputs get the tolerance of this one."""


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export."""

    name: str
    """Name of the model."""
    precision: str = "fp32"
    """Arithmetic in the graph: fp32, fp16 or bf16. Inputs and outputs are float32 in any case."""
    half_weights: bool = False
    """Store the large weights in float16; the arithmetic stays fp32."""
    licence: str = "GPL-3.0-or-later"
    """Licence of the weights."""
    training_data: str | None = None
    """Data that the model was trained on, and their licence; described from the run if left out."""
    card: str | None = None
    """Text of README.md; None: the file that is there is kept, or a card is written from the run."""
    arrays: Sequence[NDArray[np.float32]] | None = None
    """Golden inputs of a model of images; None: generated ones."""
    raw: Path | None = None
    """Folder of raw files to take the golden arrays from."""
    rates_hz: tuple[float, float] | None = None
    """Lowest and highest sample rate of the training data; None: those in the weights file, or of the signal
    generator's labels, or 0 and 0 (unknown)."""

    def __post_init__(self) -> None:
        if self.precision not in TOLERANCES:
            raise ConfigurationError("export", "precision", repr(self.precision), f"one of {', '.join(TOLERANCES)}")
        if self.half_weights and self.precision != "fp32":
            expected = f"off: with {self.precision} the weights are stored in a half type already"
            raise ConfigurationError("export", "half_weights", f"on with {self.precision}", expected)
        for name, value in (("licence", self.licence), ("training_data", self.training_data)):
            if value is not None and not value.strip():
                raise ConfigurationError("export", name, "nothing", "what the bundle's user must know")
        if self.arrays is not None and self.raw is not None:
            raise ConfigurationError("export", "raw", self.raw, "none together with arrays")


@dataclass(frozen=True)
class ExportJob:
    """An export whose questions are all answered."""

    options: ExportOptions
    """As asked for."""
    directory: Path
    """Where the bundle goes."""
    trained: TrainedTask
    """The run, with its adapters merged and its weights rounded to what the bundle stores."""
    task_args: TaskArgs | None
    """What was trained, before adapters were merged; None for a channel estimator of slots."""
    covariances: Covariances | None
    """Of the channels that a channel estimator started from."""
    spec: BundleSpec
    """The bundle's contract; its tolerance is set by `with_tolerance`, its hashes by the writing."""
    arrays: Sequence[NDArray[np.float32]] | None
    """Golden arrays of the data set; None: they are generated."""

    @classmethod
    def resolve(cls, run: Path | str, directory: Path | str, options: ExportOptions) -> ExportJob:
        """Read the run and settle what the bundle is.

        Parameters
        ----------
        run
            Directory of a fine-tuned run, or its weights file.
        directory
            Directory of the bundle.
        options
            Options of the export.

        Raises
        ------
        WeightsError
            The run is no fine-tuned one.
        ConfigurationError
            An option that does not suit the model, or half weights that would cost a channel estimator too much.
        """
        trained = pilot_grids(load_task_run(run))
        model, task_args, covariances = trained.model, None, None
        if isinstance(model, ChannelModel):
            covariances = model.covariances()
        else:
            task_args = model.task_args
            model.merge()
        if options.half_weights:
            round_weights(trained)
        arrays = options.arrays
        if options.raw is not None:
            arrays = raw_arrays(read_task(task_in(trained.config)), options.raw)
        spec = _contract(trained, options)
        return cls(options, Path(directory), trained, task_args, covariances, spec, arrays)

    def with_tolerance(self, golden: Golden) -> ExportJob:
        """The same job, with the tolerance that the golden outputs allow."""
        largest = float(np.abs(golden.outputs[self.trained.output]).max())
        tolerance = TOLERANCES[self.options.precision] * max(LEAST_OUTPUT, largest)
        return replace(self, spec=replace(self.spec, tolerance=tolerance))


def _contract(trained: TrainedTask, options: ExportOptions) -> BundleSpec:
    spec = task_spec(trained, options.name)
    versions = {**spec.versions, "onnx": version("onnx")}
    if commit := trained.config.get("git_commit"):
        versions["trained at commit"] = str(commit)
    return replace(
        spec,
        rates_hz=_rates(trained, options.rates_hz),
        licence=options.licence,
        training_data=options.training_data or described_data(trained),
        versions=versions,
    )


def _rates(trained: TrainedTask, asked: tuple[float, float] | None) -> tuple[float, float]:
    """Lowest and highest sample rate in Hz; 0 and 0 for inputs without one."""
    if "log10_rate" not in trained.preprocess.side_inputs:
        if asked is not None:
            raise ConfigurationError("export", "rates_hz", asked, "none for images, which have no sample rate")
        if trained.model.encoder_args.rate_input:
            log.warning("the model could take a sample rate; with images it is exported with the rate unknown")
        return 0.0, 0.0
    if asked is not None:
        return asked
    if trained.rates_hz[1]:
        return trained.rates_hz
    if UNKNOWN in trained.head.labels and set(trained.head.labels) <= set(ALL_LABELS):
        return LEAST_RATE_HZ, max(view.high_hz for views in MORE_VIEWS.values() for view in views)
    if unknown := [label for label in trained.head.labels if label not in CLASSES]:
        log.warning("%s: sample rates of the training data are not known", ", ".join(unknown))
        return 0.0, 0.0
    views = [view for label in trained.head.labels for view in CLASSES[label].views]
    return min(view.low_hz for view in views), max(view.high_hz for view in views)


def described_data(trained: TrainedTask) -> str:
    """Training data in a sentence, from the run's own record."""
    if pools := described_pools(trained):
        return f"simulated uplink channels (3GPP TR 38.901): {pools}"
    return f"the training part of the prepared data of task {trained.config.get('task') or 'unknown'}"


def described_pools(trained: TrainedTask) -> str:
    """Scenarios of the simulated channels that a run was trained on; "" for other runs."""
    pools = []
    for pool in trained.config.get("data", {}).get("training", {}).values():
        scenario = pool.get("scenario")
        if isinstance(scenario, dict):
            spread_s = scenario.get("delay_spread_s")
            spread = f", delay spread {spread_s * 1e9:g} ns" if spread_s else ""
            carrier = f"{scenario.get('carrier_hz', 0) / 1e9:g} GHz"
            speed = f"{scenario.get('speed_m_per_s', 0):g} m/s"
            pools.append(f"{pool.get('examples')} slots of {scenario.get('model')} at {carrier}, {speed}{spread}")
    return "; ".join(pools)
