"""Explanations of an image for the API, and what a served model is made of."""
