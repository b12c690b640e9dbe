"""Attention: full, axial, windows, wide heads, and its kernels."""
