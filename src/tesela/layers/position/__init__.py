"""Position embeddings: learned, sin-cos, relative, rotary."""
