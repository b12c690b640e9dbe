"""Checkpoints of other programs, one folder per format, both directions."""
