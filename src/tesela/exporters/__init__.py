"""Exporters: a trained bundle in the form of another engine.

No torch is imported here.
"""
