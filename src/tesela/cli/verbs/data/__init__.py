"""``tesela data``: look at a data set, split it, and write it as shards."""

from tesela.cli.verbs.data.verb import app

__all__ = ["app"]
