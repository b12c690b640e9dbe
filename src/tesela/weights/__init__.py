"""Other programs' weights: pure maps of names and tensors. They know nothing of the networks that use them."""
