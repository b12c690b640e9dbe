"""Checkpoints of residual networks by transformers, timm and torchvision, read alone."""
