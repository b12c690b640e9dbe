"""Inference: image to result from a bundle over a backend.

Importing this room imports no backend and no torch.
"""
