"""Which files words name, against lists written down by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tesela.core.errors import DataError, UsageError
from tesela.runtime.sources import find_images


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in (
        "b.PNG",
        "a.jpg",
        "notes.txt",
        "sub/c.webp",
        "sub/deep/d.tiff",
        ".hidden/e.png",
        "sub/.f.png",
        "sub/._c.webp",
        "odd.data",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_folder_is_searched_below_in_sorted_order_without_what_systems_leave(tree: Path) -> None:
    assert [str(path.relative_to(tree)) for path in find_images([str(tree)])] == [
        "a.jpg",
        "b.PNG",
        "sub/.f.png",
        "sub/c.webp",
        "sub/deep/d.tiff",
    ]


def test_files_keep_their_order_and_none_comes_twice(tree: Path) -> None:
    words = [str(tree / "sub/c.webp"), str(tree / "odd.data"), str(tree / "sub")]
    assert [path.name for path in find_images(words)] == ["c.webp", "odd.data", ".f.png", "d.tiff"]


def test_patterns(tree: Path) -> None:
    assert [path.name for path in find_images([str(tree / "*.jpg"), str(tree / "**/*.tiff")])] == [
        "a.jpg",
        "d.tiff",
    ]


def test_a_name_with_brackets_is_a_file_first(tree: Path) -> None:
    (tree / "x[1].png").touch()
    assert [path.name for path in find_images([str(tree / "x[1].png")])] == ["x[1].png"]


def test_nothing_found_is_an_error(tree: Path) -> None:
    with pytest.raises(UsageError, match="there is no image"):
        find_images([str(tree / "absent.png")])
    with pytest.raises(UsageError, match="there is no image"):
        find_images([str(tree / "*.bmp")])
    with pytest.raises(UsageError, match="no image was given"):
        find_images([])
    with pytest.raises(DataError, match="there is no image in"):
        find_images([str(tree / "empty")])
