"""Pages for people: one self-contained HTML file with its style, charts and pictures."""
