import math
import pickle
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from framefold.codecs import fitting
from framefold.codecs.base import FitSettings
from framefold.codecs.fitting import FitDivergedError, FitPlan, _Run, fit, schedule, tensors_of
from framefold.codecs.losses import loss_and_error, ssim
from framefold.codecs.testing import moving_shapes


class Painter(nn.Module):
    """A learnable picture per frame."""

    def __init__(self, frames, fill=0.5):
        super().__init__()
        self.pictures = nn.Parameter(torch.full(frames.shape, fill))

    def forward(self, indices, rows=slice(None), columns=slice(None)):
        return self.pictures[indices][:, :, rows, columns]


class Shifted(Painter):
    """One that is useless after its n-th step."""

    def __init__(self, frames, at, value, once=True):
        super().__init__(frames)
        self.at, self.value, self.once, self.calls = at, value, once, 0

    def forward(self, indices):
        self.calls += 1
        bad = self.calls == self.at if self.once else self.calls >= self.at
        return self.pictures[indices] + (self.value if bad else 0)


def plan(**options):
    return FitPlan(**{"steps": 200, "learning_rate": 0.05, **options})


def mse(module, frames):
    with torch.no_grad():
        return float(((module.pictures - torch.from_numpy(frames) / 255) ** 2).mean())


@pytest.fixture
def frames():
    return moving_shapes(3, 10, 14)


@pytest.mark.parametrize("loss", ["l2", "l1", "l1_ssim"])
def test_every_loss_brings_the_picture_closer(frames, loss):
    module = Painter(frames)
    before = mse(module, frames)
    progress = list(fit(module, frames, plan(loss=loss)))
    assert mse(module, frames) < before / 50
    assert progress[-1].fraction == 1.0
    assert progress[-1].step == 200
    assert not module.training


def test_the_estimated_psnr_is_that_of_the_last_window(frames):
    module = Painter(frames)
    *_, last = fit(module, frames, plan(learning_rate=1e-12, warm_up=0.0))
    assert last.psnr_db == pytest.approx(-10 * math.log10(mse(module, frames)), abs=0.2)


def test_each_epoch_shows_every_frame_once(frames):
    seen = []

    class Watched(Painter):
        def forward(self, indices):
            seen.extend(indices.tolist())
            return super().forward(indices)

    list(fit(Watched(frames), frames, plan(steps=4, batch=2)))
    assert sorted(seen[:3]) == [0, 1, 2]
    assert sorted(seen[3:]) == [0, 1, 2]


def test_lattices_from_all_offsets_cover_the_picture(frames):
    seen = np.zeros(frames.shape[2:], int)

    class Watched(Painter):
        def forward(self, indices, rows, columns):
            seen[rows, columns] += 1
            return super().forward(indices, rows, columns)

    module = Watched(frames)
    before = mse(module, frames)
    list(fit(module, frames, plan(lattice=3, steps=100)))
    assert seen.min() > 0
    assert seen.mean() == pytest.approx(100 / 9, rel=0.2)
    assert mse(module, frames) < before


def test_same_seed_same_tensors_another_seed_others(frames):
    def fitted(seed):
        module = Painter(frames)
        list(fit(module, frames, plan(steps=10, seed=seed)))
        return tensors_of(module)["pictures"]

    assert np.array_equal(fitted(1), fitted(1))
    assert not np.array_equal(fitted(1), fitted(2))


def test_global_random_state_is_untouched(frames):
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    list(fit(Painter(frames), frames, plan(steps=5)))
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_read_only_frames_are_fitted_without_a_warning(frames):
    frames.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(fit(Painter(frames), frames, plan(steps=2)))


def test_a_budget_in_seconds_ends_the_fit(frames):
    *_, last = fit(Painter(frames), frames, plan(steps=None, seconds=0.2))
    assert last.step > 0
    assert last.fraction == 1.0


def test_the_target_stops_the_fit_early(frames):
    *_, last = fit(Painter(frames), frames, plan(steps=100_000, target_psnr_db=15.0))
    assert last.step < 5000
    assert last.psnr_db >= 15.0


def test_masked_weights_are_exactly_zero_and_the_others_learn(frames):
    module = Painter(frames)
    mask = np.random.default_rng(0).random(frames.shape) < 0.5
    list(fit(module, frames, plan(), masks={"pictures": mask}))
    pictures = tensors_of(module)["pictures"]
    assert not pictures[~mask].any()
    assert pictures[mask] == pytest.approx(frames[mask] / 255, abs=0.1)


