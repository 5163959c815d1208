"""The one training loop: fits a network to the frames of one clip, whatever the codec.

Written for short fits. The frames live on the device once, as integers; a batch is gathered and converted
on the fly. Nothing is measured in a step and nothing waits for the device: the squared error is summed there and
read once per window of steps, which is also where a diverged network is caught and put back.

With a budget in steps, the same seed gives the same tensors on the same machine (CPU, equal thread count), also
if the fit was broken off and gone on with from its state. The number of threads is the caller's business.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from framefold.codecs.base import FitProgress, FitSettings, FitState, Loss, Masks
from framefold.codecs.clip import Frames
from framefold.codecs.fit_record import FitRecord, Moments, array_of, arrays_of, put_back
from framefold.codecs.losses import weighed_loss_and_error
from framefold.codecs.optimizer import FloorAdam
from framefold.codecs.pixel_format import RGB, PixelFormat
from framefold.codecs.stored_samples import on_device, stored_of, targets_of

WINDOW_STEPS = 50
"""Steps between two looks at the error; rounded up to whole epochs, so that windows compare."""
BLOW_UP = 4.0
"""A window whose error is this many times the best window's (6 dB) counts as diverged ..."""
KEPT = 1.3
"""Parameters are remembered as good while their window's error is below this many times the best one's."""
SMALL_ERROR = 1e-4
"""... unless it is still below 4 times this (40 dB): near perfection an error multiplies without harm."""
MAX_RESTORES = 3
FLOOR = 1e-3
"""The learning rate never falls below this fraction of its peak."""
NEXT_PEAK = 0.5
"""Where a schedule restarts, it does so at this fraction of the peak before."""
SECONDS_BETWEEN_REPORTS = 1.0


class FitDivergedError(RuntimeError):
    """The fit ran away again and again: the message says what was tried."""


@runtime_checkable
class Penalised(Protocol):
    """A module that wraps the network and adds a loss of its own, such as the bits that its weights take.

    All its state must be in its parameters; what it draws at random must follow from the number of the step.
    """

    def begin_step(self, step: int, fraction: float) -> None:
        """Step number `step` comes, at `fraction` (0..1) of the budget: called before each forward pass."""

    def penalty(self) -> Tensor | None:
        """Give what joins the loss of this step; None for nothing. Called after the forward pass."""


@runtime_checkable
class Observing(Protocol):
    """A module that wants to know how good the network is as it learns."""

    def observe(self, mse: Tensor) -> None:
        """Take the mean squared error of a step, a scalar, samples 0..1; called before `penalty`."""


@dataclass(frozen=True, kw_only=True)
class FitPlan:
    """Everything that decides a fit: a codec's tuned values, overridden by what the user set."""

    steps: int | None = None
    """Optimiser steps; exactly one of `steps` and `seconds` is set."""
    seconds: float | None = None
    """Wall-clock time; the part of it that is used up drives the schedule."""
    learning_rate: float
    rate_factors: Mapping[str, float] = field(default_factory=dict)
    """Parameters whose name starts with the key learn this many times as fast."""
    floors: Mapping[str, float] = field(default_factory=dict)
    """Parameters whose name starts with the key share a floor of the gradient, in this share: see `FloorAdam`."""
    batch: int = 1
    """Frames per step."""
    lattice: int = 1
    """n > 1: a step sees every n-th row and column from a random offset: `module(indices, rows, columns)`."""
    loss: Loss = "l2"
    warm_up: float = 0.03
    """Fraction of the budget in which the rate rises linearly; a cosine lowers it over the whole budget."""
    restarts: tuple[float, ...] = ()
    """Fractions of the budget, ascending, at each of which a cosine has ended and another, lower one begins."""
    betas: tuple[float, float] = (0.9, 0.99)
    clip_norm: float | None = None
    """Gradients are scaled down to this norm."""
    target_psnr_db: float | None = None
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.seconds is None):
            raise ValueError(f"steps={self.steps}, seconds={self.seconds}: a fit needs just one of the two")
        for name in ("steps", "seconds", "learning_rate", "batch", "lattice"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name}={value}: a finite number above 0 is needed")

    def within(self, prefix: str) -> FitPlan:
        """Give the plan for a module that holds the network under a name that ends in a dot."""
        return replace(self, rate_factors={prefix + name: factor for name, factor in self.rate_factors.items()})

    def overridden(self, settings: FitSettings) -> FitPlan:
        """Replace what `settings` states; ValueError if that states two budgets."""
        target = settings.target_psnr_db
        plan = replace(self, seed=settings.seed, device=settings.device, target_psnr_db=target)
        if settings.steps is not None or settings.seconds is not None:
            plan = replace(plan, steps=settings.steps, seconds=settings.seconds)
        if settings.loss is not None:
            plan = replace(plan, loss=settings.loss)
        if settings.learning_rate is not None:
            plan = replace(plan, learning_rate=settings.learning_rate)
        return plan


