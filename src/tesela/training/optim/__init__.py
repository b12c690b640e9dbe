"""Optimizers, learning-rate schedules, the moving average and the number of steps."""
