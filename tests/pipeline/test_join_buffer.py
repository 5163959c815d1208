"""Groups of a join: when they are whole, and what becomes of them."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from framefold.pipeline.item import Seq
from framefold.pipeline.join_buffer import JoinBuffer
from framefold.pipeline.shape import Entry, Parcel


def entry(*seq: int, nbytes: int = 1, since: float = 0.0) -> Entry:
    return Entry(seq, f"item {seq}", (Parcel(nbytes),), since=since)


def test_a_group_is_whole_when_nothing_of_it_is_under_way() -> None:
    buffer = JoinBuffer("both", ["x", "y"], 2)
    buffer.enter((0, 0))
    buffer.enter((0, 0, 5))
    buffer.arrive("x", entry(0, 0, 0))
    buffer.arrive("y", entry(0, 0, 1))
    assert buffer.settle((0, 0)) is None
    buffer.leave((0, 0, 5))
    assert buffer.settle((0, 0)) is None
    buffer.leave((0, 0))
    settled = buffer.settle((0, 0, 7))  # whatever of the group it is asked by
    assert settled is not None
    assert [item.seq for item in settled.joined] == [(0, 0, 0)]
    assert settled.unjoined is None


def test_a_group_settles_once() -> None:
    buffer = JoinBuffer("both", ["x", "y"], 2)
    buffer.arrive("x", entry(0, 0, 0))
    assert len(buffer) == 1
    assert buffer.settle((0, 0)) is not None
    assert buffer.settle((0, 0)) is None
    assert len(buffer) == 0


def test_a_group_of_which_nothing_came_is_no_group() -> None:
    buffer = JoinBuffer("both", ["x", "y"], 2)
    buffer.enter((0, 0))
    buffer.leave((0, 0))
    assert buffer.settle((0, 0)) is None
    assert buffer.first() is None


def test_groups_do_not_wait_for_each_other() -> None:
    buffer = JoinBuffer("both", ["x", "y"], 2)
    buffer.enter((0, 0))
    for group in (0, 1):
        buffer.arrive("x", entry(0, group, 0))
        buffer.arrive("y", entry(0, group, 0))
    assert buffer.first() == (0, 0)
    assert buffer.settle((0, 0)) is None
    settled = buffer.settle((0, 1))
    assert settled is not None
    assert [item.seq for item in settled.joined] == [(0, 1, 0)]
    assert buffer.first() == (0, 0)


def test_a_joined_item_holds_a_ticket_for_each_name_and_every_parcel_once() -> None:
    buffer = JoinBuffer("both", ["x", "y"], 2)
    straight = entry(0, 0, nbytes=5, since=3.0)
    buffer.arrive("x", straight)
    buffer.arrive("y", straight)
    settled = buffer.settle((0, 0))
    assert settled is not None
    (joined,) = settled.joined
    assert joined.ticket == {"x": "item (0, 0)", "y": "item (0, 0)"}
    assert joined.nbytes == 5
    assert settled.parts == [straight, straight]


def test_a_joined_item_waits_since_its_last_part_came() -> None:
    buffer = JoinBuffer("both", ["x", "y"], 2)
    buffer.arrive("x", entry(0, 0, 0, since=9.0))
    buffer.arrive("y", entry(0, 0, 0, since=4.0))
    settled = buffer.settle((0, 0))
    assert settled is not None
    assert settled.joined[0].since == 9.0


def test_twins_stand_in_the_order_of_the_nodes_they_came_by() -> None:
    buffer = JoinBuffer("both", ["x", "y"], 1)
    for number in (2, 1):
        buffer.arrive("x", Entry((0, 0), f"by {number}", via=(number,)))
    buffer.arrive("y", Entry((0, 0), "y"))
    settled = buffer.settle((0,))
    assert settled is not None
    assert settled.joined[0].ticket == {"x": "by 1", "y": "y"}


ARRIVALS = st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 2), st.integers(0, 4)), unique=True, max_size=30)


@settings(deadline=None)
@given(ARRIVALS, st.randoms(use_true_random=False))
def test_the_kth_of_every_name_belong_together_in_whatever_order_they_came(
    arrivals: list[tuple[str, int, int]], rng: random.Random
) -> None:
    buffer = JoinBuffer("all", ["x", "y", "z"], 2)
    parts = {(name, group, k): entry(0, group, k) for name, group, k in arrivals}
    rng.shuffle(arrivals)
    for name, group, k in arrivals:
        buffer.arrive(name, parts[name, group, k])
    for group in range(3):
        columns = {name: sorted(k for one, at, k in arrivals if (one, at) == (name, group)) for name in "xyz"}
        expect_group(buffer, group, columns)


def expect_group(buffer: JoinBuffer, group: int, columns: dict[str, list[int]]) -> None:
    settled = buffer.settle((0, group))
    if not any(columns.values()):
        assert settled is None
        return
    assert settled is not None
    whole = min(map(len, columns.values()))
    assert [item.seq for item in settled.joined] == [(0, group, k) for k in range(whole)]
    assert [item.ticket for item in settled.joined] == [
        {name: f"item {(0, group, column[k])}" for name, column in columns.items()} for k in range(whole)
    ]
    left: dict[str, list[Seq]] = {name: [(0, group, k) for k in column[whole:]] for name, column in columns.items()}
    found = settled.unjoined
    assert (found is None) is not any(left.values())
    if found is not None:
        assert (found.node, found.seq) == ("all", (0, group))
        assert {name: [item.seq for item in items] for name, items in found.entries.items()} == {
            name: seqs for name, seqs in left.items() if seqs
        }
    assert len(settled.parts) == sum(map(len, columns.values()))
