"""Charts as inline SVG: each a function of data, all made of the same axes, grid and figure."""