@pytest.mark.parametrize("masks", [{"other": np.ones((2,), bool)}, {"pictures": np.ones((2,), bool)}])
def test_masks_that_do_not_fit_are_refused(frames, masks):
    with pytest.raises(ValueError, match=r"'(other|pictures)'.*pictures"):
        list(fit(Painter(frames), frames, plan(), masks=masks))


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e6])
def test_one_bad_step_is_undone(frames, value):
    module = Shifted(frames, at=120, value=value)
    list(fit(module, frames, plan(steps=400)))
    assert mse(module, frames) < 0.01


def test_a_bad_last_step_leaves_the_last_good_network(frames):
    module = Shifted(frames, at=400, value=math.nan)
    list(fit(module, frames, plan(steps=400)))
    assert mse(module, frames) < 0.01


def test_a_perfect_fit_is_not_taken_for_a_diverging_one():
    flat = np.full((2, 3, 6, 6), 128, np.uint8)
    module = Painter(flat)
    list(fit(module, flat, plan(steps=4000)))
    assert mse(module, flat) < 1e-4


def test_a_fit_that_keeps_diverging_gives_up_by_name(frames):
    with pytest.raises(FitDivergedError, match=r"4 times.*learning_rate"):
        list(fit(Shifted(frames, at=60, value=math.nan, once=False), frames, plan(steps=1000)))


def test_a_network_on_its_way_out_is_not_what_is_gone_back_to(frames):
    module = Painter(frames)
    run = _Run(module, frames, plan(steps=1000), {})
    good = module.pictures.detach().clone()
    for shift, error in ((0.0, 0.01), (0.1, 0.03), (0.5, 0.05)):  # sound, worse, diverged
        with torch.no_grad():
            module.pictures += shift
        run.error.fill_(50 * error)
        run.window_steps = 50
        run.close_window()
    assert torch.equal(module.pictures, good)


def test_a_fit_that_was_never_sound_says_so(frames):
    with pytest.raises(FitDivergedError, match="no window"):
        list(fit(Shifted(frames, at=1, value=math.nan, once=False), frames, plan(steps=10)))


def test_rate_factors_apply_by_prefix(frames):
    module = nn.Module()
    module.slow, module.fast = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    module.forward = lambda indices: (module.slow + module.fast).expand(len(indices), 3, 10, 14)
    list(fit(module, frames, plan(steps=1, learning_rate=0.01, rate_factors={"fas": 5.0}, warm_up=0.0)))
    assert module.fast.item() == pytest.approx(5 * module.slow.item(), rel=1e-5)
    assert module.slow.item() == pytest.approx(0.01, rel=1e-3)


def test_the_schedule_rises_then_falls_to_its_floor():
    assert schedule(0.0, 0.1) == schedule(1.0, 0.1) == 1e-3
    assert schedule(0.0, 0.0) == 1.0
    assert schedule(0.05, 0.1) < schedule(0.1, 0.1) > schedule(0.5, 0.1) > schedule(0.9, 0.1)


def test_after_a_restart_the_schedule_begins_again_at_half_the_peak():
    before, after = schedule(0.4999, 0.1, (0.5, 0.8)), schedule(0.5, 0.1, (0.5, 0.8))
    assert (before, after) == (1e-3, 0.5)
    assert schedule(0.8, 0.1, (0.5, 0.8)) == 0.25
    assert schedule(0.65, 0.1, (0.5, 0.8)) == pytest.approx(0.25)
    assert schedule(1.0, 0.1, (0.5, 0.8)) == 1e-3


def test_settings_override_the_plan():
    tuned = plan(loss="l1").overridden(FitSettings(seconds=2.0, learning_rate=0.5, seed=7))
    assert (tuned.steps, tuned.seconds, tuned.learning_rate, tuned.loss, tuned.seed) == (
        None,
        2.0,
        0.5,
        "l1",
        7,
    )
    assert plan().overridden(FitSettings()).steps == 200


@pytest.mark.parametrize(
    "options",
    [
        {"seconds": 1.0},
        {"steps": None},
        {"steps": 0},
        {"learning_rate": math.nan},
        {"batch": 0},
        {"lattice": -1},
    ],
)
def test_an_impossible_plan_is_refused(options):
    with pytest.raises(ValueError, match=f"{next(iter(options))}="):
        plan(**options)


def test_ssim_is_one_for_equal_pictures_and_less_for_blurred_ones():
    picture = torch.from_numpy(moving_shapes(1, 20, 20)) / 255
    blurred = nn.functional.avg_pool2d(picture, 3, stride=1, padding=1)
    assert ssim(picture, picture).item() == pytest.approx(1.0, abs=1e-5)
    assert ssim(picture, blurred).item() < 0.9
    assert ssim(picture[..., :1, :2], picture[..., :1, :2]).item() == pytest.approx(1.0, abs=1e-5)


