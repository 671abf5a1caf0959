"""How an answer is drawn: the kind of marks, one colour per code, what a cap leaves out, and time in a zone."""

from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any, Final

import altair as alt
import numpy as np
import pandas as pd
import pytest
import vl_convert

from analysis.chart import chart
from analysis.colour import CODE_COLOURS, NEUTRAL_INK, colour_of
from analysis.lake import DEFAULT_CATALOGUE, read_catalogue
from analysis.question import Chart, Question

MORNING: Final = datetime(2026, 11, 2, 9, tzinfo=UTC)
BY_CODE: Final = Chart("bar", "code", "errors")
BY_ROUTE: Final = Chart("stacked", "route", "errors", "code")
OVER_TIME: Final = Chart("line", "bucket_start", "errors", "label")

# Simulated sight (severity 1) on linear RGB, from Machado, Oliveira, Fernandes 2009.
SIGHTS: Final = {
    "all colours": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}  # fmt: skip


# -- what is drawn


def test_a_question_without_a_chart_is_not_drawn() -> None:
    assert chart(_question(None), pd.DataFrame({"code": ["not_found"], "errors": [1]})) is None


@pytest.mark.parametrize("shape", [BY_CODE, BY_ROUTE, OVER_TIME], ids=lambda shape: shape.kind)
def test_an_answer_without_rows_is_not_drawn(shape: Chart) -> None:
    empty = pd.DataFrame({name: [] for name in (shape.x, shape.y, shape.series) if name})

    assert chart(_question(shape), empty) is None


@pytest.mark.parametrize(
    ("shape", "kind", "mark"),
    [
        pytest.param(OVER_TIME, None, "line", id="a line"),
        pytest.param(OVER_TIME, "stacked", "bar", id="a stack instead of a line"),
        pytest.param(Chart("stacked", "bucket_start", "errors", "label"), None, "bar", id="a stack"),
        pytest.param(Chart("line", "bucket_start", "errors"), None, "line", id="a line without series"),
        pytest.param(Chart("line", "bucket_start", "errors"), "stacked", "bar", id="bars where there is no series"),
    ],
)
def test_the_header_decides_the_marks_unless_the_caller_does(shape: Chart, kind: str | None, mark: str) -> None:
    assert _spec(shape, _trend({"not_found": [1, 2]}), kind=kind)["mark"]["type"] == mark


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="kind is 'pie'; expected bar, stacked or line"):
        chart(_question(BY_CODE), pd.DataFrame({"code": ["not_found"], "errors": [1]}), kind="pie")


def test_the_longest_bar_is_on_top() -> None:
    frame = pd.DataFrame({"code": ["not_found", "rate_limited", "opted_out"], "errors": [2, 9, 5]})

    spec = _spec(BY_CODE, frame)

    assert spec["encoding"]["y"]["sort"] == ["rate_limited", "opted_out", "not_found"]


def test_a_missing_name_is_drawn_as_none_and_a_missing_number_not_at_all() -> None:
    frame = pd.DataFrame({"code": ["not_found", None, "opted_out"], "errors": [2.0, 3.0, None]})

    assert [(row["code"], row["errors"]) for row in _values(BY_CODE, frame)] == [("not_found", 2.0), ("(none)", 3.0)]


# -- colours


def test_every_code_of_the_default_catalogue_has_a_colour_of_its_own() -> None:
    codes = read_catalogue(DEFAULT_CATALOGUE)["code"].to_pylist()

    assert len({colour_of(code) for code in codes}) == len(codes)
    assert sorted(CODE_COLOURS) == sorted(codes)


@pytest.mark.parametrize("sight", SIGHTS)
def test_no_two_codes_look_alike(sight: str) -> None:
    seen = {code: _oklab(np.array(SIGHTS[sight]) @ _linear(colour)) for code, colour in CODE_COLOURS.items()}

    alike = [(a, b) for a, b in combinations(seen, 2) if np.linalg.norm(seen[a] - seen[b]) < 0.07]

    assert alike == []


@pytest.mark.parametrize("page", ["#ffffff", "#0e1117"], ids=["light", "dark"])
def test_every_colour_can_be_seen_on_a_light_and_on_a_dark_page(page: str) -> None:
    colours = {name: colour_of(name) for name in (*CODE_COLOURS, "(none)", *"abcdefghijklmnop")}

    assert {name: colour for name, colour in colours.items() if _contrast(colour, page) < 1.8} == {}
    assert _contrast(NEUTRAL_INK, page) > 3.5


