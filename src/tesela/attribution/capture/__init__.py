"""Attention and its gradients, captured from own and third-party models without side effects."""
