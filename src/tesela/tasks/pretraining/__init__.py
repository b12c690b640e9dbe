"""Pre-training without labels: masked patches, MAE and DINO."""
