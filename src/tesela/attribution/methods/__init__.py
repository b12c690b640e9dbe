"""Attribution methods, one per file."""
