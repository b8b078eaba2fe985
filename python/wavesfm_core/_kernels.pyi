from typing import Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

_Made = tuple[NDArray[np.float32], int, int, bool, float, float, int]

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
    ) -> None: ...
    def push(self, samples: NDArray[np.complex64]) -> list[_Made]: ...
    def flush(self) -> _Made | None: ...
    @property
    def pending_samples(self) -> int: ...

def resize(image: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]: ...
def to_complex64(raw: Buffer, sample_format: str) -> NDArray[np.complex64]: ...
def version_info() -> dict[Literal["fftw", "instruction_set"], str]: ...
