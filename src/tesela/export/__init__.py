"""Programs to ship: a trained bundle in the form that another engine runs. Importing this room imports no torch."""
