"""The command line: one file per verb, each importing the heavy rooms only when it is called."""
