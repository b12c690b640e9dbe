"""Verbs over several runs."""
