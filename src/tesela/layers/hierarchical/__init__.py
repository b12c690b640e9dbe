"""Layers of hierarchical transformers: tokens whose number falls from stage to stage."""
