"""What all plain transformer classifiers share: configuration without torch, and the network."""
