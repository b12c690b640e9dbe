"""Reliability of the server under load, measured on one machine beside two other servers."""
