"""Convolutional parts: tokenizer, residual networks, weight standardisation."""
