"""Building blocks of the networks: torch and nothing else. Import the module that holds what you need."""
