"""The report: its numbers against direct counts, its three formats, hostile text, empty lakes, and the command."""

import json
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner, Result

import analysis
from analysis.digest import Digest, digest
from analysis.digest_formats import FORMATS, as_html, as_json, as_markdown
from analysis.findings import COUNTS, RATES, read_rule
from analysis.period import day_of
from analysis.report import report
from ingest.schema import BadInput
from tests.analysis.conftest import NINE, Row, WriteLake

NOW: Final = datetime(2026, 11, 4, 12, tzinfo=UTC)
DAY: Final = NINE.date().isoformat()

HOSTILE: Final = {
    "markup": "<script>alert(1)</script>",
    "bar": "a|b",
    "terminal": "\x1b[31mred",
    "formula": "=cmd|' /C calc'!A0",
    "span": "``` `code` ```",
    "link": "[click](javascript:alert(1))",
    "address": "https://attacker.example/x",
    "attribute": '" onload="alert(1)',
    "direction": "\u202egnp.exe",
    "lines": "one\n\n# two",
    "entity": "&lt;b&gt;",
}
DEFUSED: Final = {
    "markup": "`<script>alert(1)</script>`",
    "bar": "a&#124;b",
    "terminal": r"`\x1b[31mred`",
    "formula": "&#39;&#61;cmd&#124;&#39; &#47;C calc&#39;&#33;A0",
    "span": "&#96;&#96;&#96; &#96;code&#96; &#96;&#96;&#96;",
    "link": "`[click](javascript:alert(1))`",
    "address": "`https://attacker.example/x`",
    "attribute": '`" onload="alert(1)`',
    "direction": r"`\u202egnp.exe`",
    "lines": r"`one\n\n# two`",
    "entity": "`&lt;b&gt;`",
}

Facts = Callable[..., Digest]


@pytest.fixture
def night(write_lake: WriteLake) -> Path:
    """Two days of traffic: on the second, one key of org_b runs into a platform fault, and org_a into rate limits."""
    yesterday = [_row(-1, number, **fields) for number, fields in enumerate([{}] * 6 + [_failure("rate_limited", 429)])]
    failures = (
        [_failure("rate_limited", 429)] * 5
        + [_failure("internal_error", 500, org_id="org_b", key_id="key_b")] * 3
        + [_failure("not_found", 404, route="/v1/messages/{id}", method="GET")] * 2
        + [_failure("brand_new", 418), {"status": 502, "origin": "gateway", "gateway_reason": "bad_gateway"}]
    )
    today = [_row(0, number, **fields) for number, fields in enumerate([{}] * 28 + failures)]
    moments = [row["ts"] for row in (*yesterday, *today)]
    return write_lake([*yesterday, *today], sources=[_source(min(moments), max(moments))])


@pytest.fixture
def facts_of() -> Facts:
    """The facts of one day of a lake at NOW."""

    def facts(
        lake: Path, day: str | None = DAY, *, tz: str = "UTC", rules: tuple[str, ...] = (), top: int = 10
    ) -> Digest:
        con = analysis.connect(lake)
        period = day_of(con, day, tz=tz, now=NOW)
        return digest(con, period, lake=lake, rules=map(read_rule, rules), top=top, now=NOW)

    return facts


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(report, [str(argument) for argument in arguments])


# -- the facts


def test_the_totals_are_those_of_a_direct_count(night: Path, facts_of: Facts) -> None:
    con = analysis.connect(night)

    totals = facts_of(night).totals

    counted = "SELECT count(*), count(*) FILTER (status >= 400 OR code IS NOT NULL) FROM requests WHERE day = ?"
    assert (totals.requests, totals.errors) == con.execute(counted, [NINE.date()]).fetchone()
    before = con.execute(counted, [NINE.date() - timedelta(days=1)]).fetchone()
    assert (totals.previous_requests, totals.previous_errors) == before
    assert (totals.rate, totals.previous_rate) == (12 / 40, 1 / 7)


