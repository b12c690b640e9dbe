"""Compact Convolutional Transformer (Hassani et al. 2021, arXiv 2104.05704)."""
