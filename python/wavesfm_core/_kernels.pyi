from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

_Made = tuple[NDArray[np.float32], int, int, bool, float, float, int, int]

class SpectrogramTiler:
    def __init__(
        self,
        fft_size: int,
        hop_samples: int,
        window: str,
        frames_averaged: int,
        rows_per_tile: int,
        min_rows: int,
        floor_db: float,
        height: int,
        width: int,
        reference: str,
        low_db: float,
        high_db: float,
        mean: float,
        std: float,
        remove_dc: bool = False,
    ) -> None: ...
    def push(self, samples: NDArray[np.complex64]) -> list[_Made]: ...
    def flush(self) -> _Made | None: ...
    @property
    def pending_samples(self) -> int: ...
    @property
    def counts(self) -> dict[str, int]: ...

class OFDMDemodulator:
    def __init__(self, fft_size: int, prefix_samples: Sequence[int], bins: Sequence[int], antennas: int) -> None: ...
    def demodulate(self, samples: NDArray[np.complex64]) -> NDArray[np.complex64]: ...
    @property
    def slot_samples(self) -> int: ...

_Piece = tuple[int, int, int, int, int, NDArray[np.float32], NDArray[np.uint32], NDArray[np.uint32]]
_Block = tuple[int, NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], list[_Piece], int]

class BandDetector:
    def __init__(
        self,
        fft_size: int,
        block_rows: int = 128,
        false_rate: float = 1e-9,
        grow_rate: float = 1e-3,
        opening: float = 0.4,
        floor_db: float = -160.0,
    ) -> None: ...
    def push(self, samples: NDArray[np.complex64]) -> list[_Block]: ...
    def flush(self) -> _Block | None: ...

class Zoom:
    def __init__(self, fft_size: int, channels: Sequence[tuple[int, int]]) -> None: ...
    def push(self, samples: NDArray[np.complex64]) -> list[NDArray[np.complex64]]: ...
    def finish(self) -> list[NDArray[np.complex64]]: ...

_Time = tuple[int, float] | None
_Refusal = tuple[str, str, str] | None

class SlotLayout:
    def __init__(
        self,
        antennas: int,
        fft_size: int,
        prefix_samples: Sequence[int],
        frequencies: Sequence[int],
        spacing_hz: float,
        pilot_symbols: Sequence[int],
        pilot_carriers: Sequence[int],
        pilots: NDArray[np.complex64],
    ) -> None: ...

class GridAllocator: ...

class Slot:
    def __init__(
        self,
        grid: NDArray[np.complex64],
        start_sample: int,
        n_samples: int,
        rate_hz: float,
        time: _Time,
        n_nonfinite: int,
        sync_metric: float | None,
        arrived_s: float | None,
    ) -> None: ...
    def grid(self, n: int) -> NDArray[np.complex64]: ...
    start_sample: int
    n_samples: int
    rate_hz: float
    time: _Time
    n_nonfinite: int
    sync_metric: float | None
    arrived_s: float | None

class SlotStream:
    def __init__(
        self,
        layout: SlotLayout,
        by_pilots: bool,
        rate_hz: float,
        time: _Time,
        start_sample: int,
        correct_offset: bool,
    ) -> None: ...
    def push(
        self, streams: Sequence[NDArray[np.complex64]], marks: Sequence[int], arrived_s: float | None
    ) -> list[Slot]: ...
    def mark(self, sample: int) -> None: ...
    def retune(self, rate_hz: float | None, time: _Time) -> list[Slot]: ...
    def finish(self) -> list[Slot]: ...
    def set_allocator(self, allocator: GridAllocator) -> None: ...
    @property
    def end(self) -> int: ...
    def status(self) -> dict[str, Any]: ...

class PilotSearch:
    def __init__(self, layout: SlotLayout) -> None: ...
    def find(self, samples: NDArray[np.complex64]) -> tuple[int | None, float]: ...
    @property
    def threshold(self) -> float: ...
    @property
    def span_samples(self) -> int: ...

