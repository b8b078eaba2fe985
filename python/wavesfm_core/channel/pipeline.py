# SPDX-License-Identifier: GPL-3.0-or-later
"""From slots to channel estimates: choice of the estimator, back-off, and errors of invalid slots."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .._kernels import copy_streams
from ..bundle.bundle import Bundle
from ..bundle.covariance import Covariances
from ..bundle.ofdm_spec import OFDMSpec
from ..bundle.pilot_grid_spec import PilotGridSpec
from ..engines import Engine, EngineChange, open_engine
from ..engines.shared import EngineLease, acquire
from ..engines.verify import verify_engine
from ..errors import ConfigurationError, InputError, WavesfmError
from ..preprocess.pilot_grid import Observation, check_grid, observe_checked, residuals
from ..types import ChannelEstimate, Slot
from .backoff import BackOff
from .estimators import LMMSE, Estimator, LeastSquares
from .model_estimator import ModelEstimator

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

    failed: int
    """Slots so far that could not be estimated."""
    backed_off: int
    """Slots so far for which least squares replaced the method."""
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
        self.failed = self.backed_off = 0
        self._covariances, self._engine = covariances, engine
        self.engine = None
        self._made: dict[str, Estimator] = {}
        self._fallback = LeastSquares(spec)
        self._last: Estimator | None = None  # of the former slots
        self.set_method(method)

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
            return ModelEstimator(self.bundle, self.engine)
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
        estimator = self._estimator
        if self.backoff is not None and estimator is not self._last:
            self.backoff.reset()
        self._last = estimator
        errors = [self._refused(slot) for slot in slots]
        good = [slot for slot, error in zip(slots, errors) if error is None]
        self.failed += len(slots) - len(good)
        estimates = iter(self._estimate(estimator, good) if good else [])
        return [next(estimates) if error is None else error for error in errors]

    def _refused(self, slot: Slot) -> InputError | None:
        try:
            check_grid(slot.grid, self.spec, f"slot at sample {slot.start_sample}")
        except InputError as error:
            return error
        return None

    def _estimate(self, estimator: Estimator, slots: list[Slot]) -> list[ChannelEstimate]:
        grids = np.empty((len(slots), *self.spec.grid_shape), np.complex64)
        flat = [np.ascontiguousarray(slot.grid).reshape(-1) for slot in slots]
        copy_streams(flat, 0, flat[0].size, grids.reshape(len(slots), -1), 0)
        seen = observe_checked(grids, self.spec)
        channels = estimator.estimate(grids, seen)
        fits = residuals(channels, seen, self.spec)
        nmse = self._expected_nmse(estimator, seen, fits)
        backed_off = self._back_off(estimator, seen, fits)
        if any(backed_off):
            channels[backed_off] = self._fallback.estimate(grids, seen)[backed_off]
            nmse[backed_off] = self._fallback.error(seen.snr_db[backed_off])
        bundle_id = estimator.bundle_id if isinstance(estimator, ModelEstimator) else ""
        nmse_db = 10 * np.log10(nmse)
        now = time.monotonic()
        return [
            ChannelEstimate(
                channel=channels[i],
                bundle_id="" if backed_off[i] else bundle_id,
                method=self._fallback.name if backed_off[i] else estimator.name,
                noise_power=float(seen.noise_power[i]),
                snr_db=float(seen.snr_db[i]),
                residual=float(fits[i]),
                backed_off=backed_off[i],
                start_sample=slot.start_sample,
                n_samples=slot.n_samples,
                time=slot.time,
                latency_s=None if slot.arrived_s is None else now - slot.arrived_s,
                n_nonfinite=slot.n_nonfinite,
                nmse_db=None if np.isnan(nmse_db[i]) else float(nmse_db[i]),
            )
            for i, slot in enumerate(slots)
        ]

    def _expected_nmse(self, estimator: Estimator, seen: Observation, fits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Expected NMSE at the measured SNR plus the excess of the residual above 1; NaN where no theory exists."""
        known = self._made.get("lmmse") if isinstance(estimator, ModelEstimator) else estimator
        if not isinstance(known, (LeastSquares, LMMSE)):
            return np.full(len(fits), np.nan)
        return known.error(seen.snr_db) + np.maximum(fits - 1, 0) * 10 ** (-seen.snr_db / 10)

    def _back_off(self, estimator: Estimator, seen: Observation, fits: NDArray[np.float64]) -> list[bool]:
        if self.backoff is None or isinstance(estimator, LeastSquares):
            return [False] * len(fits)
        backed_off = [self.backoff.update(snr_db, fit) for snr_db, fit in zip(seen.snr_db.tolist(), fits.tolist())]
        self.backed_off += sum(backed_off)
        return backed_off


def _given(covariances: Covariances | None, spec: OFDMSpec) -> Callable[[], Covariances] | None:
    if covariances is None:
        return None
    covariances.require(spec)
    return lambda: covariances
