"""Networks and their sizes. What a model is (``config.py``, ``catalog.py``) imports without torch; what it does needs it."""
