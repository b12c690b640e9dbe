"""Hybrids of a residual network and a transformer (Dosovitskiy et al. 2021, arXiv 2010.11929, section 3.1)."""
