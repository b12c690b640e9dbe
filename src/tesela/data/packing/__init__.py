"""Data sets in shards: few large files that are read from front to back."""
