"""MIMO-OFDM channel estimation: numerology, slots out of streams, pilots, estimators; numpy and the kernels."""
