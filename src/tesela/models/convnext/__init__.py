"""ConvNeXt (Liu et al. 2022, arXiv 2201.03545) and its second version (Woo et al. 2023, arXiv 2301.00808)."""
