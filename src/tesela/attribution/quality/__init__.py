"""Measured quality of attribution maps: faithfulness, randomised weights, planted truth."""