def fit(
    module: nn.Module,
    frames: Frames,
    plan: FitPlan,
    *,
    pixels: PixelFormat = RGB,
    masks: Masks | None = None,
    resume: FitState | None = None,
) -> Generator[FitProgress, None, None]:
    """Fit `module` in place to `frames`, (T, C, H, W) of `pixels`; a progress at once, about one a second, a last one.

    `module(indices)` maps LongTensor (B,) to (B, C, H, W), 0..1; all its state is in its parameters. One that is
    `Penalised` is told of each step and adds to its loss. Where a mask
    is False, the parameter is held at exactly zero. `resume` is the state that a progress of an earlier run gave:
    the fit goes on from there. ValueError: a mask or the state does not fit. FitDivergedError: the network cannot
    be kept finite.
    """
    run = _Run(module, frames, plan, masks or {}, pixels)
    if resume is not None:
        run.go_back_to(resume)
    yield from run.told(min(1.0, run.fraction()))  # now: the first steps may take long
    reported = time.monotonic()
    while not run.done and (fraction := run.fraction()) < 1:
        run.step(fraction)
        run.done = run.window_is_full() and run.close_window()
        if time.monotonic() - reported >= SECONDS_BETWEEN_REPORTS:
            yield from run.told(fraction)
            reported = time.monotonic()
    run.finish()
    yield from run.told(1.0)


def schedule(fraction: float, warm_up: float, restarts: Sequence[float] = ()) -> float:
    """Learning rate at `fraction` (0..1) of the budget, relative to its peak.

    A cosine, or one after the other (Loshchilov, Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts").
    """
    cycle, share = cycle_at(fraction, restarts)
    peak = NEXT_PEAK**cycle if cycle or warm_up <= 0 else min(1.0, fraction / warm_up)
    return max(FLOOR, peak * (0.5 + 0.5 * math.cos(math.pi * share)))


def cycle_at(fraction: float, restarts: Sequence[float]) -> tuple[int, float]:
    """Say in which cycle between restarts a fraction of the budget lies, and how far in that, 0..1."""
    cycle = bisect_right(restarts, fraction)
    begin, end = (0.0, *restarts, 1.0)[cycle : cycle + 2]
    return cycle, (fraction - begin) / (end - begin)


