"""ConvNeXt (arXiv 2201.03545) and its second version (arXiv 2301.00808)."""
