"""Checkpoints of ConvNeXt by transformers and timm, read alone."""
