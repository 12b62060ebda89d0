"""What a walk has reached so far: each thing under a name of its own, with its digest or version."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from datastore_lab.cache import sources
from datastore_lab.cache.atoms import hexdigest


class Reached:
    """The parts of a key, and the local code that is still to be visited.

    Attributes
    ----------
    parts : dict of str to str
        Digest or version of each part by name.
    """

    def __init__(self) -> None:
        self.parts: dict[str, str] = {}
        self._labels: dict[int, str] = {}
        self._kept: list[Any] = []
        self._waiting: list[tuple[Any, str]] = []
        self._docs: dict[str, str] = {}

    def label(self, obj: Any, wanted: str) -> str:
        """Give the label of a function, class or module, and remember to visit it."""
        known = self._labels.get(id(obj))
        if known is not None:
            return known
        taken = set(self._labels.values())
        label, number = wanted, 1
        while label in taken:
            number += 1
            label = f"{wanted}#{number}"
        self._labels[id(obj)] = label
        self._kept.append(obj)
        self._waiting.append((obj, label))
        return label

    def next(self) -> tuple[Any, str] | None:
        """Take the next piece of code that has not been visited, with its label."""
        return self._waiting.pop(0) if self._waiting else None

    def named(self) -> Iterator[tuple[str, Any]]:
        """Yield the label of each piece of local code that was reached, and the code itself."""
        for obj in self._kept:
            yield self._labels[id(obj)], obj

    def note(self, path: str, found: str) -> str:
        """Keep a digest under a name of its own; two modules may have the same name."""
        name, number = path, 1
        while self.parts.setdefault(name, found) != found:
            number += 1
            name = f"{path}#{number}"
        return name

    def version(self, module: str | None) -> None:
        """Keep the version of a library, or the content of a local module that is compiled."""
        if not module or sources.is_standard(module):
            return
        if not sources.is_local(module):
            name, version = sources.distribution(module)
            self.parts[f"version of {name}"] = version
        elif (found := sources.binary(module)) is not None:
            self.parts[f"file of {module}"] = found

    def doc(self, label: str, text: str) -> None:
        """Remember a docstring, in case that some code reads docstrings."""
        self._docs[label] = text

    def count_docs(self) -> None:
        """Make the docstrings parts of the key."""
        found = {
            f"docstring of {label}": hexdigest(text.encode("utf-8", "surrogatepass"))
            for label, text in self._docs.items()
        }
        self.parts.update(found)
