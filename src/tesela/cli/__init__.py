"""Command line: one file per verb; heavy rooms are imported when a verb is called."""
