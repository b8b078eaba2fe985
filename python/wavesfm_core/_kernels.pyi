from collections.abc import Sequence
from typing import Literal

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

def pilot_image(
    grid: NDArray[np.complex64],
    pilots: NDArray[np.complex64],
    pilot_symbols: Sequence[int],
    pilot_subcarriers: Sequence[int],
) -> NDArray[np.float32]: ...
def waveform_correlation(samples: NDArray[np.complex64], waveform: NDArray[np.complex64]) -> NDArray[np.float32]: ...
def check_grid(
    grid: NDArray[np.complex64], pilot_symbols: Sequence[int], pilot_subcarriers: Sequence[int]
) -> tuple[int, float, int]: ...
def projected_power(values: NDArray[np.complex64], modes: NDArray[np.complex64]) -> NDArray[np.float64]: ...
def copy_streams(
    streams: Sequence[NDArray[np.complex64]], first: int, count: int, out: NDArray[np.complex64], at: int
) -> None: ...
def resize(image: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]: ...
def to_complex64(raw: Buffer, sample_format: str) -> NDArray[np.complex64]: ...
def version_info() -> dict[Literal["fftw", "instruction_set"], str]: ...
