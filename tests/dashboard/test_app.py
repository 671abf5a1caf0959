"""What the first page says, without a browser."""

from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.overview import in_words
from tests.analysis.queries.event_lake import ok
from tests.dashboard.conftest import write

APP: Final = Path(__file__).parents[2] / "dashboard" / "app.py"


def looked_at(lake: Path, monkeypatch: pytest.MonkeyPatch, **address: str) -> AppTest:
    """The first page of `lake` with the parameters `address`, drawn once."""
    monkeypatch.setenv("ERRATA_LAKE", str(lake))
    app = AppTest.from_file(APP, default_timeout=60)
    app.query_params.update(address)
    return app.run()


def metrics(app: AppTest) -> dict[str, tuple[str, str]]:
    """By label, the value and the change of every number on the page."""
    return {metric.label: (metric.value, metric.delta) for metric in app.metric}


def sentences(app: AppTest) -> tuple[str, str]:
    """The first and the last sentence of what is said to be counted; between them is the age of the data."""
    first, *_, last = app.main.caption[0].value.split(". ")
    return first, last


def test_the_last_day_is_compared_with_the_day_before(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = looked_at(filled, monkeypatch)

    assert metrics(app) == {
        "Requests": ("240", "+0.0%"),
        "Errors": ("96", "+100.0%"),
        "Error rate": ("40.00%", "+20.00 points"),
        "Platform error rate": ("20.00%", "+10.00 points"),
        "Rate limited (429)": ("24", "+0.0%"),
    }
    assert sentences(app) == (
        "2026-11-03 09:00 to 2026-11-04 08:59 (UTC)",
        "Arrows compare with 2026-11-02 09:00 to 2026-11-03 09:00.",
    )


def test_429s_can_be_set_aside(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = looked_at(filled, monkeypatch, period="all")

    app.toggle(key="address-without_429").set_value(True).run()

    assert app.query_params == {"period": "all", "without_429": "true"}
    assert metrics(app) == {
        "Requests": ("480", ""),
        "Errors": ("96", ""),
        "Error rate": ("20.00%", ""),
        "Platform error rate": ("15.00%", ""),
        "Rate limited (429)": ("48", ""),
    }


def test_what_moved_most_is_on_top(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = looked_at(filled, monkeypatch)

    by_code, by_org = (table.value.drop(columns="change").to_dict("list") for table in app.dataframe)
    assert by_code == {
        "label": ["(no code)", "not_found", "internal_error", "rate_limited"],
        "errors": [24, 24, 24, 24],
        "before": [0, 0, 24, 24],
        "difference": [24, 24, 0, 0],
    }
    assert by_org == {
        "org_id": ["org_0", "org_1"],
        "errors": [48, 48],
        "before": [24, 24],
        "difference": [24, 24],
    }
    assert [table.value["change"].dropna().to_list() for table in app.dataframe] == [[0.0, 0.0], [100.0, 100.0]]


def test_a_period_is_told_in_the_zone_that_was_chosen(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = looked_at(filled, monkeypatch, tz="Asia/Kolkata", since="2026-11-03", until="2026-11-03T12:00+00:00")

    assert sentences(app) == (
        "2026-11-03 00:00 to 2026-11-03 17:30 (Asia/Kolkata)",
        "Arrows compare with 2026-11-02 06:30 to 2026-11-03 00:00.",
    )
    assert metrics(app)["Requests"][0] == "175"


@pytest.mark.parametrize(
    "address",
    [
        pytest.param({"since": "0001-01-01"}, id="from the first day there is"),
        pytest.param({"until": "9999-12-31T23:59", "tz": "Asia/Kolkata"}, id="to the last day there is"),
        pytest.param({"period": "today"}, id="after the last request"),
        pytest.param({"tz": "Factory"}, id="a zone that no browser knows"),
        pytest.param({"org": "\x00' OR 1=1 --", "key": "x" * 5000}, id="filters that nothing matches"),
    ],
)
def test_an_extreme_address_is_no_accident(
    address: dict[str, str], filled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = looked_at(filled, monkeypatch, **address)

    assert (app.exception.len, app.error.len, app.warning.len) == (0, 0, 0)


def test_a_lake_in_which_nothing_failed_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = looked_at(write(tmp_path / "lake", [ok(0)]), monkeypatch)

    assert [message.value for message in app.success] == ["No errors in this period."]
    assert metrics(app)["Error rate"] == ("0.00%", "")


def test_an_empty_lake_offers_to_look_at_everything(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = looked_at(empty, monkeypatch)

    assert [message.value for message in app.info] == ["There are no requests in this period."]
    assert app.metric.len == 0


def test_a_damaged_lake_is_told_in_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = write(tmp_path / "lake", [ok(0)])
    next(lake.rglob("*.parquet")).unlink()

    app = looked_at(lake, monkeypatch)

    assert [message.value.split("  \n")[0] for message in app.error] == ["The lake is damaged."]
    assert app.exception.len == 0


@pytest.mark.parametrize(
    ("age", "words"),
    [
        (timedelta(seconds=-5), "0 min"),
        (timedelta(minutes=59, seconds=59), "59 min"),
        (timedelta(minutes=119), "1 hour"),
        (timedelta(hours=23), "23 hours"),
        (timedelta(days=1, hours=23), "1 day"),
        (timedelta(days=1000), "1,000 days"),
    ],
    ids=str,
)
def test_an_age_is_told_in_its_largest_whole_unit(age: timedelta, words: str) -> None:
    assert in_words(age) == words
