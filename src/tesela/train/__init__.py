"""Training: one loop, its optimizers and schedules, exact checkpoints, the run folder, evaluation and report."""
