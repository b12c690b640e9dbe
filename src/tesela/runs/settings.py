"""Settings of a run that change none of its results."""

#: Fields that may change between a run and its resumption without changing a bit of the result.
FREE_SETTINGS = frozenset(
    {
        "out",
        "data.workers",
        "data.cache",
        "checkpoint_seconds",
        "checkpoint_steps",
        "tensorboard",
        "report",
        "shard",
    }
)
