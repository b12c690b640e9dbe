"""What a person reads after a run: the report, the comparison of runs, the model card."""
