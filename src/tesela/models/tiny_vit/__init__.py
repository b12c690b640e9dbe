"""TinyViT (arXiv 2207.10666): convolutions first, then attention within windows; for small machines."""
