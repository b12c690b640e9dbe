"""Decoding ahead: order, failures, bounded look-ahead, threads that end, tables of many rows."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.runtime.bundles import digits, digits_run, png

from tesela.core.errors import ImageError
from tesela.imaging.limits import LOCAL_LIMITS
from tesela.imaging.preprocess import fitted_view
from tesela.imaging.spec import ImageSpec
from tesela.runtime import decoding
from tesela.runtime.decoding import decode_ahead
from tesela.runtime.predictor import Predictor
from tesela.runtime.stored import ImageSource, content

SPEC = ImageSpec(height=6, width=9, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def picture(number: int, kind: str) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (20 + number, 30, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize("turns", [False, True])
def test_views_are_those_of_one_after_another(tmp_path: Path, turns: bool) -> None:
    """All formats, as bytes, files and pixels, with failures between, in order and bit for bit."""
    sources: list[ImageSource] = []
    for number in range(30):
        data = picture(number, FORMATS[number % len(FORMATS)])
        path = tmp_path / f"{number}.img"
        path.write_bytes(data)
        sources += [data, path]
    sources[7:7] = [b"", b"\xff\xd8\xff", tmp_path / "absent.png", np.zeros((4, 5, 3), np.uint8)]
    found = list(decode_ahead(sources, SPEC, limits=LOCAL_LIMITS, ahead=5, turns=turns))
    assert len(found) == len(sources)
    assert [source is other for (source, _), other in zip(found, sources, strict=True)] == [True] * len(found)
    for source, view in found:
        try:
            image, size = fitted_view(content(source), SPEC, limits=LOCAL_LIMITS)
        except ImageError as error:
            assert isinstance(view, ImageError)
            assert (view.code, view.message) == (error.code, error.message)
        else:
            assert not isinstance(view, ImageError)
            np.testing.assert_array_equal(view[0], image)
            assert view[1] == size


def test_doubtful_files_are_decoded_in_the_main_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where alone the limit on processor time works; ordinary ones in threads; both at their own limits."""
    seen: dict[str, tuple[bool, float | None]] = {}
    kinds = {picture(1, kind): kind for kind in FORMATS}

    def view(source: bytes, spec: ImageSpec, *, limits: object) -> object:
        main = threading.current_thread() is threading.main_thread()
        seen[kinds[source]] = main, limits.seconds  # type: ignore[attr-defined]
        return fitted_view(content(source), spec, limits=LOCAL_LIMITS)

    monkeypatch.setattr(decoding, "fitted_view", view)
    monkeypatch.setattr(decoding, "cores", lambda: 2)
    limits = Predictor(digits_run()).limits
    assert len(list(decode_ahead(kinds, SPEC, limits=limits, ahead=2))) == len(FORMATS)
    assert limits.seconds is not None
    assert {kind: main for kind, (main, _) in seen.items()} == {
        kind: kind not in ("JPEG", "PNG") for kind in FORMATS
    }
    # the limit counts the time of two threads beside it
    assert seen["GIF"][1] == 3 * limits.seconds
    monkeypatch.setattr(decoding, "MOST_PIXELS", 600)
    list(decode_ahead(kinds, SPEC, limits=limits, ahead=2))
    assert all(main for main, _ in seen.values())


def test_an_iterator_is_consumed_no_further_than_said() -> None:
    """Ten thousand images wait nowhere in memory; what is not wanted any more is not decoded."""
    given = 0

    def endless() -> Iterator[ImageSource]:
        nonlocal given
        while True:
            given += 1
            yield png(digits()[0][0])

    before = threading.active_count()
    results = Predictor(digits_run()).stream(endless(), batch=4)
    for _ in range(8):
        next(results)
    assert given <= 8 + 4 + 4 + 1
    results.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_nothing_is_decoded_while_a_batch_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all cores compute; with one of two threads, the next images are decoded beside it."""
    busy, beside = threading.Event(), list[bool]()

    def view(source: bytes, spec: ImageSpec, *, limits: object) -> object:
        del limits
        beside.append(busy.is_set())
        return fitted_view(content(source), spec, limits=LOCAL_LIMITS)

    monkeypatch.setattr(decoding, "fitted_view", view)
    monkeypatch.setattr("tesela.runtime.predictor.cores", lambda: 2)
    for threads, wanted in ((2, False), (1, True)):
        beside.clear()
        predictor = Predictor(digits_run(), backend="torch", precision="fp32", threads=threads)
        compute = predictor.outputs

        def slowly(images: list[np.ndarray], compute: Callable[..., Any] = compute) -> Any:
            busy.set()
            time.sleep(0.05)
            found = compute(images)
            busy.clear()
            return found

        monkeypatch.setattr(predictor, "outputs", slowly)
        assert len(predictor.predict([png(digits()[0][0])] * 24, batch=4)) == 24
        assert any(beside) is wanted


def test_an_error_of_the_sources_ends_the_threads() -> None:
    def broken() -> Iterator[ImageSource]:
        yield png(digits()[0][0])
        raise OSError("the list ends")

    before = threading.active_count()
    with pytest.raises(OSError, match="the list ends"):
        Predictor(digits_run()).predict(broken())
    assert threading.active_count() == before
