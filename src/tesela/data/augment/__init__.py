"""Augmentation: functions of (seed, epoch, index)."""
