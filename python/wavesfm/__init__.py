"""GNU Radio blocks of gr-wavesfm: live classification of IQ streams and OFDM channel estimation with model bundles."""

from __future__ import annotations

from .channel_estimator import channel_estimator
from .classifier import classifier
from .prediction_sink import prediction_sink
from .recording_source import recording_source

__all__ = ["channel_estimator", "classifier", "prediction_sink", "recording_source"]
