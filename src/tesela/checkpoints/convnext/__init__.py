"""Checkpoints of ConvNeXt by transformers and timm, both directions."""
