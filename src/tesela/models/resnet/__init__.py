"""Residual networks: plain (arXiv 1512.03385) and BiT (arXiv 1912.11370).

He et al. 2016; Kolesnikov et al. 2020.
"""
