"""Earlier place of what opens foreign checkpoints."""
