"""A question's answer as an Altair chart, drawn the same way on a page and in a report.

Knows how bars, stacks and lines should look. Knows no question by name and no screen: what is drawn comes from the
question's `chart` header, and every colour can be read on a white and on a black page.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import altair as alt
import pandas as pd

from analysis.colour import NEUTRAL_INK, NO_NAME, colours_of
from analysis.moments import zone_named
from analysis.output import inert
from analysis.question import Chart, Question

_CODE_COLUMNS: Final = ("label", "code")
_ONE_COLOUR: Final = "#4e7aae"
_TOOLTIP_COLUMNS: Final = ("requests", "rate", "share", "previous_errors", "change")
_FRACTIONS: Final = ("rate", "share", "change")
_MOST_POINTS: Final = 60
# Days are named once and hours by the 24-hour clock: Vega's own "12 PM" says neither date nor zone.
_TIME_LABELS: Final = {
    "year": "%Y",
    "quarter": "%b %-d",
    "month": "%b %-d",
    "week": "%b %-d",
    "date": "%b %-d",
    "hours": "%H:%M",
    "minutes": "%H:%M",
    "seconds": "%H:%M:%S",
    "milliseconds": "%H:%M:%S.%L",
}
_BUCKET_WIDTHS: Final = {"minute": timedelta(minutes=1), "hour": timedelta(hours=1), "day": timedelta(days=1)}
_EVENT_WIDTH: Final = 5


@dataclass(frozen=True)
class _Drawn:
    """What is drawn: the rows of the marks, the series in the legend's order, and a remark on what is left out."""

    frame: pd.DataFrame
    series: tuple[str, ...] = ()
    remark: str = ""


def chart(
    question: Question,
    frame: pd.DataFrame,
    *,
    kind: str | None = None,
    tz: str = "UTC",
    log_scale: bool = False,
    max_series: int = 8,
    max_bars: int = 15,
    ink: str = NEUTRAL_INK,
) -> alt.Chart | None:
    """`frame`, an answer to `question`, as its `chart` header says; None where that is none or there are no rows.

    `kind` (bar, stacked, line) wins over the header's. The fields of the chart's data are the question's columns x, y
    and series, in which NULL reads "(none)". Moments are drawn as wall-clock time of the zone `tz`: the hour that a
    zone repeats when its clocks go back is drawn over the first. A column `bucket_size` (minute, hour, day) says how
    wide bars over time are.

    The `max_series` largest series are drawn; of the others, whole numbers are added up to "other (N more)" and
    fractions left out. The `max_bars` largest bars are drawn. A line over the chart says what is missing. `log_scale`
    is linear below 1, so that 0 can be drawn, and sets stacks apart: the height of a stacked logarithm means nothing.
    """
    shape = question.chart
    if shape is None or frame.empty:
        return None
    drawn_as = _kind(shape, kind)
    series = shape.series if drawn_as != "bar" else None
    is_temporal = isinstance(frame[shape.x].dtype, pd.DatetimeTZDtype)
    drawn = _drawn(frame, shape, series, max_series)
    if drawn.frame.empty:
        return None
    if is_temporal:
        bucket = _BUCKET_WIDTHS[frame["bucket_size"].iloc[0]] if "bucket_size" in frame else None
        marks = _over_time(drawn, shape, series, drawn_as, bucket, log_scale, tz)
    else:
        marks = _over_categories(_largest_bars(drawn, shape, series, max_bars), shape, series, log_scale)
    return _styled(marks, ink)


def _kind(shape: Chart, kind: str | None) -> str:
    if kind not in (None, "bar", "stacked", "line"):
        raise ValueError(f"kind is {kind!r}; expected bar, stacked or line")
    chosen = kind or shape.kind
    return "bar" if chosen == "stacked" and shape.series is None else chosen


