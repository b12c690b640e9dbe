"""SegFormer's hierarchical encoder."""