@pytest.mark.parametrize(
    ("section", "columns"),
    [
        ("errors_by_code", "coalesce(code, gateway_reason) AS label"),
        ("errors_by_org", "org_id"),
        ("errors_by_key", "key_id AS key, org_id"),
        ("errors_by_route", "method, route"),
    ],
)
def test_a_section_has_the_rows_of_a_direct_count(night: Path, facts_of: Facts, section: str, columns: str) -> None:
    direct = analysis.connect(night).sql(
        f"SELECT {columns}, count(*) AS errors FROM requests WHERE kind = 'error' AND day = '{DAY}' GROUP BY ALL"
    )

    rows = _section(facts_of(night), section).rows

    names = direct.columns
    assert sorted(tuple(row[name] for name in names) for row in rows) == sorted(direct.fetchall())


def test_the_numbers_of_the_rules_are_those_of_the_sections(night: Path, facts_of: Facts) -> None:
    values = facts_of(night).values

    assert {name: values[name] for name in (*RATES, *COUNTS)} == {
        "error_rate": 12 / 40,
        "platform_error_rate": 4 / 40,
        "rate_limited_rate": 5 / 40,
        "client_error_rate": 3 / 40,
        "requests": 40,
        "errors": 12,
        "platform_errors": 4,
        "rate_limited": 5,
        "client_errors": 3,
        "unknown_codes": 1,
        "rate_limit_hot_spots": 1,
        "scope_misuse": 0,
        "retry_storms": 0,
        "rejects": 0,
        "findings": 2,
        "what_changed": 0,
        "platform_incidents": 0,
        "error_budget": 1,
        "blame_split": 0,
        "credit_outages": 0,
        "approval_dwell": 0,
        "rejected_keys": 0,
        "retry_discipline": 0,
        "blocked_resends": 0,
        "enumeration": 0,
        "contract_drift": 1,
    }
    assert {name: number for name, number in values.items() if name.startswith("code:")} == {
        "code:rate_limited": 5,
        "code:internal_error": 3,
        "code:not_found": 2,
        "code:brand_new": 1,
        "code:bad_gateway": 1,
    }


def test_a_storm_is_counted_once_whatever_the_number_of_its_culprits(write_lake: WriteLake, facts_of: Facts) -> None:
    tight_loops = [
        {
            "ts": NINE + timedelta(milliseconds=50 * number),
            "latency_ms": 10.0,
            "key_id": key,
            "idempotency_hash": key,
            "line": number,
        }
        | _failure("internal_error", 500)
        for number in range(200)
        for key in ("key_a", "key_b")
    ]
    lake = write_lake(tight_loops, sources=[_source(NINE, NINE + timedelta(seconds=10))])

    facts = facts_of(lake, rules=("retry_storms > 0",), top=1)

    section = _section(facts, "retry_storms")
    assert (facts.values["retry_storms"], section.row_count, [row["culprit"] for row in section.rows]) == (
        1,
        2,
        ["key_a"],
    )
    assert [str(finding) for finding in facts.findings] == ["retry_storms > 0 holds: retry_storms is 1"]


def test_a_section_shows_its_first_rows_and_says_how_many_there_are(night: Path, facts_of: Facts) -> None:
    facts = facts_of(night, top=1)

    section = _section(facts, "errors_by_route")
    assert ([row["errors"] for row in section.rows], section.row_count) == ([10], 2)
    assert "The first 1 of 2. All of them:" in as_markdown(facts)
    assert "The first 1 of 2. All of them:" in as_html(facts)


def test_every_code_is_shown_whatever_the_cap(night: Path, facts_of: Facts) -> None:
    assert len(facts_of(night, top=1).codes.rows) == 5


def test_a_day_of_another_zone_has_the_requests_of_its_own_hours(write_lake: WriteLake, facts_of: Facts) -> None:
    late = datetime(2026, 11, 2, 23, 30, tzinfo=UTC)
    lake = write_lake([{"ts": late, "status": 500}, {"ts": NINE}], sources=[_source(NINE, late)])

    counts = {tz: facts_of(lake, "2026-11-03", tz=tz).totals.requests for tz in ("UTC", "Europe/Berlin")}

    assert counts == {"UTC": 0, "Europe/Berlin": 1}


