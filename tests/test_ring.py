"""The ring: every sample that was pushed is delivered, lost and accounted for, or still pending."""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rings import SAMPLE, SPEC, Threads, block, check, expand, law

from datastore_lab import dtypes
from datastore_lab.acquire import RingBuffer
from datastore_lab.errors import EngineError, Overrun, StreamError
from datastore_lab.records import ArrayInfo, Block, Stat


class Consumer:
    def __init__(
        self, ring: RingBuffer, policy: str, limit: int | None, pushed: int, wait: float = 0.0
    ) -> None:
        """`wait` is for samples, and to be waited for: seconds."""
        self.cursor = ring.cursor(policy, limit=limit, timeout=1000 * wait)
        self.wait = wait
        self.begin = pushed
        self.seen: list[int] = []

    def read(self, most: int | None) -> None:
        try:
            got = self.cursor.read(most, self.wait)
        except EngineError:  # the spill file is at its limit: what was lost is in the ledger
            assert self.cursor.policy == "spill"
            return
        if got is not None:
            assert most is None or len(got.time) <= most
            self.seen += check(got)

    def look(self, most: int, meanwhile) -> None:
        """Take a view, while which something else happens; what it showed counts unless it is stale."""
        shown: list[int] = []
        try:
            with self.cursor.view(most, self.wait) as view:
                if len(view):
                    meanwhile()
                    shown = check(view.copy())
                    assert 0 < len(shown) <= most
        except Overrun:
            return
        except EngineError:
            assert self.cursor.policy == "spill"
            return
        self.seen += shown

    def follow(self, done: threading.Event, most: int | None = None, looking: bool = False) -> bool:
        """Read once; says whether there may be more."""
        ended = done.is_set()
        self.look(most, lambda: None) if looking else self.read(most)
        counts = self.cursor.counts
        assert counts.pushed == counts.delivered + counts.lost + counts.pending
        return counts.pending > 0 or not ended


