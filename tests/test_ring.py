"""The ring: every sample that was pushed is delivered, lost and accounted for, or still pending."""

from __future__ import annotations

import itertools
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datastore_lab.acquire import RingBuffer
from datastore_lab.acquire.cursor import Cursor
from datastore_lab.errors import StreamError
from datastore_lab.records import ArrayInfo, Block, Stat

SPEC = Stat(
    "stream",
    {
        "x": ArrayInfo("<i8", (0,), ("time",), 0, None),
        "frame": ArrayInfo("|u1", (0, 2, 3), ("time", "y", "x"), 0, None),
    },
    {"rate": 100.0},
)
SAMPLE = 8 + 8 + 6


def block(first: int, count: int) -> Block:
    """Samples whose every value says which one it is."""
    number = np.arange(first, first + count)
    frame = np.broadcast_to((number % 251).astype("u1")[:, None, None], (count, 2, 3))
    return Block(first, number * 10, {"x": number, "frame": frame})


def check(got: Block) -> list[int]:
    numbers = list(range(got.first, got.first + len(got.time)))
    assert got.data["x"].tolist() == numbers
    assert got.time.tolist() == [10 * n for n in numbers]
    assert (got.data["frame"] == (np.array(numbers, dtype="i8") % 251)[:, None, None]).all()
    return numbers


def expand(ledger: list[list[int]]) -> list[int]:
    assert all(later[0] > earlier[1] + 1 for earlier, later in itertools.pairwise(ledger))
    return [n for first, last in ledger for n in range(first, last + 1)]


def law(cursor: Cursor) -> None:
    counts = cursor.counts
    assert counts.pushed == counts.delivered + counts.lost + counts.pending
    assert cursor.lost == counts.lost == len(expand(cursor.gaps))


class Consumer:
    def __init__(self, ring: RingBuffer, policy: str, limit: int, pushed: int) -> None:
        self.cursor = ring.cursor(policy, limit=limit, timeout=0)
        self.begin = pushed
        self.seen: list[int] = []

    def read(self, most: int | None) -> None:
        got = self.cursor.read(most)
        if got is not None:
            assert most is None or len(got.time) <= most
            self.seen += check(got)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 40), st.integers(0, 3)),
        st.tuples(st.just("skip"), st.integers(0, 10), st.integers(0, 3)),
        st.tuples(st.just("read"), st.integers(0, 5), st.one_of(st.none(), st.integers(1, 30))),
        st.tuples(
            st.just("attach"), st.sampled_from(["drop_oldest", "block", "grow"]), st.integers(0, 30 * SAMPLE)
        ),
        st.tuples(st.just("latest"), st.integers(1, 40), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(samples=st.integers(1, 20), schedule=steps)
def test_pushed_is_delivered_plus_lost_plus_pending(samples, schedule):
    ring = RingBuffer(SPEC, samples=samples)
    consumers = [Consumer(ring, policy, 12 * SAMPLE, 0) for policy in ("drop_oldest", "block", "grow")]
    pushed: list[int] = []
    jumped: list[int] = []
    skipped: list[int] = []
    following = 0
    for action, a, b in schedule:
        if action in {"push", "skip"}:
            jumped += range(following, following + b)
            getattr(ring, action)(block(following + b, a))
            (pushed if action == "push" else skipped).extend(range(following + b, following + b + a))
            following += a + b
        elif action == "read":
            consumers[a % len(consumers)].read(b)
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


@pytest.fixture
def switching():
    """Change threads often: more interleavings, and no thread holds the others up for 5 ms at a time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    yield
    sys.setswitchinterval(before)


class Threads:
    """Threads whose first error is kept for the test."""

    def __init__(self) -> None:
        self.faults: list[BaseException] = []
        self.done = threading.Event()
        self.threads: list[threading.Thread] = []

    def start(self, step, *args) -> None:
        def run():
            try:
                while step(*args):
                    pass
            except BaseException as error:
                self.faults.append(error)

        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()

    def join(self) -> None:
        self.done.set()
        for thread in self.threads:
            thread.join(30)
        assert not self.faults


def test_threads_never_see_torn_samples(switching):
    """One producer laps readers of every policy; each block is checked value by value."""
    ring = RingBuffer(SPEC, samples=64)
    limits = {"drop_oldest": 0, "grow": 200 * SAMPLE, "block": 0}
    cursors = [ring.cursor(policy, limit=limit, timeout=30) for policy, limit in limits.items()]
    seen: list[list[int]] = [[] for _ in cursors]
    threads = Threads()

    def consume(index: int) -> bool:
        got = cursors[index].read(50, timeout=0.05)
        if got is not None:
            seen[index] += check(got)
        counts = cursors[index].counts
        assert counts.pushed == counts.delivered + counts.lost + counts.pending
        return got is not None or not threads.done.is_set()

    def look() -> bool:
        newest = ring.latest(40)
        return (newest is None or bool(check(newest))) and not threads.done.is_set()

    for index in range(len(cursors)):
        threads.start(consume, index)
    threads.start(look)
    first = 0
    for size in np.random.default_rng(1).integers(1, 90, 200).tolist():
        ring.push(block(first, size))
        first += size
    threads.join()
    for index, cursor in enumerate(cursors):
        assert sorted(seen[index] + expand(cursor.gaps)) == list(range(first))
    assert cursors[2].lost == 0


def test_producers_may_take_turns_in_several_threads(switching):
    ring = RingBuffer(SPEC, samples=50)
    cursor = ring.cursor("grow", limit=10_000 * SAMPLE)
    threads, turn, following = Threads(), threading.Lock(), itertools.count(0, 7)

    def produce() -> bool:
        with turn:
            first = next(following)
            ring.push(block(first, 7))
        return first < 7_000

    for _ in range(5):
        threads.start(produce)
    threads.join()
    seen = []
    while (got := cursor.read()) is not None:
        seen += check(got)
    assert seen == list(range(ring.pushed))
    assert ring.device_lost == 0


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
    assert len(cursor._kept) <= 20
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
    assert len(ring._starts) < 1000
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
    with pytest.raises(ValueError, match="'drop_oldest', 'block', 'grow'"):
        RingBuffer(SPEC, samples=1).cursor("drop_newest")


def test_names_of_the_streams_own_columns_are_taken():
    spec = Stat("stream", {"time": ArrayInfo("<f8", (0,), ("time",), 0, None)}, {"rate": 1.0})
    with pytest.raises(ValueError, match="'time'"):
        RingBuffer(spec, samples=1)


@pytest.mark.parametrize("laps", [1, 2])
@pytest.mark.parametrize("size", [3, 16, 20])
def test_samples_overwritten_under_a_readers_copy_are_lost_and_not_shown(monkeypatch, laps, size):
    """The producer pushes just before and just after the bytes are copied, once or twice."""
    ring = RingBuffer(SPEC, samples=16)
    cursor = ring.cursor()
    ring.push(block(0, 16))
    plain, left = ring._copy, [laps]

    def copy(start, stop):
        if left[0] and not ring._lock.locked():
            left[0] -= 1
            ring.push(block(ring.pushed, size - size // 2))
            columns = plain(start, stop)
            ring.push(block(ring.pushed, size // 2))
            return columns
        return plain(start, stop)

    monkeypatch.setattr(ring, "_copy", copy)
    seen = []
    while (got := cursor.read()) is not None:
        seen += check(got)
        law(cursor)
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
