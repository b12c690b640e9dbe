"""Scores of a classifier from its probabilities: what it gets right, what it confuses, how far it can be believed. NumPy only."""