@pytest.mark.parametrize(
    ("first", "last", "notes"),
    [
        pytest.param("2026-11-01T00:00", "2026-11-02T23:59", [], id="both periods are covered"),
        pytest.param(
            "2026-11-02T06:00",
            "2026-11-02T23:59",
            ["The data begins at 2026-11-02 06:00 UTC: there is nothing to compare the period with."],
            id="the period before is not",
        ),
        pytest.param(
            "2026-11-01T12:00",
            "2026-11-02T23:59",
            ["The data begins at 2026-11-01 12:00 UTC, within the period before, so its counts are too low."],
            id="the period before is in part",
        ),
        pytest.param(
            "2026-11-01T00:00",
            "2026-11-02T14:00",
            ["The data ends at 2026-11-02 14:00 UTC, before the end of the period."],
            id="the end is missing",
        ),
    ],
)
def test_a_period_that_the_lake_does_not_cover_is_noted(
    write_lake: WriteLake, facts_of: Facts, first: str, last: str, notes: list[str]
) -> None:
    moments = [datetime.fromisoformat(moment).replace(tzinfo=UTC) for moment in (first, last)]
    lake = write_lake([{"ts": moment} for moment in moments], sources=[_source(min(moments), max(moments))])

    assert list(facts_of(lake).notes) == notes


def test_a_period_that_is_not_over_is_noted(write_lake: WriteLake, facts_of: Facts) -> None:
    lake = write_lake([{"ts": NOW}], sources=[_source(NINE, NOW)])

    assert list(facts_of(lake, "today").notes) == ["The period is not over: requests may still come in."]


# -- what could not be read


@pytest.fixture
def troubled(write_lake: WriteLake) -> Path:
    """A source of the day before, two of the day, one without any request, and one that was read long before."""
    day_before = NINE - timedelta(days=1)
    bodies = ["whole", "truncated", "absent", "absent", "undecodable"]
    return write_lake(
        [{"ts": NINE, "status": 400, "body_state": state, "source_id": "torn"} for state in bodies]
        + [{"ts": NINE, "source_id": "sound"}, {"ts": day_before, "source_id": "earlier"}],
        sources=[
            _source(day_before, day_before, "earlier", lines=2, requests=1, rejects=1),
            _source(NINE, NINE, "sound", lines=1, requests=1),
            _source(NINE, NINE, "torn", lines=9, requests=5, rejects=3, skipped=1, is_cut=True),
            _source(None, None, "unreadable", lines=2, rejects=2, ingested_at=NINE + timedelta(days=1)),
            _source(None, None, "forgotten", lines=1, rejects=1, ingested_at=day_before),
        ],
        rejects=[
            {"source_id": source_id, "line": line, "reason": reason}
            for source_id, line, reason in (
                ("earlier", 1, "no_status"),
                ("torn", 1, "not_json"),
                ("torn", 2, "not_json"),
                ("torn", 3, "no_timestamp"),
                ("unreadable", 1, "not_json"),
                ("unreadable", 2, "not_json"),
                ("forgotten", 1, "not_json"),
            )
        ],
    )


def test_the_sources_of_the_period_are_told_the_most_troubled_first(troubled: Path, facts_of: Facts) -> None:
    section = _section(facts_of(troubled), "ingest_health")

    columns = ("source_id", "lines", "rejects", "truncated_bodies", "absent_bodies", "undecodable_bodies", "is_cut")
    assert [tuple(row[name] for name in columns) for row in section.rows] == [
        ("torn", 9, 3, 1, 2, 1, True),
        ("unreadable", 2, 2, 0, 0, 0, False),
        ("sound", 1, 0, 0, 0, 0, False),
    ]


def test_what_could_not_be_read_is_summed_up(troubled: Path, facts_of: Facts) -> None:
    facts = facts_of(troubled, rules=("rejects > 4",))

    assert facts.rejects == {"not_json": 4, "no_timestamp": 1}
    assert [finding.value for finding in facts.findings] == [5]
    assert _section(facts, "ingest_health").summary == (
        "5 of 12 lines could not be read (4 not_json, 1 no_timestamp). Of 5 errors the log holds the whole body of 1; "
        "1 bodies are cut, 2 absent, 1 cannot be decoded. "
        "Each source is counted whole, also where a part of it lies outside the period."
    )


def test_lines_that_are_unaccounted_for_are_told(write_lake: WriteLake, facts_of: Facts) -> None:
    lake = write_lake([{}], sources=[_source(NINE, NINE, lines=3, requests=1)])

    summary = _section(facts_of(lake), "ingest_health").summary

    assert summary.endswith(" In 1 of the sources lines are unaccounted for: a fault of the ingest.")


# -- the formats


