"""The contract between trainer and radio: specs, bundles, preprocessing, engines; numpy and the kernels, no more."""

from .errors import BundleError, ConfigurationError, EngineError, InputError, WavesfmError
from .spec import BundleSpec, HeadSpec, SpectrogramSpec, TensorSpec
from .types import NO_SIGNAL, UNKNOWN, Accounts, Prediction, StreamTime, Tile

__version__ = "0.1.0"

__all__ = [
    "NO_SIGNAL",
    "UNKNOWN",
    "Accounts",
    "BundleError",
    "BundleSpec",
    "ConfigurationError",
    "EngineError",
    "HeadSpec",
    "InputError",
    "Prediction",
    "SpectrogramSpec",
    "StreamTime",
    "TensorSpec",
    "Tile",
    "WavesfmError",
    "__version__",
]
