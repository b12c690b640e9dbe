"""Inference backends: one module per engine, imported when it is chosen.

Odd: the modules carry the names of the libraries they drive; absolute imports keep the two apart.
"""
