"""Hybrids of a ResNet and a transformer (arXiv 2010.11929, section 3.1)."""
