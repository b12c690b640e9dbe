"""HTTP: an application that classifies and explains images with bundles that were loaded when it started."""
