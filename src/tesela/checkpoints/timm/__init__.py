"""Checkpoints of timm, both directions."""
