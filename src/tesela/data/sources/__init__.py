"""Data sources, one kind per file."""