POLICIES = ["drop_oldest", "block", "grow", "spill"]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 40), st.integers(0, 3)),
        st.tuples(st.just("skip"), st.integers(0, 10), st.integers(0, 3)),
        st.tuples(st.just("read"), st.integers(0, 5), st.one_of(st.none(), st.integers(1, 30))),
        st.tuples(st.just("look"), st.integers(0, 5), st.tuples(st.integers(1, 30), st.integers(0, 40))),
        st.tuples(st.just("attach"), st.sampled_from(POLICIES), st.integers(300, 60 * SAMPLE)),
        st.tuples(st.just("latest"), st.integers(1, 40), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(samples=st.integers(1, 20), schedule=steps)
def test_pushed_is_delivered_plus_lost_plus_pending(samples, schedule):
    ring = RingBuffer(SPEC, samples=samples)
    consumers = [Consumer(ring, policy, 12 * SAMPLE + 400 * (policy == "spill"), 0) for policy in POLICIES]
    pushed: list[int] = []
    jumped: list[int] = []
    skipped: list[int] = []

    def give(action, count, jump):
        following = ring.produced
        jumped.extend(range(following, following + jump))
        (pushed if action == "push" else skipped).extend(range(following + jump, following + jump + count))
        getattr(ring, action)(block(following + jump, count))

    for action, a, b in schedule:
        if action in {"push", "skip"}:
            give(action, a, b)
        elif action == "read":
            consumers[a % len(consumers)].read(b)
        elif action == "look":
            consumers[a % len(consumers)].look(b[0], lambda count=b[1]: give("push", count, 0))
        elif action == "attach":
            consumers.append(Consumer(ring, a, b, len(pushed)))
        else:
            newest = ring.latest(a)
            kept = pushed[-min(a, samples) :]
            assert (newest.data["x"].tolist() if newest else []) == kept
        for consumer in consumers:
            law(consumer.cursor)
    assert expand(ring.device_gaps) == jumped
    assert expand(ring.skipped) == skipped
    assert ring.device_lost == len(jumped)
    for consumer in consumers:
        while consumer.cursor.lag:
            consumer.read(None)
        law(consumer.cursor)
        assert consumer.seen == sorted(consumer.seen)
        # each sample exactly once: delivered, or in the ledger of losses
        assert sorted(consumer.seen + expand(consumer.cursor.gaps)) == pushed[consumer.begin :]
        consumer.cursor.close()


def test_a_block_larger_than_the_ring_leaves_its_newest_samples():
    ring = RingBuffer(SPEC, samples=7)
    cursor = ring.cursor()
    ring.push(block(0, 100))
    assert check(cursor.read()) == list(range(93, 100))
    assert cursor.gaps == [[0, 92]]
    assert check(ring.latest(3)) == [97, 98, 99]


def test_a_grown_cursor_keeps_everything_within_its_limit():
    ring = RingBuffer(SPEC, samples=5)
    cursor = ring.cursor("grow", limit=1000 * SAMPLE)
    for first in range(0, 300, 3):
        ring.push(block(first, 3))
    seen = []
    while (got := cursor.read(7)) is not None:
        seen += check(got)
    assert seen == list(range(300))
    assert cursor.lost == 0


def test_a_blocking_cursor_holds_the_producer_until_it_has_read():
    ring = RingBuffer(SPEC, samples=8)
    full = threading.Event()
    cursor = ring.cursor("block", on_full=full.set)
    producer = threading.Thread(target=ring.push, args=(block(0, 20),))
    producer.start()
    assert full.wait(10)
    assert ring.pushed <= 8
    seen = []
    while len(seen) < 20:
        seen += check(cursor.read(timeout=10))
    producer.join(10)
    assert seen == list(range(20))
    assert cursor.lost == 0


def test_a_consumer_that_never_reads_is_waited_for_once():
    ring = RingBuffer(SPEC, samples=8)
    calls = []
    stuck = ring.cursor("block", timeout=0.01, on_full=lambda: calls.append(1))
    for first in range(0, 80, 8):
        ring.push(block(first, 8))
    assert len(calls) == 1
    assert stuck.gaps == [[0, 71]]
    assert check(stuck.read()) == list(range(72, 80))
    ring.push(block(80, 9))
    assert len(calls) == 2  # it read, so it is waited for again


@pytest.mark.parametrize("leave", ["cursor", "ring"])
def test_closing_frees_a_producer_that_waits(leave):
    ring = RingBuffer(SPEC, samples=4)
    full = threading.Event()
    cursor = ring.cursor("block", on_full=full.set)
    outcome = []

    def produce():
        try:
            ring.push(block(0, 40))
            outcome.append("pushed")
        except StreamError:
            outcome.append("refused")

    producer = threading.Thread(target=produce)
    producer.start()
    assert full.wait(10)
    (cursor if leave == "cursor" else ring).close()
    producer.join(10)
    assert outcome == (["pushed"] if leave == "cursor" else ["refused"])


def test_a_reader_waits_for_the_first_sample_and_is_woken_by_the_end():
    ring = RingBuffer(SPEC, samples=10)
    cursor = ring.cursor()
    got = []

    def consume():
        while (received := cursor.read(timeout=None)) is not None:
            got.extend(check(received))

    consumer = threading.Thread(target=consume)
    consumer.start()
    ring.push(block(0, 3))
    ring.close()
    consumer.join(10)
    assert not consumer.is_alive()
    assert got == [0, 1, 2]
    with pytest.raises(StreamError, match="closed"):
        ring.push(block(3, 1))


@contextlib.contextmanager
def often_switching():
    """Change threads often: more interleavings, and no thread holds the others up for 5 ms at a time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    yield
    sys.setswitchinterval(before)


@settings(max_examples=40, deadline=None)
@given(
    samples=st.integers(8, 100),
    sizes=st.lists(st.integers(1, 90), min_size=20, max_size=60),
    jumps=st.lists(st.integers(0, 3), min_size=60, max_size=60),
    most=st.integers(1, 80),
    reading=st.sampled_from(["read", "look"]),
)
def test_threads_lose_nothing_unnamed_and_see_nothing_torn(samples, sizes, jumps, most, reading):
    """One producer laps readers of every policy; each block is checked value by value."""
    ring = RingBuffer(SPEC, samples=samples)
    limit = {"grow": 200 * SAMPLE, "spill": 2_000 * SAMPLE}
    consumers = [Consumer(ring, policy, limit.get(policy), 0, wait=0.02) for policy in POLICIES]
    threads = Threads()

    def look() -> bool:
        newest = ring.latest(40)
        return newest is None or not threads.done.is_set()

    for consumer in consumers:
        threads.start(consumer.follow, threads.done, most, reading == "look")
    threads.start(look)
    pushed = []
    with often_switching():
        for size, jump in zip(sizes, jumps, strict=False):
            first = ring.produced + jump
            pushed += range(first, first + size)
            ring.push(block(first, size))
        threads.join()
    for consumer in consumers:
        assert sorted(consumer.seen + expand(consumer.cursor.gaps)) == pushed
        consumer.cursor.close()
    assert consumers[1].cursor.lost == 0


def test_ten_writers_and_five_readers():
    ring = RingBuffer(SPEC, samples=50)
    consumers = [Consumer(ring, "grow", 10_000 * SAMPLE, 0, wait=0.02) for _ in range(5)]
    writers, readers, turn, following = Threads(), Threads(), threading.Lock(), itertools.count(0, 7)

    def produce() -> bool:
        with turn:
            first = next(following)
            ring.push(block(first, 7))
        return first < 2_000

    with often_switching():
        for _ in range(10):
            writers.start(produce)
        for consumer in consumers:
            readers.start(consumer.follow, readers.done)
        writers.join()
        readers.join()
    for consumer in consumers:
        assert consumer.seen == list(range(ring.pushed))
        assert consumer.cursor.lost == 0
    assert ring.device_lost == 0


def test_a_slow_viewer_blocks_nobody_and_has_the_newest():
    ring = RingBuffer(SPEC, samples=20)
    viewer, writer = ring.cursor(), Consumer(ring, "block", None, 0)
    for first in range(0, 1000, 10):
        ring.push(block(first, 10))
        writer.read(None)
    assert writer.seen == list(range(1000))
    assert check(viewer.read()) == list(range(980, 1000))
    assert viewer.gaps == [[0, 979]]


def test_a_consumer_may_take_every_tenth_sample():
    ring, taken = RingBuffer(SPEC, samples=100), []
    cursor = ring.cursor()
    for first in range(0, 1000, 37):
        ring.push(block(first, 37))
        while len(view := cursor.view()):
            with view:
                taken += view.data["x"][-view.first % 10 :: 10].tolist()
    assert taken == list(range(0, ring.pushed, 10))
    assert cursor.lost == 0


def test_a_view_shows_the_rings_own_memory_read_only():
    ring = RingBuffer(SPEC, samples=10)
    cursor = ring.cursor()
    ring.push(block(0, 8))
    with cursor.view() as view:
        assert (view.first, len(view)) == (0, 8)
        assert np.shares_memory(view.data["x"], ring._core.columns.arrays["x"])
        with pytest.raises(ValueError, match="read-only"):
            view.data["x"][0] = 1
        assert cursor.counts == (8, 0, 0, 8)
        with pytest.raises(StreamError, match="a view of this cursor is open"):
            cursor.read()
    assert cursor.counts == (8, 8, 0, 0)
    with pytest.raises(Overrun, match="was left"):
        view.data  # noqa: B018
    ring.push(block(8, 8))
    with cursor.view() as view:  # up to the ring's end
        assert view.copy().data["x"].tolist() == [8, 9]
    assert check(cursor.read()) == list(range(10, 16))
    with cursor.view() as view:
        assert len(view) == 0
        with pytest.raises(Overrun, match="empty"):
            view.check()


def test_a_stale_view_raises_and_what_is_whole_stays_to_be_read():
    ring = RingBuffer(SPEC, samples=10)
    cursor = ring.cursor()
    ring.push(block(0, 8))
    view = cursor.view()

    def look():
        with view:
            ring.push(block(8, 6))
            raise ZeroDivisionError

    with pytest.raises(Overrun, match="samples from 0 on were overwritten") as caught:
        look()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert cursor.counts == (14, 0, 4, 10)
    for access in (view.check, view.copy, lambda: view.data, lambda: view.time, lambda: view.first):
        with pytest.raises(Overrun):
            access()
    assert check(cursor.read()) == list(range(4, 14))
    assert cursor.gaps == [[0, 3]]


def test_a_view_holds_a_producer_that_waits_for_it():
    ring = RingBuffer(SPEC, samples=8)
    full = threading.Event()
    cursor = ring.cursor("block", on_full=full.set)
    ring.push(block(0, 8))
    producer = threading.Thread(target=ring.push, args=(block(8, 4),))
    with cursor.view() as view:
        producer.start()
        assert full.wait(10)
        assert check(view.copy()) == list(range(8))
    producer.join(10)
    assert check(cursor.read()) == list(range(8, 12))


def test_many_blocks_at_once():
    ring = RingBuffer(SPEC._replace(meta={"rate": 1e8}), samples=100)
    given = block(0, 60)
    stacked = {name: rows.reshape(6, 10, *rows.shape[1:]) for name, rows in given.data.items()}
    cursor = ring.cursor()
    ring.push_many(Block(0, given.time.reshape(6, 10), stacked))
    assert check(cursor.read()) == list(range(60))
    later = {name: rows + type(rows.flat[0])(60) for name, rows in stacked.items()}
    ring.push_many(Block(60, given.time[::10] + 600, later))
    assert check(cursor.read()) == list(range(60, 120))


@pytest.mark.parametrize(
    ("stack", "rate", "why"),
    [
        (Block(0, np.zeros(2, "i8"), {"x": np.zeros((2, 3), "i8")}), None, "need a rate"),
        (Block(0, np.zeros(3, "i8"), {"x": np.zeros((2, 3), "i8")}), 1.0, "times of 2 blocks"),
        (Block(0, np.zeros(2, "i8"), {"x": np.zeros(2, "i8")}), 1.0, "equal shapes"),
        (Block(0, np.zeros(2, "i8"), {"x": np.zeros((2, 3), "f8")}), 1.0, "float64"),
    ],
)
def test_many_blocks_that_do_not_fit_are_refused(stack, rate, why):
    spec = Stat("stream", {"x": SPEC.arrays["x"]}, {"rate": rate})
    ring = RingBuffer(spec, samples=10)
    with pytest.raises(StreamError, match=why):
        ring.push_many(stack)
    assert ring.pushed == 0


def test_rows_of_any_layout_are_taken_in():
    """Large and small, contiguous and not, big-endian and text: all come out as they went in."""
    kinds = {"big": ">f4", "when": "<M8[ns]", "flag": "|b1", "pair": '[["a", "<i2"], ["b", "<f8"]]'}
    arrays = {name: ArrayInfo(kind, (0, 3), ("time", "c"), 0, None) for name, kind in kinds.items()}
    arrays["text"] = ArrayInfo(dtypes.STRING, (0,), ("time",), 0, None)
    ring = RingBuffer(Stat("stream", arrays, {"rate": None}), samples=10)
    cursor = ring.cursor("grow")
    random = np.random.default_rng(0)
    rows = {name: random.integers(0, 2, (25, 3)).astype(dtypes.parse(kind)) for name, kind in kinds.items()}
    rows["text"] = np.array([f"sample {n}" for n in range(25)], dtype=np.dtypes.StringDType())
    rows["big"] = np.asfortranarray(rows["big"])
    ring.push(Block(0, np.arange(25), rows))
    seen = []
    while (got := cursor.read()) is not None:
        seen.append(got)
    for name, values in rows.items():
        assert np.array_equal(np.concatenate([part.data[name] for part in seen]), values), name


def test_the_figures_of_each_consumer():
    ring = RingBuffer(SPEC, samples=10)
    fast, slow = ring.cursor("block", timeout=0, name="file"), ring.cursor()
    ring.push(block(0, 4))
    fast.read()
    ring.push(block(6, 8))
    stats = ring.stats()
    assert stats["consumers"] == {
        "file": {"policy": "block", "delivered": 4, "lag": 8, "fill": 0.8, "lost": 0},
        "consumer 2": {"policy": "drop_oldest", "delivered": 0, "lag": 10, "fill": 1.0, "lost": 2},
    }
    assert (stats["pushed"], stats["produced"], stats["device_lost"], stats["fill"]) == (12, 14, 2, 1.0)
    slow.close()
    ring.cursor(name="file")
    assert list(ring.stats()["consumers"]) == ["file", "file 3"]


def test_what_came_since_a_moment():
    ring = RingBuffer(SPEC, samples=20)
    ring.push(block(0, 5))
    ring.push(block(8, 5))
    ring.push(block(20, 12))
    assert [check(got) for got in ring.recent(85)] == [[9, 10, 11, 12], list(range(20, 32))]
    assert [check(got) for got in ring.recent(0)] == [[2, 3, 4], list(range(8, 13)), list(range(20, 32))]
    assert ring.recent(10**6) == []


def test_copies_stay_as_they_were():
    ring = RingBuffer(SPEC, samples=4)
    cursor = ring.cursor()
    ring.push(block(0, 4))
    mine, newest = cursor.read(), ring.latest(4)
    ring.push(block(4, 4))
    assert check(mine) == check(newest) == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", [np.uint64, np.int32, np.uint8])
def test_the_sequence_numbers_of_a_driver_may_be_of_any_integer_type(kind):
    ring = RingBuffer(SPEC, samples=100)
    cursor = ring.cursor()
    ring.push(block(0, 100)._replace(first=kind(0)))
    ring.push(block(100, 100)._replace(first=kind(100)))
    ring.skip(block(201, 100)._replace(first=kind(201)))
    assert (ring.device_gaps, ring.skipped, ring.produced) == ([[200, 200]], [[201, 300]], 301)
    assert cursor.gaps == [[0, 99]]
    with pytest.raises(StreamError, match=r"2\.5, which is no integer"):
        ring.push(block(400, 1)._replace(first=2.5))


def test_a_growing_cursor_keeps_small_blocks_together():
    ring = RingBuffer(SPEC, samples=400)
    cursor = ring.cursor("grow")
    for first in range(2000):
        ring.push(block(first, 1))
    assert len(cursor._backlog._blocks) <= 20
    seen = []
    while (got := cursor.read()) is not None:
        seen += check(got)
    assert seen == list(range(2000))
    law(cursor)


def test_a_later_cursor_begins_at_the_head():
    ring = RingBuffer(SPEC, samples=10)
    ring.push(block(5, 4))
    cursor = ring.cursor()
    ring.push(block(12, 2))
    assert check(cursor.read()) == [12, 13]
    assert cursor.device_gaps == [[9, 11]]
    assert ring.device_gaps == [[0, 4], [9, 11]]


def test_a_device_that_jumps_all_the_time_keeps_the_ring_small():
    ring = RingBuffer(SPEC, samples=10)
    cursor = ring.cursor()
    for first in range(0, 20_000, 2):
        ring.push(block(first, 1))
    assert len(ring._core.segments.starts) < 1000
    assert expand(cursor.gaps) == list(range(0, 19_980, 2))
    assert [check(cursor.read())[0] for _ in range(10)] == list(range(19_980, 20_000, 2))


def test_the_device_clock_travels_along():
    spec = SPEC._replace(meta={"rate": 100.0, "device_time": True})
    ring = RingBuffer(spec, samples=10)
    cursor = ring.cursor("grow", limit=100 * SAMPLE)
    for first in range(0, 30, 3):
        ring.push(block(first, 3)._replace(device_time=np.arange(first, first + 3)))
    seen = []
    while (got := cursor.read(2)) is not None:
        seen += got.device_time.tolist()
    assert seen == list(range(30))
    with pytest.raises(StreamError, match="device_time"):
        ring.push(block(30, 1))


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (block(0, 2), "begins at sequence number 0"),
        (Block(9, np.arange(2), {"x": np.arange(2)}), "frame"),
        (Block(9, np.arange(2), {**block(9, 2).data, "x": np.arange(2.0)}), "float64"),
        (Block(9, np.arange(3), block(9, 2).data), "described"),
    ],
)
def test_a_block_that_was_not_described_is_refused(bad, why):
    ring = RingBuffer(SPEC, samples=10)
    ring.push(block(0, 3))
    with pytest.raises(StreamError, match=why):
        ring.push(bad)
    assert ring.pushed == 3
    ring.push(block(3, 1))
    assert ring.device_lost == 0


@pytest.mark.parametrize(
    ("size", "why"),
    [
        ({}, "exactly one of samples, nbytes, seconds, memory, not none"),
        ({"samples": 3, "seconds": 1}, "not samples, seconds"),
        ({"samples": 0}, "holds no sample"),
        ({"nbytes": SAMPLE - 1}, "holds no sample of 22 bytes"),
        ({"memory": 1.5}, "share of the free memory"),
        ({"nbytes": 10**15}, "GB are free"),
    ],
)
def test_a_ring_has_exactly_one_size(size, why):
    with pytest.raises(ValueError, match=why):
        RingBuffer(SPEC, **size)


def test_sizes():
    assert RingBuffer(SPEC, seconds=2.5).samples == 250
    assert RingBuffer(SPEC, seconds=2.5, rate=10).samples == 25
    assert RingBuffer(SPEC, nbytes=10 * SAMPLE + 3).samples == 10
    assert RingBuffer(SPEC, seconds="1 min", rate=10).samples == 600
    assert RingBuffer(SPEC, nbytes="2.2 kB").samples == 100
    assert RingBuffer(SPEC, memory=1e-6).nbytes < 100_000
    with pytest.raises(ValueError, match="needs a rate"):
        RingBuffer(SPEC._replace(meta={"rate": None}), seconds=1)


def test_an_unknown_policy_names_those_there_are():
    with pytest.raises(ValueError, match="'drop_oldest', 'block', 'grow', 'spill'"):
        RingBuffer(SPEC, samples=1).cursor("drop_newest")


def test_names_of_the_streams_own_columns_are_taken():
    spec = Stat("stream", {"time": ArrayInfo("<f8", (0,), ("time",), 0, None)}, {"rate": 1.0})
    with pytest.raises(ValueError, match="'time'"):
        RingBuffer(spec, samples=1)


@pytest.mark.parametrize("policy", ["drop_oldest", "grow", "spill"])
@pytest.mark.parametrize("laps", [1, 2])
@pytest.mark.parametrize("size", [3, 16, 20])
def test_samples_overwritten_under_a_readers_copy_are_never_shown(monkeypatch, tmp_path, policy, laps, size):
    """The producer pushes just before and just after the bytes are copied, once or twice."""
    ring = RingBuffer(SPEC, samples=16)
    cursor = ring.cursor(policy, folder=tmp_path)
    ring.push(block(0, 16))
    columns, lock, left = ring._core.columns, ring._core.lock, [laps]
    plain = columns.copy

    def copy(start, stop):
        if left[0] and not lock.locked():
            left[0] -= 1
            ring.push(block(ring.pushed, size - size // 2))
            rows = plain(start, stop)
            ring.push(block(ring.pushed, size // 2))
            return rows
        return plain(start, stop)

    monkeypatch.setattr(columns, "copy", copy)
    seen = []
    while (got := cursor.read()) is not None:
        seen += check(got)
        law(cursor)
    assert seen == sorted(seen)
    assert policy == "drop_oldest" or cursor.lost == 0
    assert sorted(seen + expand(cursor.gaps)) == list(range(ring.pushed))
    left[0] = laps
    newest = check(ring.latest(16))
    assert newest == list(range(newest[0], newest[0] + 16))


def test_a_cursor_that_left_keeps_its_accounts():
    ring = RingBuffer(SPEC, samples=4)
    with ring.cursor() as cursor:
        ring.push(block(0, 6))
    assert cursor.closed
    ring.push(block(6, 6))
    cursor.close()
    assert cursor.counts == (6, 0, 2, 4)
    assert cursor.read() is None
    assert "2 lost" in repr(cursor)
    assert "0 cursors" in repr(ring)
    with pytest.raises(ValueError, match="at least 1"):
        cursor.read(0)
