"""The notebook face without a page: rows, looks, messages, fallbacks, threads."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from datastore_lab import SimulatedCamera, SimulatedDAQ, acquire, open_store
from datastore_lab.errors import Corrupt
from datastore_lab.notebook import browse, fallback, panel, preview
from datastore_lab.notebook.decimate import min_max, positions, thin, to_bytes
from datastore_lab.notebook.link import Link
from datastore_lab.notebook.plots import SteadyRange, plots_of
from datastore_lab.notebook.source import Source
from datastore_lab.notebook.worker import Worker
from datastore_lab.records import ArrayInfo, Block, Record, Stat
from datastore_lab.store import Store
from datastore_lab.workspace import AnalysisWorkspace


@pytest.fixture
def store() -> Store:
    return open_store("memory://")


def wait_for(condition: Callable[[], Any], seconds: float = 20) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
    return found


class Watched:
    """An engine that notes what is read of which array, and can be told to fail."""

    def __init__(self, engine: Any, *, sizes: dict[str, ArrayInfo] | None = None, broken: Any = None) -> None:
        self._engine, self._sizes, self._broken = engine, sizes or {}, broken
        self.read_bytes = 0
        self.reads = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def stat(self, key: Any) -> Stat:
        if key == self._broken:
            raise Corrupt("the <header> is damaged", key=key)
        stat = self._engine.stat(key)
        return stat._replace(arrays={name: self._sizes.get(name, info) for name, info in stat.arrays.items()})

    def read(self, key: Any, name: str, selection: Any = ()) -> Any:
        self.reads += 1
        if name not in self._sizes:
            values = self._engine.read(key, name, selection)
        else:  # as large as it says it is, without being there
            info = self._sizes[name]
            whole = np.broadcast_to(np.zeros((), info.dtype), info.shape)
            values = whole[selection].copy()
        self.read_bytes += values.nbytes
        return values


# -- rows -----------------------------------------------------------------------------------------------


def test_rows_come_in_pages_and_read_no_payload(store: Store) -> None:
    for index in range(7):
        store[f"n{index}"] = np.arange(index)
    store.engine = Watched(store.engine)
    source = Source(store)
    total, rows = source.page((), 2, 3)
    assert (total, [row["name"] for row in rows]) == (7, ["n2", "n3", "n4"])
    assert rows[2] == {
        "name": "n4",
        "kind": "array",
        "leaf": True,
        "type": "int64",
        "shape": "4",
        "size": "32 B",
    }
    assert source.page((), 6, 10)[1][0]["name"] == "n6"
    assert source.page((), 50, 10) == (7, [])
    assert store.engine.reads == 0


def test_arrays_follow_the_nodes(store: Store) -> None:
    arrays = {"time": np.arange(3), "volt": np.zeros((3, 2))}
    store.write("run", Record("stream", arrays, {}, {}))
    store["run/notes"] = "first"
    source = Source(store)
    assert [row["leaf"] for row in source.page((), 0, 9)[1]] == [False]
    total, rows = source.page(("run",), 0, 9)
    assert (total, [row["name"] for row in rows]) == (3, ["notes", "time", "volt"])
    assert [bool(row.get("array")) for row in rows] == [False, True, True]
    assert [row["name"] for row in source.page(("run",), 2, 9)[1]] == ["volt"]
    assert rows[2]["shape"] == "3 × 2"


def test_new_items_are_seen(store: Store) -> None:
    source = Source(store)
    assert source.page((), 0, 9) == (0, [])
    store["a"] = 1
    assert source.page((), 0, 9)[0] == 1


def test_a_view_on_an_empty_place_is_empty(store: Store) -> None:
    assert Source(store.group("later")).page((), 0, 9) == (0, [])
    assert "nothing stored yet" in browse(store.group("later")).to_html()


def test_a_damaged_item_spoils_its_own_row_only(store: Store) -> None:
    store["a"], store["b"] = 1, 2
    store.engine = Watched(store.engine, broken=("a",))
    _, rows = Source(store).page((), 0, 9)
    assert rows[0]["error"] == "Corrupt: the <header> is damaged"
    assert rows[1]["kind"] == "value"


# -- looks ----------------------------------------------------------------------------------------------


def look(store: Store, *key: str, array: str | None = None) -> tuple[dict[str, Any], list[Any]]:
    described, buffers = preview.describe(store, key, array)
    return described["view"], buffers


def test_a_line_keeps_every_spike(store: Store) -> None:
    signal = np.zeros(100_000)
    signal[[777, 54_321]] = 5, -7
    store["signal"] = signal
    view, (line,) = look(store, "signal")
    assert (view["type"], view["length"], view["note"]) == ("line", 100_000, "")
    assert len(line) == 2000
    assert (line.max(), line.min()) == (5, -7)


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [
        ((5_000_000_000,), None),
        ((5_000_000_000,), (100_000,)),
        ((500_000_000, 8), (10_000, 8)),
        ((8, 500_000_000), (8, 10_000)),
        ((5_000_000_000,), (1_000_000_000,)),
        ((100_000, 200_000), (100, 100)),
        ((3, 4_000_000_000), None),
        ((50_000, 480, 640), (1, 480, 640)),
        ((20_000_000, 100), None),
        ((1_000_000, 2, 3, 500), None),
    ],
)
def test_looks_at_huge_arrays_are_bounded(store: Store, shape: tuple[int, ...], chunks: Any) -> None:
    store["huge"] = np.zeros(3)
    info = ArrayInfo("<f8", shape, tuple("abcd"[: len(shape)]), 8 * int(np.prod(shape, dtype=object)), chunks)
    store.engine = Watched(store.engine, sizes={"data": info})
    view, buffers = look(store, "huge")
    assert view["type"] in {"line", "image"}
    assert 0 < store.engine.read_bytes <= preview.BUDGET
    assert store.engine.reads <= 128
    assert sum(buffer.nbytes for buffer in buffers) <= 1_000_000


def test_columns_of_a_narrow_array_are_lines(store: Store) -> None:
    store["adc"] = np.arange(3000.0).reshape(1000, 3)
    view, lines = look(store, "adc")
    assert view["names"] == ["data[0]", "data[1]", "data[2]"]
    assert lines[2][:2].tolist() == [2, 5]
    store["turned"] = np.arange(3000.0).reshape(3, 1000)
    view, lines = look(store, "turned")
    assert lines[1][:2].tolist() == [1000, 1001]


@pytest.mark.parametrize("dtype", ["?", "u1", ">i2", "<f4", "f8", "f2"])
def test_lines_of_every_number_type(store: Store, dtype: str) -> None:
    store["x"] = np.arange(10).astype(dtype)
    _, (line,) = look(store, "x")
    assert line.dtype == np.dtype("=f8")
    assert line.tolist() == [abs(complex(value)) for value in np.arange(10).astype(dtype)]


def test_images(store: Store) -> None:
    store["frames"] = np.arange(4 * 30 * 40, dtype="u2").reshape(4, 30, 40)
    view, (image,) = look(store, "frames")
    assert (view["type"], view["note"], image.shape) == ("image", "data[3]", (30, 40))
    assert (view["low"], view["high"], image.min(), image.max()) == (3600, 4799, 0, 255)
    store["colour"] = np.full((20, 30, 3), (1, 2, 3), "u1")
    view, (image,) = look(store, "colour")
    assert (view["samples"], image[5, 5].tolist()) == (3, [1, 2, 3])
    store["holes"] = np.full((20, 30), np.nan)
    assert look(store, "holes")[1][0].max() == 0


def test_a_stream_shows_its_signals_not_its_clock(store: Store) -> None:
    arrays = {"time": np.arange(50), "volt": np.ones(50), "amp": np.ones(50)}
    store.write("run", Record("stream", arrays, {"rate": 10.0}, {}))
    assert look(store, "run")[0]["names"] == ["volt", "amp"]
    assert look(store, "run", array="time")[0]["names"] == ["time"]


def test_values_text_and_tables(store: Store) -> None:
    store["settings"] = {"gain": [1, 2], "who": "<b>"}
    assert "'who': '<b>'" in look(store, "settings")[0]["text"]
    store["long"] = "x" * 100_000
    assert len(look(store, "long")[0]["text"]) < 21_000
    names = np.array([f"n{index}" for index in range(90)], "T")
    store.write("people", Record("table", {"name": names, "age": np.arange(90.0) / 3}, {}, {}))
    view, _ = look(store, "people")
    assert (view["columns"], view["rows"][1], len(view["rows"])) == (["name", "age"], ["n1", "0.333333"], 50)
    assert view["note"] == "50 of 90 rows"
    store["when"] = np.array(["2026-01-02", "NaT"], "M8[D]")
    assert look(store, "when")[0]["rows"] == [["2026-01-02"], ["NaT"]]
    store["fields"] = np.array([(1, 2.5)], [("a", "i4"), ("b", "f8")])
    assert look(store, "fields")[0]["columns"] == ["data.a", "data.b"]
    store["empty"] = np.zeros((0, 3))
    assert look(store, "empty")[0]["type"] == "table"


def test_complex_numbers_are_drawn_as_what_they_are(store: Store) -> None:
    store["spin"] = np.exp(1j * np.linspace(0, 7, 50))
    view, (real, imaginary) = look(store, "spin")
    assert view["names"] == ["real data", "imag data"]
    assert np.allclose(real + 1j * imaginary, store["spin"])
    store["field"] = np.full((30, 40), 3 + 4j)
    view, _ = look(store, "field")
    assert (view["low"], view["high"], view["note"]) == (5, 5, "magnitude of data")


def test_a_long_strip_stays_wide_enough_to_see(store: Store) -> None:
    store["adc"] = np.arange(20_000 * 64.0).reshape(20_000, 64)
    view, _ = look(store, "adc")
    assert (view["width"], view["height"] > 256) == (64, True)


def test_pictures_say_where_there_is_no_number(store: Store) -> None:
    store["holes"] = np.where(np.eye(30) > 0, np.nan, 1.0)
    assert look(store, "holes")[0]["note"] == "data, black where it is not a finite number"


def test_small_matrices_are_read_not_drawn(store: Store) -> None:
    store["rotation"] = np.eye(3)
    view, _ = look(store, "rotation")
    assert view["columns"] == ["data[:, 0]", "data[:, 1]", "data[:, 2]"]
    assert view["rows"][1] == ["0", "1", "0"]


def test_tables_show_values_not_how_they_are_stored(store: Store) -> None:
    who = pd.Categorical(["ann", None, "bob"])
    columns = {"who": who, "n": pd.array([1, None, 3], dtype="Int64")}
    store["people"] = pd.DataFrame(columns, index=pd.Index(["x", "y", "z"], name="id"))
    view, _ = look(store, "people")
    assert view["columns"] == ["id", "who", "n"]
    assert view["rows"] == [["x", "ann", "1"], ["y", "missing", "missing"], ["z", "bob", "3"]]


def test_the_clock_of_one_sample_is_a_date(store: Store) -> None:
    arrays = {"time": np.array([1_790_000_000_500_000_000]), "volt": np.ones(1)}
    store.write("shot", Record("stream", arrays, {"rate": None}, {"time": ("time",), "volt": ("time",)}))
    assert look(store, "shot")[0]["rows"] == [["2026-09-21 14:13:20.5", "1"]]


def test_a_look_that_fails_leaves_the_facts(store: Store) -> None:
    store.put("a", np.arange(3.0), attrs={"units": "V"})
    info = ArrayInfo("<f8", (3,), ("x",), 24, None)
    store.engine = Watched(store.engine, sizes={"data": info._replace(shape=(4, 5), nbytes=160)})
    store.engine.read = lambda *_: 1 / 0
    described, _ = preview.describe(store, ("a",), None)
    assert described["view"] == {"type": "error", "text": "ZeroDivisionError: division by zero"}
    assert described["attrs"] == [["units", "V"]]
    assert described["arrays"][0]["shape"] == "4 × 5"


def test_attributes_of_an_array(store: Store) -> None:
    meta = {"lab_attrs": {"x": {"units": "mm"}}, "of_all": 1}
    store.write("a", Record("arrays", {"x": np.zeros(2), "y": np.zeros(3)}, meta, {}))
    assert preview.describe(store, ("a",), "x")[0]["attrs"] == [["units", "mm"]]
    assert preview.describe(store, ("a",), None)[0]["attrs"] == [["of_all", "1"]]


# -- numbers --------------------------------------------------------------------------------------------


@given(hnp.arrays(np.float64, st.integers(0, 400)), st.integers(1, 60))
def test_min_max_keeps_the_extremes_in_their_places(values: np.ndarray, pairs: int) -> None:
    kept, at = min_max(values, pairs), positions(len(values), pairs)
    assert len(kept) == len(at) <= max(len(values), 2 * pairs)
    finite = values[~np.isnan(values)]
    if finite.size:
        assert np.nanmin(kept) == finite.min()
        assert np.nanmax(kept) == finite.max()
    assert (np.diff(at) > 0).all()


def test_scaling_and_thinning() -> None:
    assert to_bytes(np.array([[np.nan, -np.inf, 0, 5, 10, np.inf]]), 0, 10).tolist() == [
        [0, 0, 0, 128, 255, 255]
    ]
    assert to_bytes(np.full((1, 2), 7), 7, 7).tolist() == [[0, 0]]
    assert thin(np.zeros((0, 5)), 3).shape == (0, 3)


def test_a_steady_range_grows_at_once_and_shrinks_late(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    steady = SteadyRange()
    assert steady.update([np.array([np.nan])]) is None
    assert steady.update([np.array([-1.0, 1.0])]) is not None
    assert steady.update([np.array([-1.0, 2.0])])[1] > 2
    small = [np.array([0.0, 0.1])]
    assert steady.update(small) is None
    clock[0] += 3
    assert steady.update(small)[1] < 0.2
    constant = [np.array([3.0])]
    assert steady.update(constant) is not None
    clock[0] += 3
    assert steady.update(constant) is None
    percent = SteadyRange([0.0, 100.0])
    assert percent.update([np.array([55.0])])[0] < 0


# -- the browser ----------------------------------------------------------------------------------------


class Page:
    """What a page would see of a widget: the messages, in order."""

    def __init__(self, widget: Any) -> None:
        self.widget = widget
        self.messages: list[tuple[dict[str, Any], Any]] = []
        widget.send = lambda content, buffers=None: self.messages.append((content, buffers))

    def say(self, op: str, **content: Any) -> None:
        message = {"op": op, "page": "p", "visible": True, **content}
        self.widget._handle_custom_msg(message, [])

    def heard(self, op: str) -> list[dict[str, Any]]:
        return [content for content, _ in self.messages if content["op"] == op]

    def ask(self, op: str, **content: Any) -> dict[str, Any]:
        before = len(self.heard(op))
        self.say(op, **content)
        return wait_for(lambda: self.heard(op)[before:])[0]


def test_the_browser_answers_from_a_thread_of_its_own(store: Store) -> None:
    store["run/wave"] = np.arange(5.0)
    with_page = Page(browse(store))
    seen: list[str] = []
    store.engine = engine = Watched(store.engine)
    read = engine.read
    engine.read = lambda *args: (seen.append(threading.current_thread().name), read(*args))[1]
    answer = with_page.ask("children", req=1, path=["run"], start=0, count=9)
    assert (answer["req"], answer["page"], answer["total"]) == (1, "p", 1)
    assert not seen
    answer = with_page.ask("preview", req=1, path=["run", "wave"], array=None)
    assert answer["view"]["type"] == "line"
    assert bytes(with_page.messages[-1][1][0]) == np.arange(5.0).tobytes()
    assert seen == ["datastore-lab-browser"]
    assert with_page.widget.selected == ("run", "wave")
    assert "nothing at" in with_page.ask("children", req=2, path=["gone"], start=0, count=9)["error"]
    assert "KeyError" in with_page.ask("children", req=3, path=["run"])["error"]
    with_page.widget.close()
    wait_for(lambda: not [thread for thread in threading.enumerate() if "browser" in thread.name])


def test_only_the_newest_wish_is_looked_at(store: Store) -> None:
    store["a"] = np.arange(5.0)
    page = Page(browse(store))
    hold = threading.Event()
    page.widget._worker.submit(hold.wait)
    for req in range(1, 20):
        page.say("preview", req=req, path=["a"], array=None)
    hold.set()
    wait_for(lambda: page.heard("preview"))
    page.widget.close()
    assert [message["req"] for message in page.heard("preview")] == [19]


def test_targets(store: Store, tmp_path: Path) -> None:
    store["a"] = 1
    assert browse(AnalysisWorkspace("mine", store=store)).label.startswith("mine")
    path = tmp_path / "lab.h5"
    with open_store(path) as made:
        made["x"] = np.arange(3)
    opened = browse(path)
    assert opened.badges == ["read only"]
    assert opened.first["rows"][0]["name"] == "x"
    opened.close()
    assert browse(str(path)).store.writable is False
    with pytest.raises(TypeError, match="no store behind int"):
        browse(3)
    with acquire(SimulatedDAQ(rate=1000), to=store.group("run")) as run:
        assert browse(run).store is not None


def test_the_fallback_escapes_and_stays_short(store: Store) -> None:
    for index in range(60):
        store[("<script>alert(1)</script>", f"{index}")] = index
    html = browse(store.group(("<script>alert(1)</script>",))).to_html()
    assert "<script" not in html
    assert html.count("<tr>") == fallback.ROWS + 1
    assert "10 more" in html
    data, _ = browse(store)._repr_mimebundle_()
    assert set(data) == {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"}


def test_a_closed_store_is_told_not_raised(store: Store) -> None:
    store.close()
    shown = browse(store)
    assert "closed" in shown.first["error"]
    assert "closed" in shown.to_html()


# -- the panel ------------------------------------------------------------------------------------------


def panel_threads() -> list[str]:
    names = ("datastore-lab-display", "datastore-lab-panel")
    return [thread.name for thread in threading.enumerate() if thread.name in names]


@pytest.fixture
def live() -> Iterator[tuple[Any, Page]]:
    run = acquire(SimulatedDAQ(rate=2000), SimulatedCamera(rate=20), metadata={"name": "<b>"})
    page = Page(panel(run, fps=60))
    yield run, page
    page.widget.close()
    run.stop()
    assert panel_threads() == []


def test_one_message_per_frame(live: tuple[Any, Page]) -> None:
    run, page = live
    assert panel_threads() == []
    page.say("ready")
    frames = wait_for(lambda: len(page.heard("frame")) > 8 and page.heard("frame"))
    assert {part["source"] for frame in frames for part in frame["parts"]} == {"daq/0", "camera/frame"}
    assert [frame["seq"] for frame in frames] == list(range(1, len(frames) + 1))
    frame, buffers = next((content, sent) for content, sent in page.messages if content["op"] == "frame")
    columns = [column for part in frame["parts"] for column in part["columns"]]
    for (_, dtype, shape), buffer in zip(columns, buffers, strict=True):
        assert len(bytes(buffer)) == np.dtype(dtype).itemsize * int(np.prod(shape))
    assert run.state == "running"


def test_a_page_that_is_behind_gets_fewer_frames(live: tuple[Any, Page]) -> None:
    _, page = live
    page.say("ready")
    wait_for(lambda: page.widget.skipped > 3)
    sent = len(page.heard("frame"))
    assert sent <= 12 + 20
    page.say("ack", seq=sent)
    wait_for(lambda: len(page.heard("frame")) >= sent + 10, seconds=2)


def test_a_page_out_of_sight_gets_numbers_only(live: tuple[Any, Page]) -> None:
    _, page = live
    page.say("ready", visible=False)
    wait_for(lambda: len(page.heard("status")) > 2)
    assert page.heard("frame") == []
    page.say("here")
    wait_for(lambda: page.heard("frame"))


def test_buttons_and_the_end(live: tuple[Any, Page]) -> None:
    run, page = live
    page.say("ready")
    page.say("pause")
    wait_for(lambda: run.state == "paused")
    page.say("resume")
    page.say("mark", text="<i>now</i>")
    page.say("stop")
    wait_for(lambda: page.heard("status")[-1]["state"] == "stopped")
    wait_for(lambda: not panel_threads())
    page.say("mark", text="too late")
    wait_for(lambda: "stopped" in (page.heard("status")[-1]["fault"] or ""))
    assert "&lt;b&gt;" in page.widget.to_html()
    assert "stopped" in page.widget.to_html()


def test_without_a_page_there_is_no_thread(live: tuple[Any, Page]) -> None:
    _, page = live
    page.say("ready")
    wait_for(lambda: page.heard("frame"))
    page.say("gone")
    wait_for(lambda: not panel_threads())
    page.say("ready")
    before = len(page.heard("frame"))
    wait_for(lambda: len(page.heard("frame")) > before)


def test_bokehjs_comes_from_the_installed_package(live: tuple[Any, Page]) -> None:
    import bokeh

    _, page = live
    page.ask("bokeh")
    page.say("bokeh")  # a page asks until it is answered
    (script,) = next(buffers for content, buffers in page.messages if content == {"op": "bokeh"})
    page.widget.close()
    assert len(page.heard("bokeh")) == 1
    assert f'version="{bokeh.__version__}"'.encode() in bytes(script)


def test_a_link_forgets_silent_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    link = Link(30)
    link.hear({"op": "here", "page": "a", "visible": True})
    assert not link.attended  # it has not drawn its figures yet
    link.hear({"op": "ready", "page": "a", "visible": False})
    assert (link.attended, link.watched) == (True, False)
    clock[0] += 31
    assert not link.attended


def test_a_page_that_drops_frames_gets_them_slower_until_it_keeps_up() -> None:
    link = Link(50)
    link.hear({"op": "ready", "page": "a", "visible": True})
    intervals = []
    for dropped in [5, 11, *[14] * 12]:
        seq = [link.take() for _ in range(6)][-1]
        link.hear({"op": "ack", "page": "a", "visible": True, "seq": seq, "dropped": dropped})
        intervals.append(link.interval)
    assert intervals[0] == pytest.approx(0.025)
    assert max(intervals) == intervals[1] == pytest.approx(0.03125)
    assert intervals[-1] == pytest.approx(0.02)


def test_bytes_are_drawn_in_the_unit_that_fits() -> None:
    spec = Stat(
        "stream", {"disk": ArrayInfo("<f8", (0,), ("t",), 0, None)}, {"rate": 1.0, "units": {"disk": "B/s"}}
    )
    (plot,) = plots_of("host", spec)
    when = np.arange(4) * 10**9
    part = plot.part(Block(0, when, {"disk": np.array([0.0, 1e6, 2e6, 5e6])}))
    assert part.unit == "MB/s"
    assert part.columns["y0"].tolist() == [0, 1, 2, 5]
    assert 5 < part.y[1] < 6
    assert plot.part(Block(4, when, {"disk": np.array([0.0, 1e6, 2e6, 4e6])})).unit is None


def test_plots_of_mixed_arrays() -> None:
    arrays = {
        "temperature": ArrayInfo("<f8", (0,), ("t",), 0, None),
        "pressure": ArrayInfo("<f8", (0,), ("t",), 0, None),
        "humidity": ArrayInfo("<f8", (0,), ("t",), 0, None),
        "spectrum": ArrayInfo("<u2", (0, 1024), ("t", "bin"), 0, None),
        "frame": ArrayInfo("|u1", (0, 48, 64), ("t", "y", "x"), 0, None),
        "name": ArrayInfo("T", (0,), ("t",), 0, None),
    }
    units = {"temperature": "°C", "humidity": "%", "pressure": "°C"}
    made = plots_of("s", Stat("stream", arrays, {"rate": None, "units": units}))
    described = [plot.describe() for plot in made]
    assert [(plot["title"], plot["unit"]) for plot in described] == [
        *(("s spectrum", ""), ("s frame", ""), ("s", "°C"), ("s", "%")),
    ]
    assert [label for label, _ in described[2]["keys"]] == ["temperature", "pressure"]
    assert {plot._figure().border_fill_color for plot in made} == {None}  # a dark page would show its edge


def test_many_channels_are_a_map_of_time_and_channel() -> None:
    spec = Stat("stream", {"adc": ArrayInfo("<f8", (0, 64), ("t", "c"), 0, None)}, {"rate": 1000.0})
    (plot,) = plots_of("daq", spec)
    newest = np.tile(np.arange(64.0), (100, 1))
    block = Block(0, np.arange(100), {"adc": newest})
    image = plot.part(block).columns["image"]
    assert image.shape == (64, plot.samples)
    assert not image[:, :-100].any()
    assert (np.diff(image[:, -1].astype(int)) > 0).all()
    assert plot._figure().height < 250
    assert json.dumps(plot.describe())


# -- the rest -------------------------------------------------------------------------------------------


def test_a_worker_outlives_a_job_that_raises() -> None:
    worker, done = Worker("raises"), threading.Event()
    caught: list[Any] = []
    before = threading.excepthook
    threading.excepthook = caught.append
    try:
        worker.submit(lambda: int("x"))
        wait_for(lambda: caught)
        worker.submit(done.set)
        assert done.wait(5)
        worker.close()
        worker.submit(done.clear)
        assert done.is_set()
    finally:
        threading.excepthook = before


def test_importing_the_room_loads_nothing_heavy() -> None:
    code = "import sys, datastore_lab.notebook; print({'bokeh', 'anywidget', 'numpy'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


@pytest.mark.parametrize(
    "code",
    [
        "import datastore_lab.acquire; from datastore_lab import HostMonitor, acquire as call",
        "from datastore_lab.notebook import panel; import datastore_lab.notebook.live; call = panel",
        "from datastore_lab.notebook import browse; import datastore_lab.notebook.browser; call = browse",
    ],
)
def test_names_can_be_called_whatever_was_imported_before(code: str) -> None:
    twice = f"{code}; {code}; print(callable(call))"
    assert subprocess.run([sys.executable, "-c", twice], capture_output=True, text=True).stdout == "True\n"


def test_no_room_is_named_like_a_function() -> None:
    import datastore_lab.notebook as room

    modules = {path.stem for path in Path(room.__file__).parent.glob("*.py")}
    assert not modules & set(room.__all__)


CELLS = (
    "%load_ext datastore_lab",
    "import numpy as np\nfrom datastore_lab import SimulatedDAQ, acquire, open_store",
    "store = open_store('memory://')\nstore['wave'] = np.arange(5.0)\nstore['<img>'] = 3\nstore",
    "run = acquire(SimulatedDAQ(rate=1000))\nrun",
    "run.stop()",
    "from datastore_lab import AnalysisWorkspace\nAnalysisWorkspace('mine', store=store)",
)


def test_a_saved_notebook_shows_something_without_a_kernel() -> None:
    from nbclient import NotebookClient
    from nbconvert import HTMLExporter

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    NotebookClient(notebook, timeout=120, kernel_name="python3", store_widget_state=False).execute()
    shown = [cell.outputs[0].data for cell in notebook.cells if cell.outputs]
    assert len(shown) == 3
    for data in shown:
        assert {"text/html", "text/plain", "application/vnd.jupyter.widget-view+json"} <= set(data)
    page, _ = HTMLExporter().from_notebook_node(notebook)
    assert "&lt;img&gt;" in page
    assert page.count("<strong>daq</strong>") == 1


def test_without_the_extra_the_way_out_is_named() -> None:
    code = """
import sys
sys.modules["anywidget"] = None  # as if it were not installed
from datastore_lab import browse, open_store
from datastore_lab.errors import MissingExtra
try:
    browse(open_store("memory://"))
except MissingExtra as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "this needs the package 'anywidget': pip install 'datastore-lab[lab]'\n", (
        done.stderr
    )
