"""Error tree: a message, a hint and an exit code for every failure a user can mend.

    TeselaError                    exit 1   something failed
    |-- UsageError                 exit 2   the call itself is wrong
    |   |-- ConfigError                     a field is unknown, of the wrong type or out of range
    |   |-- UnknownNameError                a name that no registry has
    |   |-- FolderInUseError                another process writes there
    |   `-- MissingExtraError               an optional dependency is not installed
    |-- DataError                           images, labels or splits
    |   `-- ImageError                      one image; carries a code from a closed list
    |-- WeightsError                        checkpoints and bundles: broken, foreign, mismatched
    |-- StorageError                        disk full, no permission, short write
    |-- DivergedError                       the loss became NaN or infinite
    `-- InterruptedRunError        exit 3   stopped by a signal, can be resumed

The command line prints two lines, the message and ``hint:``; the library raises.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TeselaError(Exception):
    """Base of every error that tesela raises on purpose.

    Args:
        message: what is wrong, one sentence without a full stop at the end.
        hint: what to do about it.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.add_note(f"hint: {hint}")  # tracebacks show it

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.__dict__.copy())


def _rebuild(kind: type[TeselaError], message: str, state: dict[str, object]) -> TeselaError:
    """Make an error again in another process (loader workers send theirs home)."""
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class UsageError(TeselaError):
    """The call or command is wrong; nothing was started."""

    exit_code = 2


class FolderInUseError(UsageError):
    """Another process is writing to the folder."""


class ConfigError(UsageError):
    """A field of a configuration is unknown, has the wrong type or is out of range."""


class UnknownNameError(UsageError):
    """A name is not registered; the nearest known names are offered.

    Args:
        kind: what was looked up, such as ``model``.
        name: the name that was asked for.
        known: all names that would have worked.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        super().__init__(f"unknown {kind} {name!r}", hint=suggestion(name, known))
        self.kind = kind
        self.name = name


class MissingExtraError(UsageError):
    """An optional dependency is needed and not installed.

    Args:
        what: what needs it, such as ``training``.
        extra: the extra that brings it, such as ``train``.
    """

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs packages that are not installed", hint=f'pip install "tesela[{extra}]"'
        )


class DataError(TeselaError):
    """Images, labels, masks or splits cannot be used as they are."""


class ImageError(DataError):
    """One image cannot be decoded.

    Args:
        message: what is wrong with it.
        code: one of ``tesela.imaging.decode.CODES``.
        hint: how to mend it.
        cause: one or two words by which images are counted, such as a format; the code by default.
    """

    def __init__(self, message: str, *, code: str, hint: str, cause: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.cause = cause or code.replace("_", " ")


class WeightsError(TeselaError):
    """A checkpoint, bundle or foreign weight file is broken or does not fit."""


class StorageError(TeselaError):
    """The file system refused: full, read-only, quota or a short write."""


class DivergedError(TeselaError):
    """Training produced a loss that is not finite."""


class InterruptedRunError(TeselaError):
    """A run was stopped by a signal after its state was saved."""

    exit_code = 3


def suggestion(name: str, known: Iterable[str], *, most: int = 3) -> str:
    """A hint that offers the nearest known names, or lists the known ones where none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=most, cutoff=0.55)
    if near:
        return "did you mean " + " or ".join(near) + "?"
    shown = ", ".join(known[:12]) + (f", ... ({len(known)} in all)" if len(known) > 12 else "")
    return f"choose one of: {shown}" if known else "there is nothing to choose from"
