"""Beginning a fit from a network that is stored already, instead of from random weights.

What it is good for: networks of similar frames lie close to each other once they come from the same start, so a fit
takes fewer steps, and only the difference has to be stored (Strümpler et al., Implicit Neural Representations for Image
Compression, ECCV 2022). Tensors that are held give a shared decoder: a part that many networks have in common, of which
each stores nothing. Measured figures are in `examples/README.md`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from framefold.codecs.network import FittedNetwork, FloatTensor

Shapes = Mapping[str, tuple[int, ...]]
"""Tensor name to shape."""


@dataclass(frozen=True, kw_only=True)
class WarmStart:
    """A network, and what a fit takes of it."""

    network: FittedNetwork = field(repr=False)
    """What it names as its parent the new one names too."""
    taken: tuple[str, ...] = ("",)
    """Beginnings of names: these tensors are the start's, the others random as ever."""
    held: tuple[str, ...] = ()
    """Beginnings of names: these stay as they are, only the others learn."""

    @cached_property
    def tensors(self) -> Mapping[str, FloatTensor]:
        """What is taken; ValueError if that is nothing."""
        tensors = {name: each for name, each in self.network.tensors.items() if name.startswith(self.taken)}
        if not tensors:
            raise ValueError(
                f"the start has no tensor called {_alternatives(self.taken)}; it has {_names(self.network)}"
            )
        return tensors

    def holds(self, name: str) -> bool:
        """Whether a tensor stays as it is."""
        return name in self.tensors and name.startswith(self.held)

    def check(self, *, codec: str, config: Mapping[str, Any], shapes: Shapes) -> None:
        """ValueError, naming all that differs, unless a network of this kind can begin here.

        `config` is the resolved configuration of the network to be fitted, `shapes` are those of its tensors. Clip and
        picture size may be others; so may the configuration, if only some tensors are taken.
        """
        if self.network.codec != codec:
            raise ValueError(f"the start is a network of codec {self.network.codec!r}, this fit's codec is {codec!r}")
        is_whole = len(self.tensors) == len(self.network.tensors)
        if is_whole and (differing := "; ".join(_differing(self.network.config, config))):
            raise ValueError(
                f"the start is another network of codec {codec!r}: {differing}; "
                "give the codec the start's options, or fit a start with this one's"
            )
        known = {name: tensor.shape for name, tensor in self.tensors.items()}
        needed = shapes if is_whole else {name: shapes.get(name) for name in known}
        if differing := "; ".join(_differing(known, needed)):
            raise ValueError(f"the start's tensors do not fit this clip: {differing}; take a start of such clips")
        if all(map(self.holds, shapes)):
            raise ValueError("the start's tensors are all held, so there is nothing to fit; hold fewer of them")

    @property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 over all of it: a fit that is gone on with must have begun from the same."""
        digest = hashlib.sha256(self.network.codec.encode())
        for name, tensor in self.tensors.items():
            digest.update(f"\0{name}\0{tensor.shape}\0{self.holds(name)}\0".encode())
            digest.update(np.ascontiguousarray(tensor, dtype="<f4").tobytes())
        return digest.hexdigest()


def _differing(start: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys((*start, *here)):
        if start.get(name) != here.get(name):
            yield f"{name} is {start.get(name)} there and {here.get(name)} here"


def _alternatives(beginnings: tuple[str, ...]) -> str:
    return " or ".join(f"{beginning}…" for beginning in beginnings)


def _names(network: FittedNetwork) -> str:
    return ", ".join(network.tensors)
