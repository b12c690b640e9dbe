"""Scores from predictions and targets, in NumPy and in constant memory."""
