"""Checkpoints: the state of a training as JSON and tensors, in files that are whole or not there."""