def reach_samples(layout: SlotLayout) -> int: ...
def threshold_over_mean(terms: int, false_alarm: float) -> float: ...

class PilotObserver:
    def __init__(self, layout: SlotLayout, modes: NDArray[np.complex64]) -> None: ...
    def observe(
        self, grids: Sequence[NDArray[np.complex64]]
    ) -> tuple[NDArray[np.complex64], NDArray[np.float64], NDArray[np.float64]]: ...
    def refuse(self, grid: NDArray[np.complex64]) -> _Refusal: ...
    def residuals(
        self, channels: NDArray[np.complex64], ls: NDArray[np.complex64], noise_power: NDArray[np.float64]
    ) -> list[float]: ...

class ChannelMethod:
    name: str
    def estimate(
        self,
        layout: SlotLayout,
        ls: NDArray[np.complex64],
        noise_power: NDArray[np.float64],
        signal_power: NDArray[np.float64],
    ) -> NDArray[np.complex64]: ...
    def error(self, snr_db: NDArray[np.float64]) -> Any: ...

class LeastSquares(ChannelMethod):
    def __init__(
        self,
        layout: SlotLayout,
        lower: Sequence[int],
        upper: Sequence[int],
        part: Sequence[float],
        symbols: NDArray[np.float64],
        noise_gain: float,
        name: str,
    ) -> None: ...

class LMMSE(ChannelMethod):
    def __init__(
        self,
        layout: SlotLayout,
        power: NDArray[np.float64],
        spread_power: NDArray[np.float64],
        from_antennas: NDArray[np.complex64],
        to_antennas: NDArray[np.complex64],
        from_subcarriers: NDArray[np.complex64],
        to_subcarriers: NDArray[np.complex64],
        to_symbols: NDArray[np.complex64],
        least_error: float,
        name: str,
    ) -> None: ...

class ModelMethod(ChannelMethod):
    def __init__(
        self,
        layout: SlotLayout,
        run: Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]],
        scale: float,
        bundle_id: str,
        error_of: ChannelMethod | None,
    ) -> None: ...

class PythonMethod(ChannelMethod):
    def __init__(
        self,
        layout: SlotLayout,
        name: str,
        bundle_id: str,
        estimate: Callable[..., NDArray[np.complex64]],
        error_of: ChannelMethod | None,
    ) -> None: ...

class BackOff:
    def __init__(self, enter_db: float, leave_db: float, residual_enter: float, residual_leave: float) -> None: ...
    def update(self, snr_db: float, residual: float) -> bool: ...
    def reset(self) -> None: ...
    @property
    def active(self) -> bool: ...
    @property
    def switches(self) -> int: ...

class SlotAnswer:
    slot: Slot
    refusal: _Refusal
    def channel(self, n: int) -> NDArray[np.complex64]: ...
    method: str
    bundle_id: str
    noise_power: float
    snr_db: float
    residual: float
    nmse_db: float
    backed_off: bool
    latency_s: float | None

class ChannelPipeline:
    def __init__(
        self, observer: PilotObserver, fallback: ChannelMethod, method: ChannelMethod, back_off: BackOff | None
    ) -> None: ...
    def predict(self, slots: Sequence[Slot]) -> list[SlotAnswer]: ...
    def set_method(self, method: ChannelMethod) -> None: ...
    def set_allocator(self, allocator: GridAllocator) -> None: ...
    @property
    def failed(self) -> int: ...
    @property
    def backed_off(self) -> int: ...

