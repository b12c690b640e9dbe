"""The documented outcome of every bad and odd image, as ``predict`` and a server give it.

    python -m pytest tests/imaging/test_outcomes.py     # compares docs/outcomes.md
    TESELA_WRITE_DOCS=1 python -m pytest ...            # writes it

And very many malformed images: 2,000 here, 20,000 with ``TESELA_MALFORMED=20000``.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scripts.hostile_images import jpeg, png
from tests.imaging.odd_images import ODD, encoded
from tests.runtime.bundles import held_out
from tests.serve.clients import client

from tesela.core.errors import ImageError
from tesela.imaging.decode import CODES
from tesela.imaging.limits import DEFAULT_LIMITS, LOCAL_LIMITS, DecodeLimits
from tesela.imaging.preprocess import fitted_view
from tesela.imaging.spec import ImageSpec
from tesela.serve import config as serve_config
from tesela.serve.errors import REFUSALS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "outcomes.md"
SPEC = ImageSpec(height=32, width=32, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
#: Of decoding an image: what is refused here is refused for what is counted, on a slow machine too.
UNHURRIED = 60.0
COUNT = int(os.environ.get("TESELA_MALFORMED", "2000"))
HEAD = """# Bad and odd images

What becomes of each, as the tests have seen it: `predict` on one's own disk, with its reason, and the
answer of a server with its usual limits. Where an image is read, [formats and limits](formats.md) says how:
upright, on white, the first frame, the high byte of 16 bits. A test writes this page.
"""


def outcome(data: bytes, limits: DecodeLimits) -> str:
    """The code of a refusal, or what was read."""
    try:
        _, size = fitted_view(data, SPEC, limits=replace(limits, seconds=UNHURRIED))
    except ImageError as error:
        assert error.code in CODES
        assert error.hint
        return f"`{error.code}`"
    return f"read, {size[1]:,} x {size[0]:,}"


def page() -> str:
    """The page's text."""
    lines = [HEAD]
    with client(decode_seconds=120, deadline=300) as api:  # a busy machine is no reason
        for group, files in ODD.items():
            lines += [f"## {group}\n", "| image | `predict` | server |", "|---|---|---|"]
            for name, make in files.items():
                data = make()
                answer = api.post("/v1/classify", content=data)
                code = "" if answer.status_code == 200 else f" `{answer.json()['code']}`"
                assert not code or REFUSALS[answer.json()["code"]].status == answer.status_code
                lines.append(f"| {name} | {outcome(data, LOCAL_LIMITS)} | {answer.status_code}{code} |")
            lines.append("")
    return "\n".join(lines)


def test_the_page_says_what_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_config, "DECODE_SECONDS", UNHURRIED)
    text = page()
    if os.environ.get("TESELA_WRITE_DOCS"):
        PAGE.write_text(text, "utf-8")
    assert PAGE.read_text("utf-8") == text, "TESELA_WRITE_DOCS=1 writes the page"
    assert " 5" not in "".join(line.rpartition("|")[0].rpartition("|")[2] for line in text.splitlines())


def malformed(count: int) -> Iterator[bytes]:
    """Cut at every byte, bytes and markers changed, pieces of one in another, and lengths that lie."""
    random = np.random.default_rng(0)
    good = [jpeg((24, 24)), jpeg((24, 24), progressive=False), encoded(), png((24, 16)), held_out(1)[0][0]]
    good += [encoded(kind="WEBP"), encoded(kind="WEBP", lossless=True), encoded(kind="GIF")]
    cuts = [data[:length] for data in good for length in range(len(data))]
    order = random.permutation(len(cuts))
    for number in range(count):
        if number % 4 == 0 and number // 4 < len(cuts):
            yield cuts[order[number // 4]]
            continue
        data = bytearray(good[random.integers(len(good))])
        for _ in range(random.integers(1, 6)):
            at = int(random.integers(len(data)))
            kind = random.integers(4)
            if kind == 0:
                data[at] = random.integers(256)
            elif kind == 1:
                data[at : at + 2] = bytes([0xFF, random.integers(0xC0, 0xFF)])
            elif kind == 2:
                data[at : at + 4] = random.integers(0, 256, 4, np.uint8).tobytes()
            else:
                other = good[random.integers(len(good))]
                begin = int(random.integers(len(other)))
                data[at:at] = other[begin : begin + int(random.integers(1, 200))]
        yield bytes(data)


def test_malformed_images_are_answered_or_refused_by_name() -> None:
    """None crashes or takes long, none ends in a 5xx; each refusal has a code of the list."""
    seen: Counter[str] = Counter()
    slowest = 0.0
    with client() as api:
        for number, data in enumerate(malformed(COUNT)):
            begun = time.process_time()
            try:
                fitted_view(data, SPEC, limits=DEFAULT_LIMITS)
                code = ""
            except ImageError as error:
                code = error.code
            slowest = max(slowest, time.process_time() - begun)
            assert not code or code in CODES
            seen[code] += 1
            if number % 4 == 0:
                answer = api.post("/v1/classify", content=data)
                assert (answer.status_code == 200) == (not code)
                assert answer.status_code == 200 or answer.json()["code"] == code
    assert slowest < 2
    assert {"truncated", "corrupt", "not_an_image", "too_many_pixels"} <= set(seen)


@pytest.mark.parametrize("limits", [DEFAULT_LIMITS, LOCAL_LIMITS])
def test_a_refusal_never_shows_the_files_content(limits: DecodeLimits) -> None:
    for data in (b"<html>SECRET</html>" * 9, jpeg()[:200] + b"SECRET" * 90, b"BM" + b"SECRET" * 20):
        with pytest.raises(ImageError) as caught:
            fitted_view(data, SPEC, limits=limits)
        assert "SECRET" not in f"{caught.value.message} {caught.value.hint}"
