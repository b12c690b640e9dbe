"""TinyViT (arXiv 2207.10666): convolutions, then attention within windows."""
