"""Serving on a cluster: the front takes requests, replicas in other processes answer them."""