def test_a_code_has_the_same_colour_in_every_chart() -> None:
    bars = _spec(BY_CODE, pd.DataFrame({"code": ["brand_new", "not_found"], "errors": [2, 1]}))
    lines = _spec(OVER_TIME, _trend({"not_found": [5], "brand_new": [1], "opted_out": [3]}))

    scales = [spec["encoding"]["color"]["scale"] for spec in (bars, lines)]
    colours = [dict(zip(scale["domain"], scale["range"], strict=True)) for scale in scales]
    assert [(scale["not_found"], scale["brand_new"]) for scale in colours] == [
        (CODE_COLOURS["not_found"], colour_of("brand_new"))
    ] * 2


def test_no_two_series_of_a_chart_share_a_colour() -> None:
    spec = _spec(OVER_TIME, _trend({f"new_{number}": [number + 1] for number in range(8)}))

    assert len(set(spec["encoding"]["color"]["scale"]["range"])) == 8


# -- what a cap leaves out


def test_the_smallest_series_are_added_up_and_named() -> None:
    frame = _trend({"not_found": [9, 9], "opted_out": [5, 5], "rate_limited": [1, 2], "dnc_blocked": [0, 2]})

    spec = _spec(OVER_TIME, frame, max_series=2)

    assert spec["title"]["text"] == "other: rate_limited, dnc_blocked"
    assert spec["encoding"]["color"]["scale"]["domain"] == ["not_found", "opted_out", "other (2 more)"]
    rest = [row["errors"] for row in spec["data"]["values"] if row["label"] == "other (2 more)"]
    assert rest == [1, 4]
    assert sum(row["errors"] for row in spec["data"]["values"]) == frame["errors"].sum()


def test_fractions_are_not_added_up() -> None:
    frame = _trend({"not_found": [0.5], "opted_out": [0.25], "dnc_blocked": [0.125]}, y="rate")

    spec = _spec(Chart("line", "bucket_start", "rate", "label"), frame, max_series=2)

    assert spec["title"]["text"] == "2 of 3 series are shown"
    assert [row["rate"] for row in spec["data"]["values"]] == [0.5, 0.25]


def test_the_smallest_bars_are_counted_over_the_chart() -> None:
    frame = pd.DataFrame({"code": [f"code_{number}" for number in range(1000)], "errors": range(1000, 0, -1)})

    spec = _spec(BY_CODE, frame, max_bars=3)

    assert spec["title"]["text"] == "3 of 1,000 are shown; the others have 497,503 errors"
    assert [row["errors"] for row in spec["data"]["values"]] == [1000, 999, 998]


def test_bars_of_one_route_are_stacked_by_code() -> None:
    frame = pd.DataFrame({"route": ["/a", "/a", "/b"], "code": ["not_found", "opted_out", None], "errors": [1, 4, 3]})

    spec = _spec(BY_ROUTE, frame)

    assert spec["encoding"]["y"]["sort"] == ["/a", "/b"]
    assert spec["encoding"]["color"]["scale"]["domain"] == ["opted_out", "(none)", "not_found"]
    assert [(row["route"], row["code"], row["errors"]) for row in spec["data"]["values"]] == [
        ("/a", "not_found", 1),
        ("/a", "opted_out", 4),
        ("/b", "(none)", 3),
    ]


# -- scales and axes


@pytest.mark.parametrize(
    ("column", "title"),
    [("errors", "errors"), ("rate", "rate (%)"), ("latency_ms", "latency (ms)"), ("longest_run_s", "longest run (s)")],
)
def test_an_axis_says_its_unit(column: str, title: str) -> None:
    spec = _spec(Chart("bar", "code", column), pd.DataFrame({"code": ["not_found"], column: [0.5]}))

    assert spec["encoding"]["x"]["axis"]["title"] == title


def test_a_log_scale_can_draw_nothing_and_never_stacks() -> None:
    stacked = Chart("stacked", "bucket_start", "errors", "label")

    spec = _spec(stacked, _trend({"not_found": [0, 1000]}), log_scale=True)

    assert spec["mark"]["type"] == "line"
    assert spec["encoding"]["y"]["scale"] == {"constant": 1, "type": "symlog"}
    assert spec["encoding"]["y"]["axis"]["title"] == "errors (log scale)"


def test_a_log_scale_sets_the_bars_of_a_route_beside_each_other() -> None:
    frame = pd.DataFrame({"route": ["/a", "/a"], "code": ["not_found", "opted_out"], "errors": [1, 1000]})

    assert _spec(BY_ROUTE, frame, log_scale=True)["encoding"]["yOffset"]["field"] == "code"


def test_time_is_the_wall_clock_of_the_zone() -> None:
    spec = _spec(OVER_TIME, _trend({"not_found": [1]}), tz="Europe/Berlin")

    row = spec["data"]["values"][0]
    # Handed to Vega as if it were UTC, and scaled in UTC: the page's own zone has no say.
    assert (row["bucket_start"], row["_moment"]) == ("2026-11-02T10:00:00+00:00", "2026-11-02 10:00 CET")
    assert spec["encoding"]["x"]["scale"] == {"type": "utc"}
    assert spec["encoding"]["x"]["axis"]["title"] == "time (Europe/Berlin)"


