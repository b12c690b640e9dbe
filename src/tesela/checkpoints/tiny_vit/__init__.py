"""Checkpoints of TinyViT by timm, read alone."""
