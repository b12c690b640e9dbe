"""Convolutional encoder of a U-Net or SegNet."""