def _drawn(frame: pd.DataFrame, shape: Chart, series: str | None, max_series: int) -> _Drawn:
    """The rows with a y, one per x and series, the smallest series put together."""
    names = [name for name in (shape.x, series) if name is not None]
    beside = [name for name in _TOOLTIP_COLUMNS if name in frame and name != shape.y]
    kept = frame[[*names, shape.y, *beside]].dropna(subset=[shape.y])
    for name in names:
        if not isinstance(kept[name].dtype, pd.DatetimeTZDtype):
            kept = kept.assign(**{name: [_text(value) for value in kept[name]]})
    if series is None:
        if not kept[shape.x].duplicated().any():
            return _Drawn(kept)
        return _Drawn(_added_up(kept, names, shape.y))
    order = list(kept.groupby(series)[shape.y].sum().sort_values(ascending=False, kind="stable").index)
    if len(order) <= max_series:
        return _Drawn(_added_up(kept, names, shape.y), tuple(order))
    shown, rest = order[:max_series], order[max_series:]
    if not _is_count(kept[shape.y]):
        remark = f"{len(shown)} of {len(order)} series are shown"
        return _Drawn(_added_up(kept[kept[series].isin(shown)], names, shape.y), tuple(shown), remark)
    other = f"other ({len(rest)} more)"
    kept = kept.assign(**{series: kept[series].where(kept[series].isin(shown), other)})
    return _Drawn(_added_up(kept, names, shape.y), (*shown, other), f"other: {_listed(rest)}")


def _added_up(frame: pd.DataFrame, names: list[str], y: str) -> pd.DataFrame:
    """One row per combination of `names`: as it was where each has one, else with nothing beside `y`.

    Counts of one combination are added up, of other numbers the largest is kept: rates and speeds are no sums.
    """
    if not frame.duplicated(names).any():
        return frame
    groups = frame.groupby(names, sort=False)[y]
    return (groups.sum() if _is_count(frame[y]) else groups.max()).reset_index()


def _largest_bars(drawn: _Drawn, shape: Chart, series: str | None, max_bars: int) -> _Drawn:
    totals = drawn.frame.groupby(shape.x)[shape.y].sum().sort_values(ascending=False, kind="stable")
    if len(totals) <= max_bars:
        return drawn
    frame = drawn.frame[drawn.frame[shape.x].isin(totals.index[:max_bars])]
    remark = f"{max_bars} of {len(totals):,} are shown"
    if _is_count(drawn.frame[shape.y]):
        remark += f"; the others have {int(totals.iloc[max_bars:].sum()):,} {_words(shape.y)}"
    drawn_series = set() if series is None else set(frame[series])
    order = tuple(name for name in drawn.series if name in drawn_series)
    return _Drawn(frame, order, "; ".join(filter(None, (remark, drawn.remark))))


def _over_categories(drawn: _Drawn, shape: Chart, series: str | None, log_scale: bool) -> alt.Chart:
    """Horizontal bars, the longest on top: names of routes and keys need the width."""
    totals = drawn.frame.groupby(shape.x, sort=False)[shape.y].sum().sort_values(ascending=False, kind="stable")
    bars = alt.Y(
        field=shape.x, type="nominal", sort=list(totals.index), axis=alt.Axis(title=None, labelLimit=260, ticks=False)
    )
    height = _quantity(alt.X, shape.y, log_scale, is_count=_is_count(drawn.frame[shape.y]))
    channels: dict[str, Any] = {"y": bars, "x": height, "tooltip": _tooltips(drawn.frame, shape, series)}
    if series is not None:
        channels |= {"color": _colours(series, drawn.series, "square")}
        channels |= {"order": alt.Order(field="_order", type="quantitative")}
        if log_scale:
            channels |= {"yOffset": alt.YOffset(field=series, type="nominal", sort=list(drawn.series))}
    elif shape.x in _CODE_COLUMNS:
        labels = list(totals.index)
        scale = alt.Scale(domain=labels, range=colours_of(labels))
        channels |= {"color": alt.Color(field=shape.x, type="nominal", scale=scale, legend=None)}
    else:
        channels |= {"color": alt.value(_ONE_COLOUR)}
    marks: alt.Chart = alt.Chart(_data(drawn, series)).mark_bar(cornerRadiusEnd=2).encode(**channels)
    is_grouped = series is not None and log_scale
    step = alt.Step(6, **{"for": "offset"}) if is_grouped else alt.Step(24)
    return marks.properties(height=step, **_titled(drawn))