def test_the_error_beside_the_loss_is_the_mean_square():
    a, b = torch.zeros(1, 3, 6, 6), torch.full((1, 3, 6, 6), 0.5)
    for loss in ("l2", "l1", "l1_ssim"):
        _, error = loss_and_error(a, b, loss)
        assert error.item() == pytest.approx(0.25)
    assert loss_and_error(a, b, "l1")[0].item() == pytest.approx(0.5)


# ---- broken off and gone on with


@pytest.fixture
def every_step(monkeypatch):
    """A progress after each step."""
    monkeypatch.setattr(fitting, "SECONDS_BETWEEN_REPORTS", 0.0)


def state_after(step, fit_under_way):
    """The state at the first progress after `step` steps, on the way through a file; the fit is broken off there."""
    for progress in fit_under_way:
        if progress.step == step:
            return pickle.loads(pickle.dumps(progress.state(), protocol=5))
    raise AssertionError(f"the fit made no {step} steps")


class Linked(nn.Module):
    """Two layers over a learnable picture, one with axes in another order, and a parameter that is never used."""

    def __init__(self, frames):
        super().__init__()
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(5)
            self.picture = nn.Parameter(torch.rand(frames.shape))
            self.mix = nn.Conv2d(3, 4, 3, padding=1).to(memory_format=torch.channels_last)
            self.head = nn.Conv2d(4, 3, 1)
        self.idle = nn.Parameter(torch.zeros(2))

    def forward(self, indices, rows=slice(None), columns=slice(None)):
        return self.head(self.mix(self.picture[indices]).sin())[:, :, rows, columns]


FITS = {
    "plain": {},
    "batches": {"batch": 2},
    "lattice": {"lattice": 3, "loss": "l1"},
    "careful": {"clip_norm": 0.01, "rate_factors": {"mix": 3.0}, "loss": "l1_ssim"},
}


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("options", FITS.values(), ids=FITS)
def test_a_fit_that_was_broken_off_ends_like_one_that_was_not(frames, every_step, options, masked):
    chosen = plan(steps=130, learning_rate=0.01, seed=4, **options)
    masks = {"picture": np.random.default_rng(0).random(frames.shape) < 0.5} if masked else None
    whole = Linked(frames)
    states = []
    for last in fit(whole, frames, chosen, masks=masks):
        states.append((last.step, last.state()))
    assert [step for step, _ in states] == [*range(131), 130]  # the last two: before and after the last window's end
    for step, state in (states[index] for index in (0, 1, 2, 50, 51, 77, 129, 130, 131)):
        again = Linked(frames)
        *_, end = fit(again, frames, chosen, masks=masks, resume=pickle.loads(pickle.dumps(state, protocol=5)))
        assert all(np.array_equal(tensors_of(whole)[name], value) for name, value in tensors_of(again).items()), step
        assert (end.step, end.psnr_db) == (130, last.psnr_db)
        np.testing.assert_equal({**end.state(), "seconds": 0}, {**states[-1][1], "seconds": 0})


def test_a_fit_may_be_broken_off_again_and_again(frames, every_step):
    chosen = plan(steps=60, batch=2)
    whole = Linked(frames)
    list(fit(whole, frames, chosen))
    state = None
    for step in (7, 8, 20, 55):
        state = state_after(step, fit(Linked(frames), frames, chosen, resume=state))
    again = Linked(frames)
    first, *_ = fit(again, frames, chosen, resume=state)
    assert first.step == 55
    assert first.fraction == pytest.approx(55 / 60)
    assert all(np.array_equal(tensors_of(whole)[name], value) for name, value in tensors_of(again).items())


def test_a_state_is_a_copy_that_the_fit_leaves_alone(frames, every_step):
    run = fit(Linked(frames), frames, plan(steps=20, batch=2))
    state = next(progress for progress in run if progress.step == 9).state()
    before = pickle.dumps(state)
    list(run)
    list(fit(Linked(frames), frames, plan(steps=20, batch=2), resume=state))
    assert pickle.dumps(state) == before


def test_asking_for_the_state_does_not_change_the_fit(frames, every_step):
    asked, left_alone = Linked(frames), Linked(frames)
    for progress in fit(asked, frames, plan(steps=60, batch=2)):
        progress.state()
    list(fit(left_alone, frames, plan(steps=60, batch=2)))
    assert all(np.array_equal(tensors_of(asked)[name], value) for name, value in tensors_of(left_alone).items())


