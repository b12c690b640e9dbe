"""Inspection of a model itself: filters, positions, attention distance, token norms."""
