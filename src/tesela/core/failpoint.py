"""Named places where a test can make the process die, stop or slow down.

``TESELA_FAILPOINT="checkpoint.before_rename=kill@3"`` kills the process with SIGKILL the third time that
place is reached; ``exit`` raises SystemExit, ``raise`` an OSError, ``sleep:0.5`` waits. Several are separated
by commas. Without the variable a failpoint costs one dictionary look-up.
"""

from __future__ import annotations

import os
import signal
import time

_reached: dict[str, int] = {}


def failpoint(name: str) -> None:
    """Do what the environment asks for at this place; normally nothing."""
    plan = os.environ.get("TESELA_FAILPOINT")
    if plan is None:
        return
    _reached[name] = _reached.get(name, 0) + 1
    for item in plan.split(","):
        place, _, rest = item.partition("=")
        action, _, count = rest.partition("@")
        if place == name and _reached[name] == int(count or 1):
            _act(action, name)


def _act(action: str, name: str) -> None:
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    elif action == "exit":
        raise SystemExit(70)
    elif action == "raise":
        raise OSError(f"failpoint {name}")
    elif action.startswith("sleep:"):
        time.sleep(float(action.removeprefix("sleep:")))
    else:
        raise ValueError(f"unknown failpoint action {action!r}: kill, term, exit, raise or sleep:SECONDS")
