"""Images: the single place that opens them, and preprocessing described by data.

``spec`` describes what a model takes, ``header`` reads sizes without decoding, ``decode`` opens an image,
``color`` brings any pixel layout to grey or RGB, ``preprocess`` turns images into a batch and maps back to
the original.
"""
