"""Reading of a folder's layout: folders that are splits, classes, or neither.

A split is a folder that is named as one and holds class folders; a class is a folder of images, so a class
called "test" is possible. Read are also splits inside class folders (``cat/train``), one folder around
everything (``photos/photos``) or around the classes of a split (``seg_train/seg_train``), and a test split
without class folders, which has no labels. Where folders contradict one another the data is refused, and the
folder that does not fit is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tesela.core.errors import DataError
from tesela.core.pathnames import path_text
from tesela.data.sources.layout.split_names import refuse_doubles, says_nothing, split_word, splits_of
from tesela.data.sources.layout.tree import Folder, FolderTree
from tesela.data.sources.tables.labels import label_text

#: Folders that programs put beside splits.
OUTPUTS = frozenset(
    (
        *("results", "result", "runs", "run", "logs", "log", "output", "outputs", "checkpoints", "weights"),
        *("models", "plots", "figures", "tmp", "temp", "cache", "wandb", "mlruns", "tensorboard"),
        *("lightning_logs", "predictions", "explanations", "inspection", "reports", "backup"),
        *(
            "pred",
            "seg_pred",
            "predict",
            "unlabeled",
            "unlabelled",
            "unsup",
            "inference",
            "sample",
            "samples",
        ),
    )
)
_NAMED = 5


@dataclass(frozen=True, slots=True)
class FolderLayout:
    """What the folders stand for.

    Attributes:
        images: label and path below the root of every image of each split.
        notes: remarks for people.
        aside: folders that were left out with a note.
    """

    images: dict[str, list[tuple[str, str]]]
    notes: tuple[str, ...]
    aside: tuple[Folder, ...]


def read_layout(tree: FolderTree) -> FolderLayout:
    """The splits and classes of a scanned folder.

    Raises:
        DataError: folders contradict one another.
    """
    return _Reader(tree).read()


class _Reader:
    """One reading, which collects notes on its way."""

    def __init__(self, tree: FolderTree) -> None:
        self.root = tree.root
        self.top = tree.top
        self.written, self.links = tree.written, tree.links
        self.notes: list[str] = []
        self.aside: list[Folder] = []

    def read(self) -> FolderLayout:
        images, folder = self._images(self.top)
        empty = self._empty(folder)
        if self.written:
            self.notes.append("written by tesela, so no data: " + _listed(self.written))
        if self.links:
            self.notes.append(
                "not followed, as they lead back or to what is there already: " + _listed(self.links)
            )
        if empty:
            self.notes.append("folders without images, which are no classes: " + _listed(empty))
        return FolderLayout(images, tuple(self.notes), tuple(self.aside))

    def _images(self, folder: Folder) -> tuple[dict[str, list[tuple[str, str]]], Folder]:
        """The images below a folder by split, and the folder that holds the classes or splits."""
        children = folder.filled
        splits = splits_of(child.name for child in children)
        named = [child for child in children if child.name in splits]
        rest = [child for child in children if child.name not in splits]
        if any(splits[child.name] == "train" and child.filled for child in named) and not _inverted(children):
            self._leave_outputs(rest, beside=named)
            return self._split_images(named, splits), folder
        inner = [child for child in rest if _holds_splits(child)]
        if len(inner) == 1 and all(_is_flat(child) for child in children if child is not inner[0]):
            others = [child for child in children if child is not inner[0]]
            self._leave_outputs([child for child in others if child.name not in splits], beside=inner)
            for child in others:
                if child.name in splits:
                    self._leave(child, f"{child.path} has no class folders, so its {child.count} images")
            return self._inside(inner[0])
        if inner:
            raise self._misfit(inner[0], "has splits of its own", children)
        if _inverted(children):
            return self._inverted_images(children), folder
        mixed = [child for child in rest if _split_children(child)]
        if mixed and len(children) > 1:
            raise self._misfit(mixed[0], "has splits inside, and the folders beside it have not", children)
        if named and not rest:
            return self._only_named(named, splits), folder
        inside = _unwrapped(folder, set())
        if inside is not folder:
            return self._inside(inside)
        if named:
            self.notes.append("read as classes, not as splits: " + _listed(child.name for child in named))
        return {"train": self._by_class(folder)}, folder

    def _inside(self, folder: Folder) -> tuple[dict[str, list[tuple[str, str]]], Folder]:
        found = self._images(folder)
        if found[1] is folder:
            self.notes.append(f"read from the folder {path_text(folder.path)} in it")
        return found

    def _split_images(
        self, named: Sequence[Folder], splits: dict[str, str]
    ) -> dict[str, list[tuple[str, str]]]:
        """The images of each split; those of a split without class folders are left aside."""
        refuse_doubles({child.name: splits[child.name] for child in named}, self.root)
        ordered = sorted(named, key=lambda child: splits[child.name] != "train")
        classes: set[str] = set()
        found: dict[str, list[tuple[str, str]]] = {}
        for child in ordered:
            split = splits[child.name]
            if not child.filled or (split != "train" and _is_unlabelled(child)):
                self._leave(child, f"{split} has no labels ({child.path} has no class folders): its images")
                continue
            inner = _unwrapped(child, classes)
            found[split] = self._by_class(inner)
            if split == "train":
                classes = {label for label, _ in found[split]}
            if split_word(child.name) == "eval":
                self.notes.append(f"{child.name} is read as the {split} split")
        return {split: found[split] for split in (splits[child.name] for child in named) if split in found}

    def _only_named(
        self, named: Sequence[Folder], splits: dict[str, str]
    ) -> dict[str, list[tuple[str, str]]]:
        """Folders named as splits and nothing else, none of them a train split with class folders."""
        flat = [child for child in named if not child.filled]
        if len(flat) == len(named) == 1:
            return {"train": [(label_text(flat[0].name), path) for path in flat[0].image_paths()]}
        if flat and (len(flat) == len(named) or any(splits[child.name] == "train" for child in flat)):
            raise DataError(
                f"{path_text(self.root)}: {_listed(child.name for child in flat)} "
                f"{'hold' if len(flat) > 1 else 'holds'} images but no class folders",
                hint=without_classes_hint(self.top),
            )
        return self._split_images(named, splits)

    def _inverted_images(self, classes: Iterable[Folder]) -> dict[str, list[tuple[str, str]]]:
        """Splits inside of class folders."""
        found: dict[str, list[tuple[str, str]]] = {}
        for folder in classes:
            splits = splits_of(child.name for child in folder.filled)
            refuse_doubles(splits, self.root / folder.path)
            for child in folder.filled:
                found.setdefault(splits[child.name], []).extend(
                    (label_text(folder.name), path) for path in child.image_paths()
                )
        self.notes.append("the splits are folders inside of the class folders")
        return found

    def _by_class(self, folder: Folder) -> list[tuple[str, str]]:
        names: dict[str, str] = {}
        found = []
        for child in folder.filled:
            if child.name == "masks" and any(other.name == "images" for other in folder.folders):
                raise DataError(
                    f"{path_text(self.root / folder.path)} holds images and masks, which is for segmentation",
                    hint="classification needs a folder of class folders",
                )
            label = label_text(child.name)
            first = names.setdefault(label, child.name)
            if first != child.name:
                self.notes.append(
                    f"two folders in {folder.path or folder.name or '.'} are one class: {label}"
                )
            found += [(label, path) for path in child.image_paths()]
        return found

    def _empty(self, folder: Folder) -> list[str]:
        """Folders without a single image where a class could be."""
        splits = splits_of(child.name for child in folder.folders)
        places = [folder, *(_unwrapped(child, set()) for child in folder.filled if child.name in splits)]
        return [
            path_text(child.path)
            for place in places
            for child in place.folders
            if not child.count and not any(f"{path}/".startswith(f"{child.path}/") for path in self.written)
        ]

    def _leave_outputs(self, folders: Iterable[Folder], *, beside: Sequence[Folder]) -> None:
        """Leave aside what programs put there.

        Raises:
            DataError: something else is there.
        """
        for child in folders:
            if child.name.lower() not in OUTPUTS:
                raise self._misfit(child, "is no split", [*beside, child])
            self._leave(child, f"{child.path} is no split: its {child.count} images")

    def _leave(self, folder: Folder, text: str) -> None:
        count = "" if str(folder.count) in text else f" ({folder.count})"
        self.notes.append(f"{path_text(text)}{count} are left aside")
        self.aside.append(folder)

    def _misfit(self, folder: Folder, what: str, among: Sequence[Folder]) -> DataError:
        others = _listed(other.name for other in among if other is not folder)
        return DataError(
            f"{path_text(self.root / folder.path)} ({folder.count} images) {what}; beside it: {others}",
            hint="move it out of the data, name it train, val or test, or give the folder in it that is the "
            "data",
        )


def without_classes_hint(top: Folder) -> str:
    """The hint for images without class folders; tables beside them may say the classes."""
    tables = [name for name in top.others if name.lower().endswith((".csv", ".tsv", ".jsonl"))]
    if tables:
        return f"if a table says the classes, give it in place of the folder: {_listed(tables)}"
    return (
        "put the images of each class into a folder named after it, or write a CSV of path and label; to "
        "learn without labels: tesela train DATA --task pretrain"
    )


def _is_flat(folder: Folder) -> bool:
    """Whether its images lie in one folder, at whatever depth."""
    while not folder.images and len(folder.filled) == 1:
        folder = folder.filled[0]
    return not folder.filled


def _is_unlabelled(folder: Folder) -> bool:
    """Whether its images lie in one folder in it that is no class, such as ``test/images``."""
    return _is_flat(folder) and all(says_nothing(child.name) for child in folder.filled)


def _split_children(folder: Folder) -> bool:
    """Whether it holds folders named as splits, train among them."""
    return "train" in splits_of(child.name for child in folder.filled).values()


def _holds_splits(folder: Folder) -> bool:
    """Whether it, or the one folder in it, is divided into splits that hold class folders."""
    while True:
        splits = splits_of(child.name for child in folder.filled)
        if any(splits.get(child.name) == "train" and child.filled for child in folder.filled):
            return True
        if len(folder.filled) != 1:
            return False
        folder = folder.filled[0]


def _inverted(children: Sequence[Folder]) -> bool:
    """Whether each of the folders holds splits and these hold images."""
    return len(children) > 1 and all(
        _split_children(child)
        and not child.images
        and len(splits_of(inner.name for inner in child.filled)) == len(child.filled)
        and not any(inner.filled for inner in child.filled)
        for child in children
    )


def _unwrapped(folder: Folder, classes: set[str]) -> Folder:
    """The folder that holds the classes: this one, or the one folder in it, at any depth, that holds several.

    Args:
        folder: of a split, or the whole.
        classes: those of the train split; empty if they are not known yet.
    """
    inner = folder
    while len(inner.filled) == 1 and not inner.images:
        if label_text(inner.filled[0].name) in classes:
            return inner
        inner = inner.filled[0]
    holds = not inner.images and len(inner.filled) > 1
    known = not classes or any(label_text(child.name) in classes for child in inner.filled)
    return inner if holds and known else folder


def _listed(names: Iterable[str]) -> str:
    found = [path_text(name) for name in names]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return ", ".join(found[:_NAMED]) + more