class _Run:
    """One fit under way."""

    def __init__(
        self, module: nn.Module, frames: Frames, plan: FitPlan, masks: Masks, pixels: PixelFormat = RGB
    ) -> None:
        self.plan, self.pixels = plan, pixels
        self.shares = pixels.shares(*frames.shape[2:])
        self.device = torch.device(plan.device)
        self.module = module.to(self.device).train()
        self.penalised = module if isinstance(module, Penalised) else None
        self.frames = on_device(frames, self.device)
        self.parameters = dict(self.module.named_parameters())
        self.masks = [(self.parameters[name], mask) for name, mask in self._checked(masks)]
        self.generator = torch.Generator().manual_seed(plan.seed)
        self.batches: list[Tensor] = []
        self.steps_done = 0
        self.peak = 1.0
        self.restores = 0
        self.best = math.inf
        self.error = torch.zeros((), device=self.device)
        self.window_steps = 0
        self.last_mse: float | None = None
        self.done = False
        epoch = -(-len(frames) // min(plan.batch, len(frames)))
        self.window = -(-WINDOW_STEPS // epoch) * epoch
        self.apply_masks()
        self.keep()
        self.optimizer = self._optimizer()
        self.stopwatch = _Stopwatch()

    def _checked(self, masks: Masks) -> list[tuple[str, Tensor]]:
        for name, mask in masks.items():
            if name not in self.parameters or self.parameters[name].shape != mask.shape:
                known = {key: tuple(value.shape) for key, value in self.parameters.items()}
                raise ValueError(f"mask {name!r} of shape {mask.shape} fits no parameter; there are {known}")
        return [(name, torch.from_numpy(np.float32(mask)).to(self.device)) for name, mask in masks.items()]

    def _optimizer(self) -> FloorAdam:
        groups: dict[tuple[float, str], list[nn.Parameter]] = {}
        for name, parameter in self.parameters.items():
            factors = (factor for prefix, factor in self.plan.rate_factors.items() if name.startswith(prefix))
            floored = next((prefix for prefix in self.plan.floors if name.startswith(prefix)), "")
            groups.setdefault((self.plan.learning_rate * next(factors, 1.0), floored), []).append(parameter)
        return FloorAdam(
            [
                {"params": group, "peak": rate, "lr": rate, "floor": self.plan.floors.get(floored, 0.0)}
                for (rate, floored), group in groups.items()
            ],
            betas=self.plan.betas,
        )

    def fraction(self) -> float:
        """How much of the budget is used."""
        if self.plan.steps is not None:
            return self.steps_done / self.plan.steps
        return self.stopwatch.seconds / (self.plan.seconds or 1.0)

    def told(self, fraction: float) -> Generator[FitProgress, None, None]:
        """One progress; until the fit is taken up again, its time stands still."""
        self.stopwatch.stop()
        yield FitProgress(fraction=fraction, step=self.steps_done, psnr_db=self.psnr_db(), state=self.state)
        self.stopwatch.go_on()

    def step(self, fraction: float) -> None:
        """One batch through the network, one step of the optimiser."""
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * self.peak * schedule(fraction, self.plan.warm_up, self.plan.restarts)
        if self.penalised:
            self.penalised.begin_step(self.steps_done, fraction)
        predictions, targets = self._batch()
        loss, mse = weighed_loss_and_error(predictions, targets, self.shares, self.plan.loss)
        if isinstance(self.module, Observing):
            self.module.observe(mse)
        if self.penalised and (penalty := self.penalised.penalty()) is not None:
            loss = loss + penalty
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch ships it without annotations
        if self.plan.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.parameters.values(), self.plan.clip_norm)
        self.optimizer.step()
        self.apply_masks()
        self.error += mse
        self.window_steps += 1
        self.steps_done += 1

    def _batch(self) -> tuple[list[Tensor], list[Tensor]]:
        """Predictions and targets, plane by plane float32 (B, c, h, w), of the next frames in a shuffled epoch."""
        if not self.batches:
            order = torch.randperm(len(self.frames), generator=self.generator).to(self.device)
            self.batches = list(torch.split(order, self.plan.batch))
        indices = self.batches.pop()
        if self.plan.lattice == 1:
            return stored_of(self.module(indices), self.pixels), targets_of(self.frames, indices, self.pixels)
        seen = self._lattice()
        targets = targets_of(self.frames, indices, self.pixels, seen)
        return stored_of(self.module(indices, *seen), self.pixels, is_lattice=True), targets

    def _lattice(self) -> tuple[slice, slice]:
        stride = self.plan.lattice
        top, left = torch.randint(stride, (2,), generator=self.generator).tolist()
        return slice(top, None, stride), slice(left, None, stride)

    def apply_masks(self) -> None:
        """Put the weights outside the masks back to exactly zero."""
        with torch.no_grad():
            for parameter, mask in self.masks:
                parameter.mul_(mask)

    def window_is_full(self) -> bool:
        """Whether it is time to look at the error."""
        return self.window_steps >= self.window

    def close_window(self) -> bool:
        """Read the window's error; True if the target is reached. A diverged network is put back."""
        mse = self.error.item() / self.window_steps
        self.error.zero_()
        self.window_steps = 0
        if not self._healthy(mse):
            self._restore(mse)
            return False
        self.best = min(self.best, mse)
        self.last_mse = mse
        if mse <= KEPT * max(self.best, SMALL_ERROR):  # one that is on its way out is no place to go back to
            self.keep()
        return self.plan.target_psnr_db is not None and _decibels(mse) >= self.plan.target_psnr_db

    def _healthy(self, mse: float) -> bool:
        finite = all(bool(parameter.isfinite().all()) for parameter in self.parameters.values())
        return finite and math.isfinite(mse) and mse <= BLOW_UP * max(self.best, SMALL_ERROR)

    def keep(self) -> None:
        """Remember the parameters as good."""
        self.good = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    def _restore(self, mse: float) -> None:
        """Go back to the last good parameters with half the rate and an optimiser without memory."""
        self.restores += 1
        if self.restores > MAX_RESTORES:
            raise FitDivergedError(
                f"the fit diverged {self.restores} times, the last time after {self.steps_done} steps, at "
                f"mean squared error {mse:.3g} and learning rate {self.plan.learning_rate * self.peak:.3g}; "
                "set a lower learning_rate"
            )
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(self.good[name])
        self.peak /= 2
        self.optimizer = self._optimizer()

    def finish(self) -> None:
        """Look at what came after the last window, and leave the network ready to be evaluated."""
        self.done = True
        if self.window_steps:
            self.close_window()
        if self.last_mse is None:
            raise FitDivergedError(
                f"no window of the fit's {self.steps_done} steps was sound; set a lower learning_rate"
            )
        self.module.eval()

    def psnr_db(self) -> float | None:
        """PSNR of the mean squared error in the current window, or in the last one while it is young."""
        if self.window_steps > self.window // 2 or (self.last_mse is None and self.window_steps):
            mse = self.error.item() / self.window_steps
            return _decibels(mse) if math.isfinite(mse) else None
        return None if self.last_mse is None else _decibels(self.last_mse)

    def state(self) -> FitState:
        """Copy what decides the rest of the fit, but for the module's structure, the frames, plan and masks."""
        record = FitRecord(
            frames_shape=tuple(self.frames.shape),
            steps_done=self.steps_done,
            seconds=self.stopwatch.seconds,
            done=self.done,
            generator=array_of(self.generator.get_state()),
            order_left=array_of(torch.cat(self.batches)) if self.batches else np.zeros(0, np.int64),
            window_steps=self.window_steps,
            window_error=self.error.item(),
            last_mse=self.last_mse,
            best=self.best,
            peak=self.peak,
            restores=self.restores,
            parameters=arrays_of(self.parameters),
            good=arrays_of(self.good),
            moments=self._moments(),
            mean_squares=self.optimizer.mean_squares,
        )
        return dict(record)

    def _moments(self) -> Moments:
        known = self.optimizer.state
        return {name: arrays_of(known[each]) for name, each in self.parameters.items() if each in known}

    def go_back_to(self, state: FitState) -> None:
        """Put everything as it was when `state` was made; ValueError if it was made of another fit."""
        record = FitRecord.of(state, frames_shape=tuple(self.frames.shape), max_restores=MAX_RESTORES)
        put_back("parameters", record.parameters, self.parameters)
        put_back("good", record.good, self.good)
        self._recall(record.moments)
        self.optimizer.mean_squares = record.mean_squares
        self._draw_on(record)
        self.batches = record.batches(self.plan.batch, self.device)
        self.error.fill_(record.window_error)
        self.steps_done, self.window_steps, self.done = record.steps_done, record.window_steps, record.done
        self.last_mse, self.best = record.last_mse, record.best
        self.peak, self.restores = record.peak, record.restores
        self.stopwatch = _Stopwatch(record.seconds)

    def _draw_on(self, record: FitRecord) -> None:
        """Let the generator give what it would have given next."""
        drawn = self.generator.get_state()
        put_back("generator", {"state": record.generator}, {"state": drawn})
        try:
            self.generator.set_state(drawn)
        except RuntimeError as error:
            raise ValueError(f"the state's generator is not one of torch {torch.__version__}: {error}") from error

    def _recall(self, moments: Moments) -> None:
        """Give the optimiser its memory back, laid out in storage as it would lay it out itself."""
        for name, stored in moments.items():
            if (parameter := self.parameters.get(name)) is None:
                raise ValueError(f"the state has moments of {name!r}; the network knows only {sorted(self.parameters)}")
            memory = {key: torch.zeros_like(parameter) for key in ("exp_avg", "exp_avg_sq")}
            memory["step"] = torch.zeros((), device=self.device)
            put_back(f"moments of {name}", stored, memory)
            self.optimizer.state[parameter] = memory


class _Stopwatch:
    """Seconds in which the fit was at work, over all its runs."""

    def __init__(self, seconds: float = 0.0) -> None:
        self._before = seconds
        self._since: float | None = time.monotonic()

    @property
    def seconds(self) -> float:
        return self._before + (time.monotonic() - self._since if self._since is not None else 0.0)

    def stop(self) -> None:
        self._before, self._since = self.seconds, None

    def go_on(self) -> None:
        self._since = time.monotonic()


def _decibels(mse: float) -> float:
    return -10 * math.log10(max(mse, 1e-10))


def tensors_of(module: nn.Module) -> dict[str, npt.NDArray[np.float32]]:
    """Give the parameters as they are stored: name -> float32 array of its own memory."""
    return {
        name: parameter.detach().cpu().numpy().astype(np.float32, copy=True)
        for name, parameter in module.named_parameters()
    }