@pytest.mark.parametrize("step", [40, 119, 120, 160])
def test_what_is_known_to_be_good_and_how_often_it_was_needed_is_remembered(frames, every_step, step):
    whole = Shifted(frames, at=120, value=math.nan)
    list(fit(whole, frames, plan(steps=300)))
    state = state_after(step, fit(Shifted(frames, at=120, value=math.nan), frames, plan(steps=300)))
    again = Shifted(frames, at=120 - step, value=math.nan)
    seen = [progress.state() for progress in fit(again, frames, plan(steps=300), resume=state)]
    assert (seen[-1]["restores"], seen[-1]["peak"]) == (1, 0.5)
    assert np.array_equal(tensors_of(whole)["pictures"], tensors_of(again)["pictures"])


def test_restores_before_and_after_a_break_count_together(frames, every_step):
    def broken():
        return Shifted(frames, at=60, value=math.nan, once=False)

    state = state_after(210, fit(broken(), frames, plan(steps=1000)))
    assert state["restores"] == 3
    with pytest.raises(FitDivergedError, match=r"4 times, the last time after 255 steps"):
        list(fit(Shifted(frames, at=1, value=math.nan, once=False), frames, plan(steps=1000), resume=state))


def test_a_fit_that_reached_its_target_makes_no_more_steps(frames):
    chosen = plan(steps=100_000, target_psnr_db=15.0)
    whole = Painter(frames)
    *_, last = fit(whole, frames, chosen)
    again = Painter(frames)
    *_, end = fit(again, frames, chosen, resume=last.state())
    assert end.step == last.step < 5000
    assert np.array_equal(tensors_of(whole)["pictures"], tensors_of(again)["pictures"])


class Clock:
    """Time that passes by 10 ms whenever one looks at it."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        self.now += 0.01
        return self.now


def test_a_budget_in_seconds_counts_time_at_work_over_all_runs(frames, every_step, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(fitting, "time", clock)
    chosen = plan(steps=None, seconds=10.0)
    state = state_after(20, fit(Painter(frames), frames, chosen))
    clock.now += 3600
    assert 0 < state["seconds"] < 5
    run = fit(Painter(frames), frames, chosen, resume=state)
    first = next(run)
    clock.now += 3600  # whoever asked for the progress takes an hour over it
    second = next(run)
    assert first.step == 20
    assert first.fraction == pytest.approx(state["seconds"] / 10, abs=0.01)
    assert second.fraction < 0.6
    *_, last = run
    assert last.step > second.step
    assert last.state()["seconds"] == pytest.approx(10, abs=0.1)


def test_a_budget_that_is_used_up_leaves_no_step(frames, every_step):
    state = state_after(60, fit(Painter(frames), frames, plan()))
    *_, last = fit(Painter(frames), frames, plan(steps=None, seconds=5.0), resume={**state, "seconds": 6.0})
    assert last.step == 60


def test_the_first_progress_comes_before_the_first_step(frames):
    module = Shifted(frames, at=1, value=0.0)
    first = next(fit(module, frames, plan()))
    assert (first.step, first.fraction, first.psnr_db, module.calls) == (0, 0.0, None, 0)


def broken_states(state):
    """What is wrong, in the words of the message, and such a state."""
    parameters = state["parameters"]
    yield "version: Input should be 1", {**state, "version": 2}
    yield "done: Field required", {key: value for key, value in state.items() if key != "done"}
    yield "more: Extra inputs", {**state, "more": 1}
    yield "steps_done", {**state, "steps_done": -1}
    yield "seconds", {**state, "seconds": math.nan}
    yield "all of it", "a state"
    yield "restores is 4, at most 3", {**state, "restores": 4}
    yield r"frames \(3, 3, 10, 15\), these are \(3, 3, 10, 14\)", {**state, "frames_shape": (3, 3, 10, 15)}
    yield "parameters 'pictures' is missing", {**state, "parameters": {}}
    yield (
        "parameters 'other' is float32.*none of that name",
        {**state, "parameters": {**parameters, "other": parameters["pictures"]}},
    )
    yield "needed is float32", {**state, "parameters": {"pictures": parameters["pictures"].astype(np.float64)}}
    yield "good 'pictures'", {**state, "good": {"pictures": parameters["pictures"][:1]}}
    yield "moments of 'other'", {**state, "moments": {"other": state["moments"]["pictures"]}}
    yield "moments of pictures 'exp_avg' is missing", {**state, "moments": {"pictures": {}}}
    yield "generator 'state'", {**state, "generator": np.zeros(7, np.uint8)}
    yield "not one of torch", {**state, "generator": np.zeros_like(state["generator"])}
    yield "order_left", {**state, "order_left": np.array([3])}
    yield "order_left", {**state, "order_left": np.zeros(2, np.float32)}


def test_a_state_of_another_fit_is_refused_by_name(frames, every_step):
    state = state_after(7, fit(Painter(frames), frames, plan()))
    for message, broken in broken_states(state):
        with pytest.raises(ValueError, match=message):
            next(fit(Painter(frames), frames, plan(), resume=broken))