def test_a_line_stops_where_there_were_no_requests() -> None:
    frame = _trend({"not_found": [1, 1, 1, 1]})
    without_third = frame[frame["bucket_start"] != MORNING + timedelta(hours=2)]

    values = _values(OVER_TIME, without_third)

    assert [row["errors"] for row in values if row["bucket_start"] == "2026-11-02T11:00:00+00:00"] == [None]
    assert len(values) == 4


def test_a_stack_is_as_wide_as_its_bucket() -> None:
    row = _values(OVER_TIME, _trend({"not_found": [1, 1]}), kind="stacked")[0]

    assert (row["bucket_start"], row["_end"]) == ("2026-11-02T09:00:00+00:00", "2026-11-02T10:00:00+00:00")


def test_events_are_bars_of_one_width_and_drawn_once() -> None:
    storms = pd.DataFrame(
        {
            "started_at": [MORNING, MORNING, MORNING + timedelta(days=3)],
            "requests_per_second": [13.5, 13.5, 40.25],
            "culprit": ["key_a", "key_b", None],
            "example_request_ids": [np.array(["req_1", "req_2"]), np.array(["req_3"]), None],
        }
    )

    spec = _spec(Chart("bar", "started_at", "requests_per_second"), storms)

    assert spec["mark"] == {"orient": "vertical", "type": "bar", "width": 5}
    assert [row["requests_per_second"] for row in spec["data"]["values"]] == [13.5, 40.25]
    assert "x2" not in spec["encoding"]


def test_a_night_of_codes_by_the_minute_is_not_too_much() -> None:
    frame = _trend({f"code_{number}": [1] * 1440 for number in range(8)}, step=timedelta(minutes=1))

    assert len(_values(OVER_TIME, frame)) == 8 * 1440


# -- text out of a log


def test_hostile_names_stay_text() -> None:
    frame = pd.DataFrame({"code": ["<script>alert(1)</script>", "a\x1b[31mred", "\u202egnp.exe"], "errors": [3, 2, 1]})

    svg = vl_convert.vegalite_to_svg(_drawn(BY_CODE, frame).to_dict())

    assert "&lt;script&gt;" in svg
    assert [found for found in ("<script", "\x1b", "\u202e") if found in svg] == []


def _question(shape: Chart | None) -> Question:
    return Question("asked", "Asked", "What?", shape, (), (), "")


def _drawn(shape: Chart, frame: pd.DataFrame, **options: Any) -> alt.Chart:
    drawn = chart(_question(shape), frame, **options)
    assert drawn is not None
    return drawn


def _spec(shape: Chart, frame: pd.DataFrame, **options: Any) -> dict[str, Any]:
    """The Vega-Lite specification, checked against its schema, with the rows where the chart names them."""
    spec: dict[str, Any] = _drawn(shape, frame, **options).to_dict()
    (rows,) = spec["datasets"].values()
    return spec | {"data": {"values": rows}}


def _values(shape: Chart, frame: pd.DataFrame, **options: Any) -> list[dict[str, Any]]:
    values: list[dict[str, Any]] = _spec(shape, frame, **options)["data"]["values"]
    return values


def _trend(series: dict[str, list[Any]], y: str = "errors", step: timedelta = timedelta(hours=1)) -> pd.DataFrame:
    size = {timedelta(hours=1): "hour", timedelta(minutes=1): "minute"}[step]
    return pd.DataFrame(
        [
            {"bucket_start": MORNING + number * step, "bucket_size": size, "label": label, y: value}
            for label, values in series.items()
            for number, value in enumerate(values)
        ]
    )


def _linear(colour: str) -> Any:
    channels = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def _contrast(colour: str, page: str) -> float:
    """Contrast ratio of WCAG 2: 1 for the same luminance, 21 for black on white."""
    lights = sorted(float(_linear(one) @ [0.2126, 0.7152, 0.0722]) for one in (colour, page))
    return (lights[1] + 0.05) / (lights[0] + 0.05)


def _oklab(linear: Any) -> Any:
    cones = np.cbrt(
        np.clip(
            np.array([[0.41222, 0.53633, 0.05145], [0.2119, 0.6807, 0.1074], [0.0883, 0.28172, 0.62998]])
            @ np.clip(linear, 0, 1),
            0,
            None,
        )
    )
    return np.array([[0.21045, 0.79362, -0.00407], [1.978, -2.42859, 0.45059], [0.0259, 0.78277, -0.80868]]) @ cones
