"""Window and width of a ConvNeXt block (arXiv 2201.03545, section 2), without torch."""

#: Side of the depthwise window, and the hidden width of the MLP as a multiple of the width.
KERNEL, RATIO = 7, 4
