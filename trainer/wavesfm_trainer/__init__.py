"""Offline training of WavesFM models: signals, data sets, the ViT, the loop, evaluation and export."""
