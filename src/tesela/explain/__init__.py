"""Which parts of an image spoke for a class: attention capture, rollout, gradients, heat maps."""
