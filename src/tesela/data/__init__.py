"""Images with targets: sources, splits, augmentation, loading, checks."""
