"""Files that ask for very much work, beside good ones: each gets its reason in time."""

from __future__ import annotations

import time

from scripts.hostile_images import hostile_file
from tests.imaging.test_work import PROMPT, REFUSED
from tests.runtime.bundles import digits_run, held_out

from tesela.runtime.predictor import Predictor


def test_hostile_files_get_a_reason_and_good_ones_their_label() -> None:
    predictor = Predictor(digits_run())
    good = held_out(1)[0][0]
    (wanted,) = predictor.predict([good])
    hostile = [hostile_file(name) for name in REFUSED]
    begun = time.process_time()
    found = predictor.predict([good, *hostile, good])
    assert time.process_time() - begun < PROMPT * len(REFUSED)
    assert [result.failure.code for result in found[1:-1]] == ["too_much_work"] * len(REFUSED)
    assert [result.scores[0].label for result in (found[0], found[-1])] == [wanted.scores[0].label] * 2
