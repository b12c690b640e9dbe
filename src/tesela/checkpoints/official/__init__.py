"""Checkpoints as the authors' own programs save them: DINOv3 and MAE."""
