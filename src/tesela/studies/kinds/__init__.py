"""Kinds of studies, one per file."""
