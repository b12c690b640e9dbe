"""Engine of the server: decoding, batches, deadlines, and the models that are served."""
