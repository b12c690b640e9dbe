"""Checkpoints of Swin by transformers and timm, both directions, and the official ones."""
