"""Checkpoints of the ViT paper's JAX code, both directions."""
