"""DeiT: data-efficient image transformer (Touvron et al. 2021, arXiv 2012.12877).

It has a distillation token.
"""
