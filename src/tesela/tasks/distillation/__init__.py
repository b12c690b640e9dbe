"""Distillation: a classifier that learns from the outputs of another one."""
