"""Scoring of very many files in constant memory, every row exactly once."""
