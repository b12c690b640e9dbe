"""Building blocks of the networks: torch and nothing else."""
