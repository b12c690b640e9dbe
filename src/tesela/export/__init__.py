"""Programs to ship: a trained bundle in the form that another engine runs. Importing this room imports no torch."""

from tesela.core.callable_package import make_callable

make_callable(__name__, target="tesela.api:export")
