"""Networks, their sizes, and bundles.

Descriptions (``config.py``, ``catalog.py``) import without torch; networks need it.
"""
