"""Planning: what a run will do and take, before its first step."""
