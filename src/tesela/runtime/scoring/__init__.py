"""Scoring of very many files: constant memory, every row exactly once, whatever ends the process."""
