"""GNU Radio blocks of gr-wavesfm: live classification of IQ streams with a model bundle."""

from __future__ import annotations

from .classifier import classifier
from .prediction_sink import prediction_sink
from .recording_source import recording_source

__all__ = ["classifier", "prediction_sink", "recording_source"]
