"""Residual networks: plain (He et al. 2016, arXiv 1512.03385) and BiT (Kolesnikov et al. 2020, arXiv 1912.11370)."""
