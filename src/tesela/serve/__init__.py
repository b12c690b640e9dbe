"""HTTP API over bundles that are loaded at the start."""
