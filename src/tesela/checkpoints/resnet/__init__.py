"""Checkpoints of residual networks by transformers and timm, both ways, and torchvision's."""