def _over_time(
    drawn: _Drawn, shape: Chart, series: str | None, kind: str, bucket: timedelta | None, log_scale: bool, tz: str
) -> alt.Chart:
    """Lines, or bars as wide as their `bucket`; without one they are events, drawn at the moment they began."""
    zone = zone_named(tz)
    moments = drawn.frame[shape.x].dt.tz_convert(zone)
    # Vega knows UTC and the reader's zone only: the wall-clock time is handed over as if it were UTC.
    walls = moments.dt.tz_localize(None).dt.tz_localize("UTC")
    frame = drawn.frame.assign(**{shape.x: walls, "_moment": moments.map(_moment_text)})
    is_line = kind == "line" or (log_scale and series is not None)
    step = bucket or _shortest_step(walls)
    frame = _with_gaps(frame, shape, series, step) if is_line else frame[frame[shape.y] != 0]
    scale = alt.Scale(type="utc")
    axis = alt.Axis(title=f"time ({tz})", format=_TIME_LABELS, tickCount=10, grid=False)
    channels: dict[str, Any] = {
        "x": alt.X(field=shape.x, type="temporal", scale=scale, axis=axis),
        "y": _quantity(alt.Y, shape.y, log_scale, is_count=_is_count(drawn.frame[shape.y])),
        "tooltip": [alt.Tooltip(field="_moment", type="nominal", title="time"), *_tooltips(frame, shape, series)[1:]],
    }
    if series is not None:
        channels |= {"color": _colours(series, drawn.series, "stroke" if is_line else "square")}
    else:
        channels |= {"color": alt.value(_ONE_COLOUR)}
    if bucket:
        frame = frame.assign(_end=frame[shape.x] + bucket)
    base = alt.Chart(_data(_Drawn(frame, drawn.series), series))
    if is_line:
        has_points = frame[shape.x].nunique() <= _MOST_POINTS
        marks = base.mark_line(point={"size": 24} if has_points else False, strokeWidth=2, interpolate="linear")
    else:
        # With both ends of x given, Vega would lay the bars flat.
        marks = base.mark_bar(orient="vertical") if bucket else base.mark_bar(orient="vertical", width=_EVENT_WIDTH)
        channels |= {"x2": alt.X2(field="_end")} if bucket else {}
        if series is not None:
            channels |= {"order": alt.Order(field="_order", type="quantitative")}
    drawn_marks: alt.Chart = marks.encode(**channels)
    return drawn_marks.properties(height=260, **_titled(drawn))


def _is_count(numbers: "pd.Series[Any]") -> bool:
    return bool(pd.api.types.is_integer_dtype(numbers))


def _shortest_step(moments: "pd.Series[pd.Timestamp]") -> timedelta:
    steps = moments.drop_duplicates().sort_values().diff().dropna()
    return steps.min() if len(steps) else timedelta()


def _with_gaps(frame: pd.DataFrame, shape: Chart, series: str | None, width: timedelta) -> pd.DataFrame:
    """`frame` and a row without y after each bucket that no bucket follows, so that a line stops there."""
    starts = frame[shape.x].drop_duplicates().sort_values()
    # Half a bucket more: the day on which clocks change is an hour longer.
    ends = starts[(starts.shift(-1) - starts) > 1.5 * width] + width
    if ends.empty:
        return frame
    names = frame[series].unique() if series is not None else [None]
    gaps = [{shape.x: end} | ({series: name} if series is not None else {}) for end in ends for name in names]
    return pd.concat([frame, pd.DataFrame(gaps)], ignore_index=True)


