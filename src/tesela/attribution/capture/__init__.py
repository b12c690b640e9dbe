"""Capture of attention and its gradients from own and third-party models."""