def test_the_three_formats_have_the_same_numbers(night: Path, facts_of: Facts) -> None:
    facts = facts_of(night)

    document = json.loads(as_json(facts))
    errors = {
        name: [f"{row['errors']:,}" for row in section["rows"]]
        for name, section in document["sections"].items()
        if name in ("errors_by_code", "errors_by_org", "errors_by_key", "errors_by_route")
    }
    assert errors == {
        "errors_by_code": ["5", "3", "2", "1", "1"],
        "errors_by_org": ["9", "3"],
        "errors_by_key": ["9", "3"],
        "errors_by_route": ["10", "2"],
    }
    assert {name: _column(_markdown_tables(facts)[name], "Errors") for name in errors} == errors
    assert {name: _column(_html_tables(facts)[name], "Errors") for name in errors} == errors


@pytest.mark.parametrize("text", [as_markdown, as_html], ids=["markdown", "html"])
def test_a_person_is_told_the_total_the_period_before_and_the_definitions(
    night: Path, facts_of: Facts, text: Callable[[Digest], str]
) -> None:
    told = re.sub(r"<[^>]+>|\*\*|\s+", " ", text(facts_of(night)))

    for sentence in (
        "12 of 40 requests failed: 30.0%",
        "The equally long period before: 1 of 7, 14.3%.",
        "An error is a response with an HTTP status of 400 or above, or with an error code in its body.",
        "Data through 2026-11-02 09:00:39 UTC , 2 d 2 h before this report",
    ):
        assert re.sub(r"\W+", " ", sentence) in re.sub(r"\W+", " ", told)


def test_every_section_has_the_command_that_gives_its_numbers(night: Path, facts_of: Facts) -> None:
    from analysis.cli import ask

    facts = facts_of(night)

    for section in (facts.faults, facts.trend, facts.codes, *facts.sections):
        arguments = section.command.split()
        assert arguments[:2] == ["errata", "ask"]
        answer = CliRunner().invoke(ask, [*arguments[2:], "--output", "json"])
        assert (answer.exit_code, len(json.loads(answer.stdout))) == (0, section.row_count), section.command
        assert f"`{section.command}`" in as_markdown(facts) or section is facts.trend
        assert f"<code>{section.command}</code>" in as_html(facts)


def test_a_command_names_the_zone_and_quotes_the_lake(write_lake: WriteLake, facts_of: Facts) -> None:
    lake = write_lake(name="my lake")

    command = facts_of(lake, tz="Europe/Berlin").codes.command

    assert command == (
        f"errata ask errors_by_code --since 2026-11-02 --until 2026-11-03 --tz Europe/Berlin --lake '{lake}'"
    )


def test_json_has_the_documented_shape(night: Path, facts_of: Facts) -> None:
    document = json.loads(as_json(facts_of(night, rules=("errors > 5",))))

    sections = document.pop("sections")
    values = document.pop("values")
    assert document == {
        "found": "2 findings.",
        "notable": [
            {
                "question": "error_budget",
                "id": document["notable"][0]["id"],
                "sentence": "Error budget: budget (burn rate 85.1, threshold 1.0, faults 4, requests 47, "
                "window h 720.0).",
            },
            {
                "question": "contract_drift",
                "id": "2b6eb9a613273a25",
                "sentence": "Contract: unknown code, brand_new POST /v1/messages (errors 1, expected a code of the "
                "catalogue, found brand_new).",
            },
        ],
        "lake": str(night),
        "period": {
            "since": "2026-11-02T00:00:00Z",
            "until": "2026-11-03T00:00:00Z",
            "tz": "UTC",
            "is_over": True,
            "previous_since": "2026-11-01T00:00:00Z",
        },
        "made_at": "2026-11-04T12:00:00Z",
        "data_through": "2026-11-02T09:00:39Z",
        "definition_of_error": document["definition_of_error"],
        "definition_of_faults": document["definition_of_faults"],
        "notes": document["notes"],
        "rejects": {},
        "totals": {
            "requests": 40,
            "errors": 12,
            "rate": 0.3,
            "previous_requests": 7,
            "previous_errors": 1,
            "previous_rate": 1 / 7,
        },
        "findings": [{"rule": "errors > 5", "name": "errors", "value": 12, "limit": 5.0}],
    }
    assert values["error_rate"] == 0.3
    assert {name: sorted(section) for name, section in sections.items()} == {
        name: ["command", "heading", "row_count", "rows"] for name in sections
    }
    assert list(sections["errors_by_org"]["rows"][0]) == [
        column.name for column in analysis.questions()["errors_by_org"].columns
    ]


