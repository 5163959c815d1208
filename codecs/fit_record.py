"""A half-done fit as plain values and numpy arrays, and how they come back: checked, since files go astray.

Arrays are copied both ways. On the way in they are copied into the tensors that are there, whose place in memory
and order of axes torch has chosen: some kernels round differently for other ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, Field, ValidationError
from torch import Tensor

from framefold.codecs.base import FitState

Array = npt.NDArray[Any]
Moments = dict[str, dict[str, Array]]
"""Parameter name -> name in Adam's memory (`step`, `exp_avg`, `exp_avg_sq`) -> array."""

_Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class FitRecord(BaseModel, frozen=True, extra="forbid", arbitrary_types_allowed=True):
    """What `fitting.fit` needs to go on as if nothing had happened. Plain: `dict(record)`."""

    version: Literal[1] = 1
    frames_shape: tuple[int, ...]
    """(T, 3, H, W) of the clip."""
    steps_done: int = Field(ge=0)
    seconds: _Number
    """Time at work so far."""
    done: bool
    """No step is due any more: the budget is used up or the target reached."""
    generator: Array
    """State of the generator that shuffles: uint8, as torch gives it."""
    order_left: Array
    """Frames of the running epoch that are still to come, int64 (n,); the batches are taken from its end."""
    window_steps: int = Field(ge=0)
    window_error: float
    """Summed over the steps of the current window; not finite if it is about to be found out."""
    last_mse: _Number | None
    best: float = Field(ge=0)
    """Lowest mean squared error of a window; infinite before the first one."""
    peak: float = Field(gt=0, le=1)
    """What restores left of the learning rate."""
    restores: int = Field(ge=0)
    parameters: dict[str, Array]
    good: dict[str, Array]
    """The parameters that a diverged fit goes back to."""
    moments: Moments
    """Empty where the optimiser has no memory yet, or none any more."""
    mean_squares: list[_Number] = []
    """Of the gradients, per group of parameters that has a floor of them; empty where none has."""

    @classmethod
    def of(cls, state: FitState, *, frames_shape: tuple[int, ...], max_restores: int) -> Self:
        """Check a state against the fit that is to go on; ValueError says what is wrong with it."""
        try:
            record = cls.model_validate(dict(state) if isinstance(state, Mapping) else state, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"])) or "all of it"
            raise ValueError(f"this is no state of a fit that can be gone on with: {where}: {first['msg']}") from error
        if record.frames_shape != frames_shape:
            raise ValueError(f"the state is of a fit to frames {record.frames_shape}, these are {frames_shape}")
        if record.restores > max_restores:
            raise ValueError(f"restores is {record.restores}, at most {max_restores} are possible")
        record._check_order()
        return record

    def _check_order(self) -> None:
        left, frames = self.order_left, self.frames_shape[0]
        if left.dtype != np.int64 or left.ndim != 1 or not ((left >= 0) & (left < frames)).all():
            raise ValueError(f"order_left is {left.dtype} {left.shape}; needed: int64 numbers of the {frames} frames")

    def batches(self, size: int, device: torch.device) -> list[Tensor]:
        """The batches that are left of the epoch, LongTensor (<= size,); the next one is the last."""
        order = torch.from_numpy(self.order_left.copy()).to(device)
        return list(torch.split(order, size)) if len(order) else []


def array_of(tensor: Tensor) -> Array:
    """Copy a tensor, from whatever device, to an array of the same shape and type."""
    return np.array(tensor.detach().cpu().numpy(), order="C")


def arrays_of(tensors: Mapping[str, Tensor]) -> dict[str, Array]:
    """Copy each of the tensors."""
    return {name: array_of(tensor) for name, tensor in tensors.items()}


def put_back(what: str, stored: Mapping[str, Array], tensors: Mapping[str, Tensor]) -> None:
    """Copy arrays into tensors of the same names; ValueError unless names, types and shapes are equal."""
    needed = {name: f"{str(each.dtype).removeprefix('torch.')} {tuple(each.shape)}" for name, each in tensors.items()}
    given = {name: f"{each.dtype.name} {each.shape}" for name, each in stored.items()}
    if wrong := sorted(name for name in needed.keys() | given.keys() if needed.get(name) != given.get(name)):
        got, due = given.get(wrong[0], "missing"), needed.get(wrong[0], "none of that name")
        raise ValueError(f"the state is of another network: {what} {wrong[0]!r} is {got}, needed is {due}")
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(np.array(stored[name])))