def _data(drawn: _Drawn, series: str | None) -> alt.InlineData:
    """The rows as plain values: Altair refuses frames of more than 5,000 rows, a night by the minute has more."""
    frame = drawn.frame
    if series is not None:
        frame = frame.assign(_order=frame[series].map({name: place for place, name in enumerate(drawn.series)}))
    records = [{str(name): _plain(value) for name, value in row.items()} for row in frame.to_dict("records")]
    return alt.InlineData(values=records)


def _plain(value: Any) -> Any:
    if pd.isna(value):
        return None
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    return value.item() if hasattr(value, "item") else value


def _quantity(channel: Any, name: str, log_scale: bool, *, is_count: bool) -> Any:
    scale = alt.Scale(type="symlog", constant=1) if log_scale else alt.Scale(zero=True, nice=True)
    title = _words(name) + (" (log scale)" if log_scale else "")
    # A number at a time: the axis' own format puts one prefix to all of them, "0.0M".
    text = "format(datum.value, '.1~%')" if name in _FRACTIONS else "format(datum.value, '~s')"
    axis = alt.Axis(title=title, labelExpr=text, tickCount=6)
    if log_scale:
        axis.values = [0, *(10**power for power in range(10))]
    elif is_count:
        axis.tickMinStep = 1
    return channel(field=name, type="quantitative", scale=scale, axis=axis)


def _colours(series: str, order: tuple[str, ...], symbol: str) -> alt.Color:
    legend = alt.Legend(
        title=None, orient="bottom", columns=4, columnPadding=24, symbolType=symbol, symbolStrokeWidth=3, labelLimit=240
    )
    scale = alt.Scale(domain=list(order), range=colours_of(order))
    return alt.Color(field=series, type="nominal", scale=scale, legend=legend)


def _tooltips(frame: pd.DataFrame, shape: Chart, series: str | None) -> list[alt.Tooltip]:
    names = [alt.Tooltip(field=name, type="nominal", title=_words(name)) for name in (shape.x, series) if name]
    numbers = [name for name in _TOOLTIP_COLUMNS if name in frame.columns and name != shape.y]
    return names + [
        alt.Tooltip(field=name, type="quantitative", title=_words(name), format=".2%" if name in _FRACTIONS else ",~r")
        for name in [shape.y, *numbers]
    ]


def _titled(drawn: _Drawn) -> dict[str, Any]:
    if not drawn.remark:
        return {}
    return {"title": alt.Title(drawn.remark, anchor="start", frame="group", offset=8)}


def _styled(marks: alt.Chart, ink: str) -> alt.Chart:
    styled: alt.Chart = (
        marks.configure(background="transparent", font="Arial, Helvetica, Liberation Sans, sans-serif")
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=ink,
            titleColor=ink,
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight="normal",
            titlePadding=10,
            gridColor=ink,
            gridOpacity=0.2,
            domainColor=ink,
            domainOpacity=0.5,
            tickColor=ink,
            tickOpacity=0.5,
        )
        .configure_legend(labelColor=ink, titleColor=ink, labelFontSize=12, symbolSize=120)
        .configure_title(color=ink, fontSize=12, fontWeight="normal")
    )
    return styled


def _listed(names: list[str], most: int = 6) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _text(value: Any) -> str:
    return NO_NAME if pd.isna(value) else inert(str(value))


def _moment_text(moment: pd.Timestamp) -> str:
    return f"{moment:%Y-%m-%d %H:%M %Z}"


def _words(name: str) -> str:
    """A column's name for people, its unit in parentheses: latency_ms is "latency (ms)"."""
    if name in _FRACTIONS:
        return f"{name} (%)"
    for suffix, unit in (("_ms", "ms"), ("_s", "s"), ("_bytes", "bytes")):
        if name.endswith(suffix):
            return f"{name.removesuffix(suffix).replace('_', ' ')} ({unit})"
    return name.replace("_", " ")
