"""``tesela``: the verbs, how an error looks, and the exit codes.

    0 done   1 failed   2 usage or configuration   3 interrupted, can be resumed

Verbs are named as ``module:function`` and imported when they are called, so ``tesela --help`` needs neither
torch nor NumPy. An error is two lines on standard error, what is wrong and a hint; ``--debug`` anywhere adds
the traceback.
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from typing import Any

from cyclopts import App, Group
from cyclopts.exceptions import CycloptsError

from tesela.core.errors import TeselaError, UnknownNameError
from tesela.core.version import __version__

# name, summary, group; the function has the verb's name and lives in tesela/cli/verbs/<verb>.py, or in the
# folder below for verbs over several runs
VERBS = (
    ("demo", "The main job on handwritten digits, in about a minute and without a download.", "Start here"),
    ("doctor", "What is installed, what this machine can do, what to install for what.", "Start here"),
    ("data", "Check, show, split and pack a data set.", "Data and models"),
    ("label", "Which images to label first.", "Data and models"),
    ("models", "List the models, or show one with the shapes of its steps.", "Data and models"),
    ("plan", "Memory, time and communication of a training, before it is begun.", "Train and measure"),
    ("train", "Train a model on your images.", "Train and measure"),
    ("evaluate", "Scores of a run or bundle on a data set.", "Train and measure"),
    ("compare", "Runs side by side: score against size, time and speed.", "Train and measure"),
    ("study", "A resumable grid of runs that answers a question, and its page.", "Train and measure"),
    ("predict", "Labels for images, folders and globs.", "Use a model"),
    ("explain", "Heat maps: which parts of the image spoke for a class.", "Use a model"),
    ("convert", "Turn other programs' weights into a bundle.", "Use a model"),
    ("inspect", "Look into a model: filters, positions, heads, token norms, as one page.", "Use a model"),
    ("export", "Write a model for another runtime or library, and check it.", "Use a model"),
    ("serve", "HTTP API and a page on this machine.", "Use a model"),
    ("bench", "Measure how fast a model runs here.", "Use a model"),
)

SEVERAL = ("compare", "study")

# Top-level package -> the extra that brings it.
EXTRAS = {
    "torch": "train",
    "psutil": "train",
    "pyarrow": "train",
    "sklearn": "demo",
    "fastapi": "serve",
    "httptools": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
    "multipart": "serve",
    "python_multipart": "serve",
    "prometheus_client": "serve",
    "onnx": "export",
    "onnxscript": "export",
    "huggingface_hub": "hub",
    "tensorboard": "track",
    "simplejpeg": "fast",
    "ray": "ray",
}


def make_app() -> App:
    """The command line with all its verbs, none of them imported yet."""
    app = App(
        name="tesela",
        help=(
            "Vision Transformers from a folder of images to a trained, measured, explained, small, fast and "
            "served model."
        ),
        version=f"tesela {__version__}",
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
        help_epilogue=(
            "Every verb takes --help and --json. Exit codes: 0 done, 1 failed, 2 usage, 3 interrupted and "
            "resumable."
        ),
    )
    groups = {
        title: Group(title, sort_key=place)
        for place, title in enumerate(dict.fromkeys(group for _, _, group in VERBS))
    }
    for name, summary, group in VERBS:
        attribute = "app" if name in ("data", "label", "models") else name
        place = f"several.{name}" if name in SEVERAL else name
        app.command(f"tesela.cli.verbs.{place}:{attribute}", name=name, help=summary, group=groups[group])
    app.register_install_completion_command(help="Install completion for this shell (bash, zsh or fish).")
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run the command line.

    Args:
        arguments: the words after ``tesela``.

    Returns:
        the exit code.
    """
    for stream in (sys.stdout, sys.stderr):  # no name may end a verb on a terminal that cannot show it
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.filterwarnings("ignore", module=r"PIL\.")  # damaged metadata, which changes no pixel
    debug = "--debug" in arguments
    words = [word for word in arguments if word != "--debug"]
    try:
        check_verb(words)
        answer: Any = make_app()(words, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except BrokenPipeError:
        # the reader left; do not complain at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1 if leaving.code else 0
    except Exception as error:
        if debug:
            raise
        return report(error)
    except KeyboardInterrupt:
        return complain("interrupted", "run the command again", 3)
    return answer if isinstance(answer, int) and not isinstance(answer, bool) else 0


def report(error: Exception) -> int:
    """Two lines on standard error for any exception; the exit code that belongs to it."""
    if isinstance(error, TeselaError):
        return complain(error.message, error.hint, error.exit_code)
    if isinstance(error, CycloptsError):
        return complain(usage_message(error), usage_hint(error), 2)
    package = missing_package(error)
    if package is not None:
        return complain(
            f"{package} is needed here and not installed", f'pip install "tesela[{EXTRAS[package]}]"', 2
        )
    if isinstance(error, MemoryError):
        return complain("out of memory", "choose a smaller batch with --batch-size", 1)
    return complain(
        f"{type(error).__name__}: {error}", "run again with --debug to see where; please report it", 1
    )


def complain(message: str, hint: str, code: int) -> int:
    """Write the two lines of an error and hand the exit code back."""
    one_line = " ".join(message.split())
    sys.stderr.write(f"error: {one_line}\nhint: {' '.join(hint.split())}\n")
    return code


def check_verb(words: list[str]) -> None:
    """Refuse a first word that is neither a verb nor a flag of tesela itself, before any verb is imported."""
    verbs = [name for name, _, _ in VERBS]
    flags = ["--help", "-h", "--version", "--install-completion", "--debug"]
    if words and words[0].startswith("-") and words[0] not in flags:
        raise UnknownNameError("flag", words[0], flags)
    if words and not words[0].startswith("-") and words[0] not in verbs:
        raise UnknownNameError("command", words[0], verbs)


def missing_package(error: BaseException | None) -> str | None:
    """The optional package whose absence caused ``error``, if that was the cause."""
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in EXTRAS:
            return str(error.name).partition(".")[0]
        error = error.__cause__ or error.__context__
    return None


def usage_message(error: CycloptsError) -> str:
    """What cyclopts found wrong, without its own suggestion."""
    return str(error).partition("Did you mean")[0].strip().rstrip(".")


def usage_hint(error: CycloptsError) -> str:
    """The nearest name if cyclopts offers one, else where the help is."""
    _, found, rest = str(error).partition("Did you mean")
    if found:
        return f"did you mean {rest.strip().rstrip('?')}?"
    return f"see: {' '.join(('tesela', *(error.command_chain or ())))} --help"


if __name__ == "__main__":
    main()
