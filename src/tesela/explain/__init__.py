"""Which parts of an image spoke for a class: attention capture, rollout, gradients, heat maps."""

from tesela.core.callable_package import make_callable

make_callable(__name__, target="tesela.api:explain")
