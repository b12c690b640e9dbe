"""Errors: their tree, exit codes, hints, and that they survive the way home from a worker process."""

from __future__ import annotations

import pickle

import pytest

from tesela.core import errors
from tesela.core.errors import suggestion


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.TeselaError("a", hint="b"), 1),
        (errors.DataError("a", hint="b"), 1),
        (errors.WeightsError("a", hint="b"), 1),
        (errors.StorageError("a", hint="b"), 1),
        (errors.DivergedError("a", hint="b"), 1),
        (errors.UsageError("a", hint="b"), 2),
        (errors.ConfigError("a", hint="b"), 2),
        (errors.UnknownNameError("model", "vit", ["vit_s16"]), 2),
        (errors.MissingExtraError("training", "train"), 2),
        (errors.InterruptedRunError("a", hint="b"), 3),
    ],
)
def test_exit_codes_and_the_way_through_a_process(error: errors.TeselaError, code: int) -> None:
    assert error.exit_code == code
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (again.message, again.hint, str(again)) == (error.message, error.hint, error.message)


def test_image_errors_keep_their_code() -> None:
    again = pickle.loads(pickle.dumps(errors.ImageError("broken", code="truncated", hint="copy it again")))
    assert (again.code, again.message) == ("truncated", "broken")


def test_suggestions_name_the_nearest_or_list_what_there_is() -> None:
    assert suggestion("vit_s61", ["vit_s16", "vit_b16", "cct"]) == "did you mean vit_s16 or vit_b16?"
    assert suggestion("zzz", ["b", "a"]) == "choose one of: a, b"
    assert suggestion("zzz", []) == "there is nothing to choose from"
    assert suggestion("zzz", [f"{n:02d}" for n in range(20)]).endswith("10, 11, ... (20 in all)")


def test_missing_extra_says_how_to_install_it() -> None:
    assert errors.MissingExtraError("the server", "serve").hint == 'pip install "tesela[serve]"'
