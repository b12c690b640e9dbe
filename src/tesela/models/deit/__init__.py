"""Data-efficient image transformer with a distillation token (Touvron et al. 2021, arXiv 2012.12877)."""
