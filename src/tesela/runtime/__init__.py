"""From an image to a result, out of a bundle, over a backend. Importing this room imports no backend and no torch."""
