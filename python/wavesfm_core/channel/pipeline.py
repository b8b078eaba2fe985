# SPDX-License-Identifier: GPL-3.0-or-later
"""From slots to channel estimates: choice of the estimator, back-off, and errors of invalid slots."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from .. import _kernels
from ..bundle.bundle import Bundle
from ..bundle.covariance import Covariances
from ..bundle.ofdm_spec import OFDMSpec
from ..bundle.pilot_grid_spec import PilotGridSpec
from ..engines import Engine, EngineChange, open_engine
from ..engines.shared import EngineLease, acquire
from ..engines.verify import verify_engine
from ..errors import ConfigurationError, InputError, WavesfmError
from ..preprocess.pilot_grid import check_grid, observer
from ..types import ChannelEstimate, Slot
from .backoff import BackOff
from .estimators import LMMSE, Estimator, LeastSquares
from .model_estimator import ModelEstimator
from .slots import as_native

METHODS = ("model", "lmmse", "lmmse-tf", "ls", "ls-nearest")


class ChannelPipeline:
    """Estimates the channels of one stream of slots; used by one thread at a time, `set_method` by any.

    It is built by `open` or `of`.

    Parameters
    ----------
    spec : OFDMSpec
        Parameters of the slots.
    method : str
        One of METHODS.
    backoff : BackOff, optional
        Fallback to least squares. Default: none.
    covariances : callable, optional
        Called when a method first needs covariances. Default: there are none.
    bundle : Bundle, optional
        Bundle of the method "model".
    engine : callable, optional
        Opens the engine of the method "model" when that is first used.
    """

    native: _kernels.ChannelPipeline
    """The pipeline of the C++ library, for the live path."""
    engine: Engine | None
    """Engine of the method "model"; None until that is first used."""

    def __init__(
        self,
        spec: OFDMSpec,
        method: str,
        backoff: BackOff | None = None,
        covariances: Callable[[], Covariances] | None = None,
        bundle: Bundle | None = None,
        engine: Callable[[], Engine] | None = None,
    ) -> None:
        self.spec, self.bundle, self.backoff = spec, bundle, backoff
        self._misshapen = 0
        self._covariances, self._engine = covariances, engine
        self.engine = None
        self._made: dict[str, Estimator] = {}
        self._fallback = LeastSquares(spec)
        self._estimator = self._made[method] = self._make(method)
        natives = self._fallback.native, self._estimator.native
        self.native = _kernels.ChannelPipeline(observer(spec), *natives, backoff)

    @classmethod
    def open(
        cls,
        path: str | Path,
        method: str = "model",
        device: str = "auto",
        backoff: BackOff | None = None,
        threads: int = 0,
        precision: str = "auto",
        replay: bool = True,
        device_id: int = 0,
        on_change: Callable[[EngineChange], object] | None = None,
        covariances: Covariances | None = None,
        shared: bool = False,
    ) -> ChannelPipeline:
        """Open the bundle at `path`, for its model or for another method with its numerology and covariances.

        device, threads, precision, device_id, on_change: see `open_engine`; replay: of its golden grids, when the model
        is first used; covariances: for LMMSE in place of the bundle's; shared: see `Pipeline.open`. Raises
        BundleError, EngineError, InputError for covariances of another size, and ConfigurationError for a
        bundle that is not for grids and for a method that is unknown or lacks its covariances.
        """
        bundle = Bundle.open(path)
        preprocess = bundle.preprocess_as(PilotGridSpec, "a channel is to be estimated")

        def opened(listener: Callable[[EngineChange], object] | None) -> Engine:
            engine = open_engine(bundle, device, threads, precision, device_id, listener)
            return verify_engine(bundle, engine) if replay else engine

        def engine() -> Engine:
            if not shared:
                return opened(on_change)
            options = (bundle.path.resolve(), bundle.id, device, threads, precision, device_id, replay)
            return acquire((*options, on_change is None), opened, on_change)

        spec, own = preprocess.numerology, bundle.covariances if bundle.spec.covariances else None
        return cls(spec, method, backoff, _given(covariances, spec) or own, bundle, engine)

    @classmethod
    def of(
        cls,
        numerology: OFDMSpec,
        method: str = "ls",
        covariances: Covariances | None = None,
        backoff: BackOff | None = None,
    ) -> ChannelPipeline:
        """A pipeline without a bundle, for least squares and, with covariances, LMMSE.

        Raises ConfigurationError for another method, and InputError for covariances of another size.
        """
        return cls(numerology, method, backoff, _given(covariances, numerology))

    def close(self) -> None:
        """Free the engine, if one is open, while no call is under way. Closing twice does no harm."""
        self._made.pop("model", None)
        if self.engine is not None:
            self.engine.close()

    def abandon(self) -> None:
        """Give up an engine that does not return: `reopen` opens another one."""
        self._made.pop("model", None)
        if isinstance(self.engine, EngineLease):
            self.engine.abandon()

    def reopen(self) -> None:
        """After `close`, open the engine again if the method needs one. Raises as `open` does."""
        self.set_method(self.method)

    @property
    def method(self) -> str:
        """Method of the next `predict`, one of METHODS."""
        return self._estimator.name

    def set_method(self, method: str) -> None:
        """Change the method; a failure leaves the former one in use. Raises as `open` and `of` do."""
        if method not in self._made:
            self._made[method] = self._make(method)
        self._estimator = self._made[method]
        self.native.set_method(self._estimator.native)

    @property
    def failed(self) -> int:
        """Slots so far that could not be estimated."""
        return self._misshapen + self.native.failed

    @property
    def backed_off(self) -> int:
        """Slots so far for which least squares replaced the method."""
        return self.native.backed_off

    def _make(self, method: str) -> Estimator:
        if method == "ls":
            return self._fallback
        if method == "ls-nearest":
            return LeastSquares(self.spec, "nearest")
        where = "channel pipeline" if self.bundle is None else self.bundle.path
        if method not in METHODS:
            raise ConfigurationError(where, "method", repr(method), f"one of {', '.join(METHODS)}")
        if method == "model":
            if self.bundle is None or self._engine is None:
                raise ConfigurationError(where, "method", method, "another: there is no bundle")
            if self._covariances is not None and "lmmse" not in self._made:
                self._made["lmmse"] = self._make("lmmse")  # its error serves as the expected error of the model
            self.engine = self._engine()
            known = self._made.get("lmmse")
            return ModelEstimator(self.bundle, self.engine, None if known is None else known.native)
        if self._covariances is None:
            raise ConfigurationError(where, "method", method, "another: there are no covariances")
        return LMMSE(self.spec, self._covariances(), space=method == "lmmse")

    def predict(self, slots: Sequence[Slot]) -> list[ChannelEstimate | WavesfmError]:
        """Estimate the channels of slots.

        Invalid slots (another shape, NaN, no pilots) do not affect the others and are counted in `failed`.

        Parameters
        ----------
        slots : sequence of Slot
            Slots in the order of the stream.

        Returns
        -------
        list
            For each slot its ChannelEstimate, or the InputError of an invalid slot.

        Raises
        ------
        EngineError
            The engine fails.
        """
        errors = [self._misfit(slot) for slot in slots]
        self._misshapen += sum(error is not None for error in errors)
        good = [slot for slot, error in zip(slots, errors) if error is None]
        answers = self.native.predict([as_native(slot) for slot in good])
        found = iter([self._answer(slot, answer) for slot, answer in zip(good, answers)])
        return [next(found) if error is None else error for error in errors]

    def _misfit(self, slot: Slot) -> InputError | None:
        """The error of a grid of another type or shape."""
        grid = slot.grid
        if isinstance(grid, np.ndarray) and grid.dtype == np.complex64 and grid.shape == self.spec.grid_shape:
            return None
        try:
            check_grid(grid, self.spec, _place(slot))
        except InputError as error:
            return error
        return None

    def _answer(self, slot: Slot, answer: _kernels.SlotAnswer) -> ChannelEstimate | WavesfmError:
        if answer.refusal is not None:
            return InputError(_place(slot), *answer.refusal)
        return ChannelEstimate(
            channel=answer.channel(math.prod(self.spec.grid_shape)).reshape(self.spec.grid_shape),
            bundle_id=answer.bundle_id,
            method=answer.method,
            noise_power=answer.noise_power,
            snr_db=answer.snr_db,
            residual=answer.residual,
            backed_off=answer.backed_off,
            start_sample=slot.start_sample,
            n_samples=slot.n_samples,
            time=slot.time,
            latency_s=answer.latency_s,
            n_nonfinite=slot.n_nonfinite,
            nmse_db=None if math.isnan(answer.nmse_db) else answer.nmse_db,
        )


def _place(slot: Slot) -> str:
    return f"slot at sample {slot.start_sample}"


def _given(covariances: Covariances | None, spec: OFDMSpec) -> Callable[[], Covariances] | None:
    if covariances is None:
        return None
    covariances.require(spec)
    return lambda: covariances