def least_squares_tiles(ls: NDArray[np.complex64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
def pilot_image(
    grid: NDArray[np.complex64],
    pilots: NDArray[np.complex64],
    pilot_symbols: Sequence[int],
    pilot_subcarriers: Sequence[int],
) -> NDArray[np.float32]: ...
def waveform_correlation(samples: NDArray[np.complex64], waveform: NDArray[np.complex64]) -> NDArray[np.float32]: ...
def resize(image: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]: ...
def to_complex64(raw: Buffer, sample_format: str) -> NDArray[np.complex64]: ...
def version_info() -> dict[Literal["fftw", "instruction_set"], str]: ...

class EngineFailure(RuntimeError):
    args: tuple[int, str]

class Engine:
    @staticmethod
    def open(runtime: str, library: str, model: str, precision: str = "auto", threads: int = 0) -> Engine: ...
    @staticmethod
    def wrap(
        engine: object,
        name: str,
        inputs: Sequence[tuple[str, Sequence[int]]],
        outputs: Sequence[tuple[str, Sequence[int]]],
    ) -> Engine: ...
    @property
    def inputs(self) -> list[tuple[str, list[int]]]: ...
    @property
    def outputs(self) -> list[tuple[str, list[int]]]: ...
    @property
    def runtime(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def precision(self) -> str: ...
    def run(self, inputs: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]: ...
    def close(self) -> None: ...
    def lend(self) -> object: ...

class TileSignature:
    def __init__(
        self,
        *,
        n_samples: int,
        level: float,
        floor: float,
        peak: float,
        shape: Sequence[float],
        columns: Sequence[float] | NDArray[np.float32],
    ) -> None: ...
    @property
    def n_samples(self) -> int: ...
    @property
    def level(self) -> float: ...
    @property
    def floor(self) -> float: ...
    @property
    def peak(self) -> float: ...
    @property
    def shape(self) -> list[float]: ...
    @property
    def columns(self) -> NDArray[np.float32]: ...
    def moved_towards(self, seen: TileSignature, part: float) -> TileSignature: ...

class SignatureTolerances:
    def __init__(
        self,
        *,
        level: float,
        peak: float,
        shape: Sequence[float],
        column: float,
        columns_rms: float,
        band: int,
        noise_peak: float,
    ) -> None: ...
    @property
    def level(self) -> float: ...
    @property
    def peak(self) -> float: ...
    @property
    def shape(self) -> list[float]: ...
    @property
    def column(self) -> float: ...
    @property
    def columns_rms(self) -> float: ...
    @property
    def band(self) -> int: ...
    @property
    def noise_peak(self) -> float: ...

def tile_signature(
    data: NDArray[np.float32], db: float, offset_db: float, n_samples: int, floor_db: float, peak_db: float
) -> TileSignature: ...
def alike(a: TileSignature, b: TileSignature, tolerances: SignatureTolerances, factor: float) -> bool: ...

class SampleClock:
    def __init__(
        self, rate_hz: float, time: tuple[int, float] | None, sample: int, tolerance_s: float | None
    ) -> None: ...
    @property
    def rate_hz(self) -> float: ...
    @property
    def limit_s(self) -> float: ...
    def set_time(self, time: tuple[int, float] | None, sample: int) -> None: ...
    def set_rate(self, rate_hz: float, sample: int) -> None: ...
    def time_of(self, sample: int) -> tuple[int, float] | None: ...
    def jump_s(self, time: tuple[int, float], sample: int) -> float | None: ...

class TileStream:
    def __init__(
        self,
        *,
        fft_size: int,
        hop_samples: int,
        window: str,
        frames_averaged: int,
        rows_per_tile: int,
        min_rows: int,
        floor_db: float,
        height: int,
        width: int,
        reference: str,
        low_db: float,
        high_db: float,
        mean: float,
        std: float,
        remove_dc: bool,
        rate_hz: float,
        centre_hz: float | None,
        time: tuple[int, float] | None,
        start_sample: int,
        tolerance_s: float | None,
    ) -> None: ...
    def push(self, samples: NDArray[np.complex64], arrived_s: float | None) -> list[tuple[Any, ...]]: ...
    def retune(
        self, rate_hz: float | None, centre_hz: float | None, time: tuple[int, float] | None
    ) -> list[tuple[Any, ...]]: ...
    def gap(self) -> list[tuple[Any, ...]]: ...
    def finish(self) -> list[tuple[Any, ...]]: ...
    def accounts(self) -> dict[str, int]: ...
    @property
    def rate_hz(self) -> float: ...
    @property
    def centre_hz(self) -> float | None: ...
