"""Training: from a configuration to a finished run that resumes exactly."""
