"""Images with labels: sources on disk, splits, augmentation, loading, and a look at all of it before training."""