def test_json_says_moments_in_utc_whatever_the_zone(night: Path, facts_of: Facts) -> None:
    document = json.loads(as_json(facts_of(night, tz="Europe/Berlin")))

    assert document["period"]["since"] == "2026-11-01T23:00:00Z"
    assert document["sections"]["errors_by_org"]["rows"][0]["last_seen"].endswith("Z")


def test_the_page_is_one_file_that_runs_and_loads_nothing(night: Path, facts_of: Facts) -> None:
    page = as_html(facts_of(night))

    seen = _Page(page)
    assert seen.tags & {"script", "link", "img", "iframe", "object", "embed", "image", "use", "a", "form"} == set()
    assert [name for name in seen.attributes if name.startswith("on") or name in ("style", "src", "href")] == []
    assert re.findall(r"https?://|url\((?!#)|@import", page) == []
    assert seen.tags >= {"svg", "table", "style"}


def test_the_policy_of_the_page_allows_its_own_style_and_nothing_else(night: Path, facts_of: Facts) -> None:
    import base64
    import hashlib

    page = as_html(facts_of(night))

    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    style_hash = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy == f"default-src 'none'; style-src 'sha256-{style_hash}'; base-uri 'none'; form-action 'none'"


def test_the_charts_of_a_page_do_not_share_ids(night: Path, facts_of: Facts) -> None:
    page = as_html(facts_of(night))

    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids)) > 0
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)


# -- text out of a log


@pytest.fixture
def hostile(write_lake: WriteLake, facts_of: Facts) -> Digest:
    """The facts of a lake with an error per hostile text, which is its organisation, key, route and code."""
    return facts_of(_lake_of_names(write_lake, HOSTILE.values()), top=-1)


@pytest.fixture
def harmless(write_lake: WriteLake, facts_of: Facts) -> Digest:
    """The facts of a lake that differs from the hostile one in those texts alone."""
    return facts_of(_lake_of_names(write_lake, HOSTILE, name="harmless"), top=-1)


def test_markdown_shows_hostile_text_and_nothing_more(hostile: Digest, harmless: Digest) -> None:
    text = as_markdown(hostile)

    organisations = {row[0] for row in _markdown_tables(hostile)["errors_by_org"][1:]}
    assert organisations == set(DEFUSED.values())
    assert re.findall(r"[\x00-\x09\x0b-\x1f\u202e]", text) == []
    assert len(text.splitlines()) == len(as_markdown(harmless).splitlines())


def test_a_page_shows_hostile_text_and_nothing_more(hostile: Digest, harmless: Digest) -> None:
    page = as_html(hostile)

    seen, expected = _Page(page), _Page(as_html(harmless))
    assert (seen.tags, seen.attributes) == (expected.tags, expected.attributes)
    assert re.findall(r"[\x00-\x09\x0b-\x1f\u202e]", page) == []
    written = {"terminal", "direction", "lines"}
    shown = {kind: DEFUSED[kind].strip("`") if kind in written else text for kind, text in HOSTILE.items()}
    shown["formula"] = "'" + HOSTILE["formula"]
    assert {kind: text for kind, text in shown.items() if text not in seen.texts} == {}


def test_json_keeps_hostile_text_as_strings(hostile: Digest) -> None:
    text = as_json(hostile)

    rows = json.loads(text)["sections"]["errors_by_org"]["rows"]
    assert {row["org_id"] for row in rows} == set(HOSTILE.values())
    assert re.findall(r"[<\x00-\x09\x0b-\x1f\u202e]", text) == []


