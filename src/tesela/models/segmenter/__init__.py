"""Decoders: from a backbone's features to logits of every pixel."""
