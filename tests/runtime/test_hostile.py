"""Files that ask for very much work, beside good ones: each gets its reason in time."""

from __future__ import annotations

import time

from tests.imaging.test_work import ATTACKS, PROMPT
from tests.runtime.bundles import digits_run, held_out

from tesela.runtime.predictor import Predictor


def test_hostile_files_get_a_reason_and_good_ones_their_label() -> None:
    predictor = Predictor(digits_run())
    good = held_out(1)[0][0]
    (wanted,) = predictor.predict([good])
    begun = time.process_time()
    found = predictor.predict([good, *ATTACKS.values(), good])
    assert time.process_time() - begun < PROMPT * len(ATTACKS)
    assert [result.failure.code for result in found[1:-1]] == ["too_much_work"] * len(ATTACKS)
    assert [result.scores[0].label for result in (found[0], found[-1])] == [wanted.scores[0].label] * 2