# -- lakes without anything to tell


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_report_on_an_empty_lake_is_complete(write_lake: WriteLake, facts_of: Facts, format_name: str) -> None:
    text = FORMATS[format_name](facts_of(write_lake()))

    assert "The lake holds no requests." in text


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        pytest.param([], [], id="an empty lake"),
        pytest.param([{}], ["what_changed", "error_budget", "ingest_health"], id="a lake without errors"),
    ],
)
def test_a_section_that_finds_nothing_says_so_in_one_line(
    write_lake: WriteLake, facts_of: Facts, rows: list[Row], told: list[str]
) -> None:
    facts = facts_of(write_lake(rows, sources=[_source(NINE, NINE) for _ in rows]))

    markdown, html = as_markdown(facts), as_html(facts)

    sections = (facts.codes, *facts.sections)
    assert [
        section.question
        for section in sections
        if f"## {section.topic.heading}\n\n{section.topic.nothing}\n\n`errata ask {section.question}" not in markdown
        or f"<p>{section.topic.nothing}</p>" not in html
    ] == told


# -- the command


def test_the_report_is_markdown_on_standard_output(night: Path) -> None:
    result = run("--lake", night, "--day", DAY)

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("# API errors, 2026-11-02 (UTC)\n\n**12 of 40 requests failed: 30.0%.**\n")


def test_a_link_in_the_place_of_a_draft_is_not_followed(night: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".night.json.draft").symlink_to(tmp_path / "mine")

    result = run("--lake", night, "--day", DAY, "--out", tmp_path / "night.json")

    assert (result.exit_code, (tmp_path / "mine").read_text()) == (0, "mine")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lake", "mine", "night.json"]


def test_the_suffix_of_a_file_decides_its_format(night: Path, tmp_path: Path) -> None:
    outs = [tmp_path / name for name in ("night.md", "night.html", "night.json")]

    result = run("--lake", night, "--day", DAY, *(part for out in outs for part in ("--out", out)))

    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert [out.read_text()[:15] for out in outs] == [
        "# API errors, 2",
        "<!doctype html>",
        '{\n  "lake": "' + str(night)[:2],
    ]
    assert sorted(tmp_path.iterdir()) == sorted([*outs, night])


@pytest.mark.parametrize("format_name", FORMATS)
def test_a_format_can_be_named(night: Path, tmp_path: Path, format_name: str) -> None:
    out = tmp_path / "night.txt"

    printed = run("--lake", night, "--day", DAY, "--format", format_name)
    written = run("--lake", night, "--day", DAY, "--format", format_name, "--out", out)

    assert (printed.exit_code, written.exit_code, written.stdout) == (0, 0, "")
    assert out.read_text().splitlines()[0] == printed.stdout.splitlines()[0]


@pytest.mark.parametrize(
    ("rules", "exit_code", "told"),
    [
        pytest.param((), 0, [], id="no rule"),
        pytest.param(("errors > 12",), 0, [], id="a rule that does not hold"),
        pytest.param(("errors > 11",), 1, ["errors > 11 holds: errors is 12"], id="a rule that holds"),
        pytest.param(
            ("error_rate > 5%", "requests < 1", "code:internal_error>=3", "unknown_codes > 0"),
            1,
            [
                "error_rate > 5% holds: error_rate is 30.0000%",
                "code:internal_error>=3 holds: code:internal_error is 3",
                "unknown_codes > 0 holds: unknown_codes is 1",
            ],
            id="some of several",
        ),
    ],
)
def test_the_exit_code_is_1_when_a_rule_holds(
    night: Path, rules: tuple[str, ...], exit_code: int, told: list[str]
) -> None:
    result = run("--lake", night, "--day", DAY, *(part for rule in rules for part in ("--fail-on", rule)))

    assert result.exit_code == exit_code
    assert result.stderr.splitlines() == [f"errata report: {line}" for line in told]
    assert [line for line in told if f"- `{line}`" not in result.stdout] == []


def test_a_code_of_a_rule_that_was_never_met_is_told(night: Path) -> None:
    rules = ("code:internl_error > 0", "code:opted_out > 0", "code:bad_gateway > 99", "code:brand_new > 99")

    result = run("--lake", night, "--day", DAY, *(part for rule in rules for part in ("--fail-on", rule)))

    assert (result.exit_code, result.stderr) == (
        0,
        "errata report: no error of the lake has the code 'internl_error' that --fail-on names\n",
    )


