"""``tesela train``: every field of TrainConfig as an option.

Order of layers, later ones win: defaults, ``--recipe``, ``--config FILE.yaml``, the command line.
``key=value`` words are accepted beside ``--key value``, and ``--net.depth 6`` reaches the model's own
configuration. Odd: options are parsed as text and converted by the configuration, so that a wrong value or
name gives the same error however it was given; nothing may be abbreviated.
"""

from __future__ import annotations

import inspect
import os
import shlex
import time
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from tesela.cli.output import result as print_result
from tesela.cli.output import say, use_json
from tesela.core.config import Leaf, leaves, read_yaml
from tesela.core.errors import ConfigError, MissingExtraError, UsageError, suggestion
from tesela.core.progress import stderr_console
from tesela.core.terminal import line_text
from tesela.hardware.allocator import keep_freed_memory
from tesela.hardware.launch import launched
from tesela.recipes import known as known_recipes
from tesela.tasks.catalog import AUTO, find_task, task_names
from tesela.training.config import TrainConfig, layered, objective_fields

if TYPE_CHECKING:
    from rich.console import Console

    from tesela.data.source import Source

GROUPS = {
    "data": "Data",
    "augment": "Augmentation",
    "optim": "Optimizer",
    "schedule": "Learning rate",
    "ema": "Moving average",
    "lora": "Adapters",
}
TITLES = ("Run", "Objective", *GROUPS.values())
#: Classes of words, by what the help calls them: values are read by the configuration, whatever they are.
WORDS: dict[str, Any] = {
    "STR": str,
    **{name: type(name, (str,), {}) for name in ("CHOICE", "INT", "FLOAT", "LIST")},
}
#: Fields that hold any settings of another component, given as --net.NAME VALUE.
FREE_MAPPINGS = ("net", "objective", "decoder")
#: Further names of options: those that other verbs and hints give them.
ALIASES = {
    "data.formats": "formats",
    "data.max_pixels": "max-pixels",
    "data.max_unreadable": "max-unreadable",
}
_TOP = {
    "resume": "Continue the run in --out where it stands; DATA and all options may be left out.",
    "quiet": "Show neither plan nor progress.",
    "json": "Print the result as one JSON object, the last line of standard output.",
}


def train(*words: str, **options: Any) -> int | None:
    """Train a model on your images.

    A folder of class folders or of images and masks, IDX or Parquet files, a CSV/JSONL manifest, or digits.

    Any option may also be written key=value. Options of the model itself are --net.NAME VALUE; see: tesela
    models show NAME. A segmenter's decoder is --decoder.name NAME, its options are --decoder.NAME VALUE.
    """
    json, resume, quiet = (
        bool(options.pop("json", False)),
        bool(options.pop("resume", False)),
        bool(options.pop("quiet", False)),
    )
    use_json(json)
    given = {
        flag_key(name): str(value) if isinstance(value, str) else value
        for name, value in options.items()
        if value is not None
    }
    file = given.pop("config", None)
    data, extra = sort_words(words)
    given.update(extra)
    file = given.pop("config", file)
    if data is not None:
        given["data.source"] = data
    config = resumed(given) if resume else layered(*layers(given, file))
    return _run(config, resume=resume, json=json, quiet=quiet)


def _run(config: TrainConfig, *, resume: bool, json: bool, quiet: bool) -> int | None:
    keep_freed_memory()  # before torch is imported
    launch = launched()
    if launch.ranks > 1:  # before torch: each process would warn of weights that a loss could leave out
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    console = stderr_console(quiet=quiet or launch.rank > 0)  # one log and one bar for all processes
    # before torch, which takes seconds to import
    source = None if resume or launch.ranks > 1 else opened(config, console)
    from tesela.api import train_config

    answer = train_config(config, resume=resume, console=console, begin=process_begin(), source=source)
    if launch.rank > 0:
        return None
    summary = find_task(answer.task).summary(answer.scores, str(answer.split))
    say(f"{summary or 'trained'}, {answer.steps:,} steps in {answer.seconds:,.1f} s")
    say(f"model   {answer.path / 'bundle'}")
    if (answer.path / "report.html").exists():
        say(f"report  {answer.path / 'report.html'}")
    for line in next_lines(answer.path):
        say(line)
    print_result(answer.mapping(), json)
    return None


