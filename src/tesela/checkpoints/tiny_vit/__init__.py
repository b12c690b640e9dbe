"""Checkpoints of TinyViT by timm, both directions."""
