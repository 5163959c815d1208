"""Where replicas go: who shares a GPU, what does not fit, and in what words it is said."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framefold.pipeline.errors import RunFailed
from framefold.pipeline.placement import Machine, Plan, Reservation, misfits, plan, share_gpus, shortfalls

Asked = Mapping[str, tuple[int, float]]


def gpus(**asked: tuple[int, float]) -> dict[str, tuple[int, Reservation]]:
    return {name: (count, Reservation(gpus=share)) for name, (count, share) in asked.items()}


def shares(decided: Plan) -> dict[str, float]:
    return {name: one.gpus for name, (_, one) in decided.demands.items()}


ONE, TWO, PAIR = [Machine(8, 1)], [Machine(8, 2)], [Machine(8, 1), Machine(8, 1)]


@pytest.mark.parametrize(
    ("machines", "asked", "expected"),
    [
        (ONE, {"a": (1, 1.0)}, {"a": 1.0}),
        (ONE, {"a": (1, 1.0), "b": (1, 1.0), "c": (1, 1.0)}, {"a": 0.33, "b": 0.33, "c": 0.33}),
        (ONE, {"a": (1, 1.0), "free": (5, 0.0)}, {"a": 1.0, "free": 0.0}),
        (ONE, {"a": (3, 1.0), "free": (5, 0.0)}, {"a": 0.33, "free": 0.0}),
        (TWO, {"a": (3, 1.0)}, {"a": 0.5}),
        (PAIR, {"a": (3, 1.0)}, {"a": 0.5}),
        (TWO, {"a": (1, 1.0), "b": (4, 1.0)}, {"a": 0.33, "b": 0.33}),
        (ONE, {"a": (4, 0.25)}, {"a": 0.25}),
        (ONE, {"a": (1, 0.75), "b": (1, 0.25)}, {"a": 0.75, "b": 0.25}),
        (ONE, {"a": (2, 0.75)}, {"a": 0.5}),
        (TWO, {"a": (1, 1.0), "b": (2, 0.5)}, {"a": 1.0, "b": 0.5}),
        (TWO, {"b": (2, 0.5), "a": (1, 1.0)}, {"b": 0.5, "a": 1.0}),
        (TWO, {"a": (3, 0.6)}, {"a": 0.5}),  # 1.8 of 2, but no GPU has room for two of them
        (ONE, {"a": (200, 1.0)}, {"a": 0.0001}),
    ],
)
def test_gpus_are_shared_where_replicas_find_no_place_side_by_side(
    machines: Sequence[Machine], asked: Asked, expected: Mapping[str, float]
) -> None:
    decided = plan(gpus(**asked), machines)
    assert shares(decided) == expected
    assert {name: count for name, (count, _) in decided.demands.items()} == {name: n for name, (n, _) in asked.items()}
    assert bool(decided.notes) == (shares(decided) != {name: share for name, (_, share) in asked.items()})


def test_the_note_says_who_shares_what_and_how_to_decide_otherwise() -> None:
    assert share_gpus(gpus(fit=(2, 1.0), prune=(1, 1.0), sink=(1, 0.0)), ONE).notes == (
        (
            "3 replicas of fit and prune ask for 3 GPUs and there is 1: each gets 0.33 of one and they share its "
            "memory; set `resources: {gpus: …}` or `replicas` to decide otherwise"
        ),
    )
    assert "there are 2: each gets 0.5" in share_gpus(gpus(fit=(3, 1.0)), PAIR).notes[0]


def test_who_asks_for_several_gpus_gets_them_or_is_refused() -> None:
    assert shares(plan(gpus(a=(1, 2.0)), TWO)) == {"a": 2.0}
    with pytest.raises(RunFailed, match=r"^the stages reserve 3 gpus in total, the cluster has 2: lower `replicas`"):
        plan(gpus(a=(1, 2.0), b=(1, 1.0)), TWO)
    with pytest.raises(RunFailed, match=r"^a: a replica reserves 0 cpus and 2 gpus, which no machine .* has"):
        plan(gpus(a=(1, 2.0)), PAIR)


def test_nothing_is_shared_where_there_is_nothing() -> None:
    with pytest.raises(RunFailed) as caught:
        plan(gpus(a=(1, 1.0)), [Machine(8, 0)])
    assert str(caught.value).splitlines() == [
        (
            "the stages reserve 1 gpus in total, the cluster has 0: lower `replicas` or `resources: {gpus: …}`, use a "
            "fraction, or run on a larger cluster (--address)"
        ),
        "a: a replica reserves 0 cpus and 1 gpus, which no machine of the cluster has: lower its `resources`",
    ]


def test_cores_are_counted_over_all_nodes_and_machines() -> None:
    asked = {"a": (3, Reservation(cpus=2)), "b": (1, Reservation(cpus=0.5))}
    assert plan(asked, [Machine(4), Machine(2.5)]).demands == asked
    assert shortfalls(asked, [Machine(4), Machine(2)]) == [
        (
            "the stages reserve 6.5 cpus in total, the cluster has 6: lower `replicas` or `resources: {cpus: …}`, use "
            "a fraction, or run on a larger cluster (--address)"
        )
    ]


def test_what_fits_in_total_may_not_fit_side_by_side() -> None:
    with pytest.raises(RunFailed) as caught:
        plan({"fit": (4, Reservation(cpus=3))}, [Machine(4)] * 3)
    assert str(caught.value) == (
        "fit: 1 of 4 replicas find no place beside the others, each with 3 cpus and 0 gpus on one machine: lower "
        "`replicas` or `resources`, or run on a larger cluster (--address)"
    )


LABELLED = [Machine(8, 1, {"tier": "gpu", "zone": "a"}), Machine(8, 1, {"tier": "spot"})]


def test_labels_are_met_all_at_once() -> None:
    fits = {"a": (1, Reservation(labels={"tier": "gpu", "zone": "a"})), "b": (1, Reservation(labels={"tier": "spot"}))}
    assert plan(fits, LABELLED) == Plan(fits)
    assert misfits({"a": (1, Reservation(cpus=1, labels={"tier": "spot", "zone": "a"}))}, LABELLED) == [
        (
            "a: a replica reserves 1 cpus and 0 gpus on a machine labelled tier=spot, zone=a, which no machine of the "
            "cluster has: lower its `resources`, or start a machine with these labels"
        )
    ]


def test_labels_and_amounts_have_to_meet_on_one_machine() -> None:
    machines = [Machine(8, 0, {"tier": "gpu"}), Machine(8, 1)]
    assert len(misfits({"a": (1, Reservation(gpus=1, labels={"tier": "gpu"}))}, machines)) == 1
    assert misfits({"a": (1, Reservation(gpus=1)), "b": (1, Reservation(labels={"tier": "gpu"}))}, machines) == []


def test_gpus_are_shared_among_those_who_may_use_them() -> None:
    asked = {"a": (2, Reservation(gpus=1, labels={"tier": "gpu"}))}
    assert shares(plan(asked, LABELLED)) == {"a": 0.5}


def put_down(decided: Plan, machines: Sequence[Machine]) -> bool:
    """Whether all find a place: shares on the fullest GPU that has room, whole GPUs on empty ones, in order."""
    cpus = [machine.cpus for machine in machines]
    free = [[1.0] * int(machine.gpus) for machine in machines]
    for count, one in decided.demands.values():
        for _ in range(count):
            for index, machine in enumerate(machines):
                room = room_for(one, free[index])
                labelled = one.labels.items() <= machine.labels.items()
                if labelled and cpus[index] + 1e-6 >= one.cpus and len(room) >= one.gpus:
                    break
            else:
                return False
            cpus[index] -= one.cpus
            for number in room:
                free[index][number] -= min(one.gpus, 1.0)
    return True


def room_for(one: Reservation, free: Sequence[float]) -> list[int]:
    """The GPUs of one machine that a replica would be put on."""
    room = [number for number, left in enumerate(free) if left + 1e-6 >= min(one.gpus, 1.0)]
    return sorted(room, key=lambda number: free[number])[: math.ceil(one.gpus)]


LABELS = st.sampled_from([{}, {}, {"tier": "gpu"}])
MACHINES = st.lists(st.builds(Machine, st.integers(0, 8), st.integers(0, 3), LABELS), min_size=1, max_size=4)
RESERVATIONS = st.builds(
    Reservation, st.sampled_from([0, 0.5, 1, 3]), st.sampled_from([0, 0.25, 0.3, 0.6, 1, 1, 1, 2]), LABELS
)
DEMANDS = st.dictionaries(st.sampled_from("abcd"), st.tuples(st.integers(1, 6), RESERVATIONS), min_size=1)


@given(DEMANDS, MACHINES)
def test_what_is_planned_fits_and_only_gpus_are_changed(
    demands: dict[str, tuple[int, Reservation]], machines: list[Machine]
) -> None:
    try:
        decided = plan(demands, machines)
    except RunFailed as error:
        assert not put_down(Plan(demands), machines), f"refused: {error}"
        return
    assert put_down(decided, machines)
    for name, (count, one) in decided.demands.items():
        asked_count, asked = demands[name]
        assert (count, one.cpus, one.labels) == (asked_count, asked.cpus, asked.labels)
        assert bool(one.gpus) == bool(asked.gpus), "it gets a GPU if and only if it asked for one"
    assert bool(decided.notes) == (decided.demands != demands)


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 200), min_size=1), st.integers(1, 4))
def test_whole_gpus_can_always_be_shared(counts: dict[str, int], there: int) -> None:
    decided = plan(gpus(**{name: (count, 1.0) for name, count in counts.items()}), [Machine(0, there)])
    assert put_down(decided, [Machine(0, there)])
    assert len(set(shares(decided).values())) == 1, "they are treated alike"
