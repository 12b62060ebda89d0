"""Live figures: what a stream looks like, and the newest of it as raw arrays."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from datastore_lab import dtypes
from datastore_lab.notebook.decimate import min_max, positions, thin, to_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from datastore_lab.records import ArrayInfo, Block, Stat

COLOURS = ("#3b8bca", "#d9722e", "#2a9d84", "#c26ba3", "#8f7ad8", "#a98a1c", "#d1605e", "#80868f")
"""Readable on light and on dark ground."""

_PAIRS = 500
_MOST_SAMPLES = 200_000
_MOST_LINES = len(COLOURS)
_MOST_PLOTS = 4
_SIDE = 640
_COLUMNS = 512
_MAP_HEIGHT = 190
_UNPACED = 600
_SHRINK = 0.4
_PATIENCE = 2.0
_BYTES = frozenset({"B", "B/s"})
_PREFIXES = ("", "k", "M", "G", "T")


class Part(NamedTuple):
    """New content of one figure: columns of its source, and the vertical range and unit if they changed."""

    columns: Mapping[str, NDArray[Any]]
    y: tuple[float, float] | None = None
    unit: str | None = None


class Line(NamedTuple):
    """One line of a figure: a whole array of the stream, or one column of it."""

    label: str
    array: str
    column: int | None


class LinePlot:
    """The last seconds of up to eight signals of one unit.

    Parameters
    ----------
    source : str
        Name of the figure's data source, unique in the panel.
    title, unit : str
    lines : list of Line
    rate : float or None
        Samples per second.
    window : float
        Seconds to show.
    """

    def __init__(
        self, source: str, title: str, unit: str, lines: list[Line], *, rate: float | None, window: float
    ) -> None:
        self.source, self.title, self.unit, self.lines = source, title, unit, lines
        self.window = window
        self.samples = min(_MOST_SAMPLES, max(2, round(rate * window))) if rate else _UNPACED
        self._range = SteadyRange([0.0, 100.0] if unit == "%" else [])

    def describe(self) -> dict[str, Any]:
        """Give the figure as JSON, with what the page writes above it."""
        keys = [[line.label, COLOURS[index]] for index, line in enumerate(self.lines)]
        head = {"title": self.title, "unit": self.unit, "keys": keys}
        return {"source": self.source, **head, "item": _item(self._figure())}

    def part(self, block: Block) -> Part:
        """Give the lines of a block, thinned so that every spike stays."""
        clock = block.time[-self.samples :]
        at = positions(len(clock), _PAIRS).astype(np.intp)
        columns = {"x": (clock[at] - clock[-1]) / 1e9}
        for index, line in enumerate(self.lines):
            values = block.data[line.array][-self.samples :]
            values = values if line.column is None else values[:, line.column]
            columns[f"y{index}"] = min_max(np.asarray(values), _PAIRS).astype(np.float64)
        return self._scaled(columns)

    def _scaled(self, columns: dict[str, NDArray[Any]]) -> Part:
        """Give bytes as kB, MB or GB, whichever the range calls for."""
        changed = self._range.update([values for name, values in columns.items() if name != "x"])
        if self.unit not in _BYTES:
            return Part(columns, changed)
        most = max(1.0, *map(abs, self._range.bounds))
        power = min(len(_PREFIXES) - 1, int(math.log10(most) // 3))
        scaled = {name: values if name == "x" else values / 1000**power for name, values in columns.items()}
        if changed is None:
            return Part(scaled)
        low, high = (bound / 1000**power for bound in changed)
        return Part(scaled, (low, high), _PREFIXES[power] + self.unit)

    def _figure(self) -> Any:
        from bokeh.models import ColumnDataSource, PrintfTickFormatter, Range1d
        from bokeh.plotting import figure

        names = ["x", *(f"y{index}" for index in range(len(self.lines)))]
        data = ColumnDataSource({name: [] for name in names}, name=self.source)
        plot = figure(
            height=170,
            sizing_mode="stretch_width",
            x_range=Range1d(start=-self.window, end=0),
            y_range=Range1d(start=0, end=1),
            tools="xpan,xwheel_zoom,save,reset",
            background_fill_color=None,
            border_fill_color=None,  # white, even for a moment, leaves an edge on a dark page
            lod_threshold=None,
            min_border_left=56,
        )
        plot.toolbar.autohide = True
        plot.toolbar.logo = None
        for index in range(len(self.lines)):
            plot.line("x", f"y{index}", source=data, color=COLOURS[index], line_width=1.4)
        plot.axis.minor_tick_line_color = None
        plot.xaxis.formatter = PrintfTickFormatter(format="%.4g s")
        return plot


class ImagePlot:
    """The newest frame of a camera.

    Parameters
    ----------
    source, title, unit : str
    array : str
    shape : tuple of int
        Of one sample: (height, width) or (height, width, 3).
    """

    samples = 1

    def __init__(self, source: str, title: str, unit: str, array: str, shape: tuple[int, ...]) -> None:
        self.source, self.title, self.unit, self.array = source, title, unit, array
        self.shape = shape
        self._range = SteadyRange()

    def describe(self) -> dict[str, Any]:
        """Give the figure as JSON, with what the page writes above it."""
        head = {"title": self.title, "unit": self.unit, "keys": []}
        return {"source": self.source, **head, "item": _item(self._figure())}

    def part(self, block: Block) -> Part:
        """Give the newest image as bytes, at most 640 pixels wide."""
        return Part({"image": _grey(thin(np.asarray(block.data[self.array])[-1], _SIDE), self._range)})

    def _figure(self) -> Any:
        height, width = self.shape[:2]
        shown = min(640, max(200, round(190 * width / height)))
        size = {"width": shown, "height": max(60, round(shown * height / width)), "max_width": shown}
        plot = _image_figure(self.source, (0, width), (height, 0), sizing_mode="scale_width", **size)
        plot.axis.visible = False
        return plot


class ChannelMap:
    """The last samples of many channels or of a spectrum, as a map of time and channel.

    Parameters
    ----------
    source, title, unit : str
    array : str
    channels : int
    rate : float or None
        Samples per second; without one the map counts samples.
    """

    samples = _COLUMNS

    def __init__(
        self, source: str, title: str, unit: str, array: str, channels: int, *, rate: float | None
    ) -> None:
        self.source, self.title, self.unit, self.array = source, title, unit, array
        self.channels, self.rate = channels, rate
        self._range = SteadyRange()

    def describe(self) -> dict[str, Any]:
        """Give the figure as JSON, with what the page writes above it."""
        head = {"title": self.title, "unit": self.unit, "keys": []}
        return {"source": self.source, **head, "item": _item(self._figure())}

    def part(self, block: Block) -> Part:
        """Give the newest samples as columns of bytes, the first channel at the bottom of the figure."""
        newest = np.asarray(block.data[self.array])[-self.samples :]
        step = -(-self.channels // _SIDE)
        image = np.zeros((len(newest[0, ::step]), self.samples), np.uint8)
        image[:, -len(newest) :] = _grey(newest[:, ::step].T, self._range)
        return Part({"image": image})

    def _figure(self) -> Any:
        from bokeh.models import PrintfTickFormatter

        span = self.samples / (self.rate or 1.0)
        size = {"height": _MAP_HEIGHT, "min_border_left": 56}
        plot = _image_figure(self.source, (-span, 0), (0, self.channels), sizing_mode="stretch_width", **size)
        plot.xaxis.formatter = PrintfTickFormatter(format="%.4g s" if self.rate else "%.4g")
        plot.yaxis.axis_label = "channel"
        return plot


def _grey(image: NDArray[Any], scale: SteadyRange) -> NDArray[Any]:
    if image.dtype != np.uint8:
        scale.update([image])
        image = to_bytes(image, *scale.bounds)
    return np.ascontiguousarray(image)


def _image_figure(
    source: str,
    across: tuple[float, float],
    down: tuple[float, float],
    *,
    height: int,
    sizing_mode: Any,
    width: int | None = None,
    max_width: int | None = None,
    min_border_left: int = 0,
) -> Any:
    from bokeh.models import ColumnDataSource, Range1d
    from bokeh.plotting import figure

    plot = figure(
        width=width,
        height=height,
        sizing_mode=sizing_mode,
        max_width=max_width,
        x_range=Range1d(start=across[0], end=across[1]),
        y_range=Range1d(start=down[0], end=down[1]),
        tools="pan,wheel_zoom,save,reset",
        background_fill_color=None,
        border_fill_color=None,
        min_border=0,
        min_border_left=min_border_left,
    )
    plot.toolbar.logo = None
    plot.toolbar_location = None
    plot.grid.visible = False
    data = ColumnDataSource({"image": []}, name=source)
    # the first row of the bytes lies at the start of the y range
    wide = across[1] - across[0]
    plot.image_rgba(image="image", source=data, x=across[0], y=0, dw=wide, dh=max(down))
    return plot


class SteadyRange:
    """A range that grows at once, and shrinks only when much of it has been empty for a while.

    Parameters
    ----------
    always : sequence of float
        Values that have to be inside in any case.

    Examples
    --------
    >>> steady = SteadyRange()
    >>> low, high = steady.update([np.array([0.0, 10.0])])
    >>> low < 0 and high > 10
    True
    >>> steady.update([np.array([2.0, 9.0])]) is None
    True
    """

    def __init__(self, always: Sequence[float] = ()) -> None:
        self.bounds = (0.0, 1.0)
        self._always = [np.asarray(always)] if always else []
        self._known = False
        self._needed = time.monotonic()

    def update(self, arrays: list[NDArray[Any]]) -> tuple[float, float] | None:
        """Take new values; gives the range if it changed."""
        found = _extent([*arrays, *self._always])
        if found is None:
            return None
        low, high = found
        span = self.bounds[1] - self.bounds[0]
        inside = self._known and self.bounds[0] <= low and high <= self.bounds[1]
        now = time.monotonic()
        if inside and high - low > _SHRINK * span:
            self._needed = now
        if inside and now - self._needed < _PATIENCE:
            return None
        if inside and high - low < 1e-12 * max(abs(low), abs(high), 1e-300) and span <= _room(low, high) * 3:
            return None  # a constant would be fitted again and again
        room = _room(low, high)
        self.bounds, self._known, self._needed = (low - room, high + room), True, now
        return self.bounds


def _room(low: float, high: float) -> float:
    return 0.08 * (high - low) or 0.05 * abs(high) or 0.5


def _extent(arrays: list[NDArray[Any]]) -> tuple[float, float] | None:
    finite = [array[np.isfinite(array)] for array in arrays]
    lows = [float(array.min()) for array in finite if array.size]
    highs = [float(array.max()) for array in finite if array.size]
    return (min(lows), max(highs)) if lows else None


Plot = LinePlot | ImagePlot | ChannelMap


def plots_of(stream: str, spec: Stat, *, window: float | None = None) -> list[Plot]:
    """Choose the figures of a stream: one per unit for signals, one per array for images.

    Parameters
    ----------
    stream : str
    spec : Stat
        As the device describes it.
    window : float, optional
        Seconds that signals show; by default about 4,000 samples, between 0.5 and 30 s.

    Examples
    --------
    >>> from datastore_lab.records import ArrayInfo, Stat
    >>> spec = Stat("stream", {"adc": ArrayInfo("<f8", (0, 2), ("time", "channel"), 0, None)},
    ...             {"rate": 100.0, "units": {"adc": "V"}})
    >>> [line.label for line in plots_of("daq", spec, window=5.0)[0].lines]
    ['adc[0]', 'adc[1]']
    """
    units = spec.meta.get("units") or {}
    grouped: dict[str, list[Line]] = {}
    images: list[tuple[str, tuple[int, ...]]] = []
    for name, info in spec.arrays.items():
        if dtypes.parse(info.dtype).kind not in "biuf":
            continue
        lines = _lines(name, info)
        if lines:
            grouped.setdefault(str(units.get(name) or ""), []).extend(lines)
        else:
            images.append((name, info.shape[1:]))
    rate = spec.meta.get("rate")
    made: list[Plot] = [_image(stream, name, shape, units, rate) for name, shape in images]
    for unit, lines in grouped.items():
        source = f"{stream}/{len(made)}"
        seconds = window or _window(rate)
        made.append(LinePlot(source, stream, unit, lines[:_MOST_LINES], rate=rate, window=seconds))
    return made[:_MOST_PLOTS]


def _window(rate: float | None) -> float:
    return min(30.0, max(0.5, float(f"{4000 / rate:.1g}"))) if rate else 30.0


def _image(
    stream: str, name: str, shape: tuple[int, ...], units: Mapping[str, Any], rate: float | None
) -> ImagePlot | ChannelMap:
    head = (f"{stream}/{name}", f"{stream} {name}", str(units.get(name) or ""), name)
    return ChannelMap(*head, shape[0], rate=rate) if len(shape) == 1 else ImagePlot(*head, shape)


def _lines(name: str, info: ArrayInfo) -> list[Line]:
    inner = info.shape[1:]
    if not inner:
        return [Line(name, name, None)]
    if len(inner) == 1 and math.prod(inner) <= 2 * _MOST_LINES:
        return [Line(f"{name}[{column}]", name, column) for column in range(inner[0])]
    return []


def _item(plot: Any) -> dict[str, Any]:
    from bokeh.embed import json_item

    return dict(json_item(plot))
