"""Tables that name images and labels: rows, class names, class numbers."""
