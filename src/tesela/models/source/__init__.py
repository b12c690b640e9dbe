"""Models from everywhere: runs, bundles, Hugging Face folders, timm and JAX checkpoints, the hub. Importing it imports no torch."""

from tesela.models.source.cache import bundle_of
from tesela.models.source.convert import convert
from tesela.models.source.opening import open_model

__all__ = ["bundle_of", "convert", "open_model"]
