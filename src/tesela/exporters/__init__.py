"""Programs to ship: a trained bundle in the form that another engine runs. No torch is imported here."""
