"""Numbers of a ConvNeXt block that its closed forms need, without torch (arXiv 2201.03545, section 2)."""

#: Side of the depthwise window, and the hidden width of the MLP as a multiple of the width.
KERNEL, RATIO = 7, 4
