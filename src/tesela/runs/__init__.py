"""Run folders: their files, their lock, their logs and their results. No torch."""