@pytest.mark.parametrize(
    ("arguments", "verdict"),
    [
        pytest.param(["--fail-on", "mood > 3"], "there is no number 'mood'", id="rule"),
        pytest.param(["--out", "night.pdf"], "night.pdf: cannot tell the format from the name", id="suffix"),
        pytest.param(["--until", "today"], "--until needs --since", id="until alone"),
        pytest.param(["--day", "today", "--since", "7d"], "--day and --since exclude each other", id="day and since"),
        pytest.param(["--tz", "Mars/Base"], "there is no time zone 'Mars/Base'", id="zone"),
        pytest.param(["--out", "missing/night.md"], "missing/night.md: cannot be written (No such file", id="folder"),
    ],
)
def test_wrong_usage_is_told_in_one_line(night: Path, arguments: list[str], verdict: str) -> None:
    result = run("--lake", night, *arguments)

    assert isinstance(result.exception, BadInput)
    assert verdict in str(result.exception)
    assert "\n" not in str(result.exception)


def test_without_a_lake_there_is_no_report(tmp_path: Path) -> None:
    result = run("--lake", tmp_path / "none")

    assert isinstance(result.exception, BadInput)


def _failure(code: str, status: int, **fields: Any) -> Row:
    return {"code": code, "status": status, "body_state": "whole", **fields}


def _row(days: int, number: int, **fields: Any) -> Row:
    return {"ts": NINE + timedelta(days=days, seconds=number), "line": number, **fields}


def _lake_of_names(write_lake: WriteLake, names: Iterable[str], name: str = "lake") -> Path:
    rows = [{"status": 400, "code": text, "org_id": text, "key_id": text, "route": text} for text in names]
    return write_lake(rows, sources=[_source(NINE, NINE)], name=name)


def _source(first: datetime | None, last: datetime | None, source_id: str = "s1", **fields: Any) -> Row:
    """A step of the ledger whose lines are all accounted for."""
    counts = dict.fromkeys(("lines", "requests", "rejects", "skipped", "errors", "first_line"), 0)
    row = {"source_id": source_id, "name": f"{source_id}.log", "first_ts": first, "last_ts": last, "is_cut": False}
    return row | counts | {"ingested_at": NOW} | fields


def _section(facts: Digest, question: str) -> Any:
    return next(section for section in (facts.codes, *facts.sections) if section.question == question)


def _column(table: list[list[str]], title: str) -> list[str]:
    place = table[0].index(title)
    return [row[place] for row in table[1:]]


def _markdown_tables(facts: Digest) -> dict[str, list[list[str]]]:
    """The table above each command, by its question."""
    tables: dict[str, list[list[str]]] = {}
    table: list[list[str]] = []
    for line in as_markdown(facts).splitlines():
        if line.startswith("#"):
            table = []
        elif line.startswith("|") and not set(line) <= set("|-: "):
            table.append([cell.strip() for cell in line.strip("|").split("|")])
        elif command := re.match(r"`errata ask (\w+)", line):
            tables[command[1]] = table
    return tables


def _html_tables(facts: Digest) -> dict[str, list[list[str]]]:
    tables: dict[str, list[list[str]]] = {}
    for section in as_html(facts).split("<section>")[1:]:
        (command,) = re.findall(r"<code>errata ask (\w+)", section)
        rows = re.findall(r"<tr>(.*?)</tr>", section, re.DOTALL)
        cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
        tables[command] = [[re.sub(r"<[^>]+>|\s", "", cell) for cell in row] for row in cells]
    return tables


class _Page(HTMLParser):
    """What a browser would find: tags, names of attributes and texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_report_tells_what_was_found_first(night: Path, facts_of: Facts) -> None:
    facts = facts_of(night)

    assert [finding.question for finding in facts.notable] == ["error_budget", "contract_drift"]
    for text in (as_markdown(facts), as_html(facts)):
        assert text.index("2 findings.") < text.index(facts.codes.topic.heading)


def test_a_day_without_findings_says_so_in_a_line(write_lake: WriteLake, facts_of: Facts) -> None:
    quiet = write_lake([_row(0, number) for number in range(30)], sources=[_source(NINE, NINE + timedelta(seconds=29))])

    facts = facts_of(quiet)

    line = "Nothing found: 30 requests, and nothing about them needs anybody."
    assert facts.found == line
    assert f"**{line}**" in as_markdown(facts)


def test_findings_of_a_question_can_fail_a_build(night: Path) -> None:
    result = CliRunner().invoke(report, ["--lake", str(night), "--day", DAY, "--fail-on", "contract_drift > 0"])

    assert result.exit_code == 1
    assert "contract_drift > 0 holds: contract_drift is 1" in result.stderr
