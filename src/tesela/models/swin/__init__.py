"""Swin (arXiv 2103.14030): attention within shifted windows, on ever coarser grids."""