def opened(config: TrainConfig, console: Console) -> Source:
    """The data of a new run, said in a line; what is wrong with folder, model or data comes before it.

    Raises:
        TeselaError: torch is missing, the folder is taken, there is no such model, or the data cannot be
            trained on.
    """
    from tesela.core.packages import installed
    from tesela.models.catalog import find_model
    from tesela.runs.folder import Run
    from tesela.tasks.opening import open_for_task
    from tesela.training.run import check_folder

    if not installed("torch"):
        raise MissingExtraError("training", "train")
    if config.out is not None:
        check_folder(Run(config.out), config, resume=False)
    if config.model != AUTO:
        find_model(config.model)
    if not config.data.source:
        raise UsageError("no data was named", hint="tesela train DATA")
    source = open_for_task(config.task, config.data)
    images = sum(len(items) for items in source.splits.values())
    classes = len(source.labels) or (len(source.masks.names) if source.masks is not None else 0)
    said = f"opened      {source.name}: {images:,} images, {classes} classes"
    console.print(line_text(said), markup=False, soft_wrap=True)
    return source


def next_lines(run: Path) -> list[str]:
    """Commands that use a finished run."""
    folder = shlex.quote(str(run))
    verbs = (f"predict {folder} IMAGES", f"explain {folder} IMAGES", f"export {folder}", f"serve {folder}")
    return [f"{'next' if not place else '':8}tesela {words}" for place, words in enumerate(verbs)]


def process_begin() -> float:
    """Monotonic time at which this process was started.

    A time budget counts from the moment of the command.
    """
    import psutil

    age: float = time.time() - psutil.Process().create_time()
    return time.monotonic() - max(0.0, age)


def layers(given: Mapping[str, Any], file: str | None) -> Iterator[Mapping[str, Any]]:
    """The layers over the defaults: recipe, file, command line."""
    written = read_yaml(Path(file)) if file is not None else {}
    recipe = given.get("recipe", written.get("recipe"))
    if recipe is not None:
        from tesela.recipes import find_recipe

        yield find_recipe(str(recipe))
    yield written
    yield given


def resumed(given: dict[str, Any]) -> TrainConfig:
    """The configuration of the run in ``--out`` with what was given on top."""
    from tesela.training.run import resumed_config

    out = given.pop("out", None)
    if out is None:
        raise UsageError("--resume needs the run's folder", hint="tesela train --out RUN --resume")
    return resumed_config(str(out), given)


def sort_words(words: tuple[str, ...]) -> tuple[str | None, dict[str, Any]]:
    """DATA, and the settings among words.

    ``key=value``, and options that are not fields of TrainConfig (``--net.depth 6``).

    Raises:
        UsageError: more than one DATA, or an option without a value.
        ConfigError: an option that does not exist.
    """
    data: str | None = None
    found: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        if word.startswith("--"):
            key, _, value = word.removeprefix("--").partition("=")
            check_key(key, shown=word)
            if "=" not in word:
                value = next(rest, "")
                if not value or value.startswith("--"):
                    raise UsageError(f"{word} has no value", hint=f"write {word} VALUE")
            found[flag_key(key)] = parsed(value)
        elif is_setting(word):
            key, _, value = word.partition("=")
            check_key(key, shown=key)
            found[flag_key(key)] = parsed(value) if key.partition(".")[0] in FREE_MAPPINGS else value
        elif data is None:
            data = word
        else:
            raise UsageError(
                f"two data sets were named: {data} and {word}",
                hint="name one; write options as --key value or key=value",
            )
    return data, found


def is_setting(word: str) -> bool:
    """Whether a word is ``key=value`` rather than a path that holds an equals sign."""
    key, equals, _ = word.partition("=")
    return (
        bool(equals)
        and all(part.replace("-", "_").isidentifier() for part in key.split("."))
        and not Path(word).exists()
    )


