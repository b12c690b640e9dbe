"""Other programs' weights, one folder per format, both directions. No torch is imported here."""
