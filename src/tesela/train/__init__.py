"""Training: one loop, its optimizers and schedules, exact checkpoints, the run folder, evaluation and report."""

from tesela.core.callable_package import make_callable

make_callable(__name__, target="tesela.api:train")