def check_key(key: str, *, shown: str) -> None:
    """Refuse what is neither a field nor a setting of the model or the objective.

    The nearest name is offered.
    """
    known = {flag_name(leaf.name) for leaf in (*leaves(TrainConfig), *objective_fields().values())} | {
        "config"
    }
    name = flag_name(key.replace("-", "_"))
    section, _, field = name.partition(".")
    if name in known or (section in FREE_MAPPINGS and field):
        return
    switches = {f"--{name}" for name in _TOP} if shown.startswith("--") else set()
    offered = {f"--{name}" for name in known} | switches if shown.startswith("--") else known
    raise ConfigError(
        f"unknown option {shown.partition('=')[0]}", hint=suggestion(shown.partition("=")[0], offered)
    )


def parsed(value: str) -> Any:
    """The value of a model's own option as YAML would read it: a number, a truth value, a list or text."""
    import yaml

    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return value


def flag_name(field: str) -> str:
    """``from_`` as ``from``, ``batch_size`` as ``batch-size``."""
    return field.rstrip("_").replace("_", "-")


def flag_key(name: str) -> str:
    """The field of an option or parameter: ``optim__lr``, ``batch-size``, ``from``."""
    key = name.replace("__", ".").replace("-", "_")
    return "from_" if key == "from" else key


def signature() -> inspect.Signature:
    """One keyword per field, for cyclopts to parse and to explain."""
    words = Annotated[
        str,
        Parameter(name="DATA", allow_leading_hyphen=True, help="Images to train on, and key=value settings."),
    ]
    parameters = [inspect.Parameter("words", inspect.Parameter.VAR_POSITIONAL, annotation=words)]
    for leaf in leaves(TrainConfig):
        if leaf.name not in (*FREE_MAPPINGS, "data.source"):
            parameters.append(_keyword(leaf))
    parameters += [_keyword(leaf, title="Objective") for leaf in objective_fields().values()]
    parameters.append(
        _switch(
            "config", str | None, None, Parameter(name="--config", help="YAML file with any of these fields.")
        )
    )
    for name, text in _TOP.items():
        parameters.append(
            _switch(
                name, bool, False, Parameter(name=f"--{name}", negative="", show_default=False, help=text)
            )
        )
    return inspect.Signature(parameters)


def _keyword(leaf: Leaf, *, title: str = "Run") -> inspect.Parameter:
    section, _, field = leaf.name.rpartition(".")
    title = GROUPS.get(section, title)
    group = Group(title, sort_key=TITLES.index(title))
    boolean = leaf.type is bool
    names = (flag_name(leaf.name), *filter(None, [ALIASES.get(leaf.name)]))
    parameter = Parameter(
        name=[f"--{name}" for name in names],
        help=f"{' '.join(leaf.help.split())} {choices(leaf)}[default: {_shown(leaf.default)}]",
        group=group,
        show_default=False,
        negative=f"--{section}{'.' if section else ''}no-{flag_name(field)}" if boolean else "",
    )
    kind = bool if boolean else WORDS[type_word(leaf)]
    return _switch(leaf.name.replace(".", "__"), kind | None, None, parameter)


def type_word(leaf: Leaf) -> str:
    """The word in the help for what a field takes: CHOICE, INT, FLOAT, LIST or STR."""
    if choices(leaf):
        return "CHOICE"
    parts = [part for part in (typing.get_args(leaf.type) or (leaf.type,)) if part is not type(None)]
    if typing.get_origin(leaf.type) is tuple or any(typing.get_origin(part) is tuple for part in parts):
        return "LIST" if int not in parts else "INT"
    return "INT" if int in parts else "FLOAT" if float in parts else "STR"


def choices(leaf: Leaf) -> str:
    """The words that a field takes, if there is a closed list of several."""
    found = typing.get_args(leaf.type) if typing.get_origin(leaf.type) is typing.Literal else ()
    found = (AUTO, *task_names()) if leaf.name == "task" else found
    found = tuple(known_recipes()) if leaf.name == "recipe" else found
    return f"[choices: {', '.join(str(word) for word in found)}] " if len(found) > 1 else ""


def _switch(name: str, kind: Any, default: Any, parameter: Parameter) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, parameter]
    )


def _shown(default: Any) -> str:
    if isinstance(default, (tuple, list)):
        return ",".join(str(item) for item in default)
    return str(default).lower() if isinstance(default, bool) or default is None else str(default)


train.__signature__ = signature()  # type: ignore[attr-defined]
train.__annotations__ = {name: parameter.annotation for name, parameter in signature().parameters.items()}
