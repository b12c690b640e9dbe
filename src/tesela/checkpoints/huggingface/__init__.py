"""Checkpoints of Hugging Face transformers, both directions."""
