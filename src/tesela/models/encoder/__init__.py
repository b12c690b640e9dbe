"""Shared transformer encoder: configuration without torch, and the network."""
