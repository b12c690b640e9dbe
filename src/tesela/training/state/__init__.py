"""Training state on disk as JSON and tensors, whole or not at all."""
