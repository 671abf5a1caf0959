"""The pages in a real browser: that they draw, that the address holds what is set, and that data stay data."""

import re
import socket
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from playwright.sync_api import Page, expect
from playwright.sync_api import TimeoutError as TooLate

import analysis
from tests.analysis.queries.event_lake import MORNING, error, source
from tests.dashboard.conftest import Serve, drawn, look, turn_to, write
from tests.hostile import HOSTILE

TITLES = ["Overview", "One request", "SQL", *(question.title for question in analysis.questions().values())]


def test_every_page_is_drawn_from_a_filled_lake(filled: Path, serve: Serve, page: Page) -> None:
    look(page, f"{serve(filled)}/?period=all")

    assert {title: _troubles(turn_to(page, title)) for title in TITLES} == {title: [] for title in TITLES}


def test_every_page_is_drawn_from_an_empty_lake(empty: Path, serve: Serve, page: Page) -> None:
    look(page, serve(empty))

    assert {title: _troubles(turn_to(page, title)) for title in TITLES} == {title: [] for title in TITLES}


def test_a_folder_without_a_lake_says_how_to_make_one(tmp_path: Path, serve: Serve, page: Page) -> None:
    look(page, serve(tmp_path / "not there"))

    expect(page.get_by_text("No logs have been read yet.")).to_be_visible()
    expect(page.get_by_text(f"errata ingest /var/log/nginx/access.log* --lake '{tmp_path}/not there'")).to_be_visible()
    assert _troubles(page) == []


def test_a_filter_that_is_set_stands_in_the_address_and_survives_a_reload(
    filled: Path, serve: Serve, page: Page
) -> None:
    look(page, f"{serve(filled)}/errors_by_key")

    page.get_by_role("combobox", name="Organisation").fill("org_1")
    page.get_by_role("option", name="org_1", exact=True).click()
    expect(page).to_have_url(re.compile(r"/errors_by_key\?org=org_1$"))
    page.reload()

    expect(drawn(page).get_by_role("combobox", name="Organisation")).to_have_value("org_1")
    expect(page.get_by_text("2 rows")).to_be_visible()


def test_going_back_takes_a_filter_off_again(filled: Path, serve: Serve, page: Page) -> None:
    look(page, f"{serve(filled)}/errors_by_code")
    page.get_by_role("combobox", name="Code", exact=True).fill("not_found")
    page.get_by_role("option", name="not_found", exact=True).click()
    expect(page.get_by_text("1 row", exact=True)).to_be_visible()

    page.go_back()

    expect(page.get_by_text("4 rows", exact=True)).to_be_visible()
    expect(page.get_by_role("combobox", name="Code", exact=True)).to_have_value("")


def test_links_to_other_pages_carry_the_filters_along(filled: Path, serve: Serve, page: Page) -> None:
    look(page, f"{serve(filled)}/?period=7d&org=org_0&tz=Europe/Berlin&without_429=true")

    page.get_by_test_id("stSidebar").get_by_role("link", name="Errors by key").click()

    expect(page.get_by_role("heading", name="Errors by key")).to_be_visible()
    expect(page).to_have_url(re.compile(r"/errors_by_key\?period=7d&tz=Europe%2FBerlin&org=org_0$"))
    expect(page.get_by_role("combobox", name="Time zone")).to_have_value("Europe/Berlin")


def test_a_row_leads_to_the_questions_about_what_it_names(filled: Path, serve: Serve, page: Page) -> None:
    look(page, f"{serve(filled)}/errors_by_org")
    table = page.get_by_test_id("stDataFrameResizable").first
    table.scroll_into_view_if_needed()
    table.click(position={"x": 16, "y": 52})

    page.get_by_test_id("stMain").get_by_role("link", name="By code").click()

    expect(page.get_by_role("heading", name="Errors by code")).to_be_visible()
    expect(page).to_have_url(re.compile(r"/errors_by_code\?org=org_[01]$"))


def test_a_request_is_explained_and_leads_on(filled: Path, serve: Serve, page: Page) -> None:
    look(page, f"{serve(filled)}/request?id=req_30_1")

    expect(page.get_by_text("req_30_1: POST /v1/messages was answered 500 internal_error")).to_be_visible()
    page.get_by_test_id("stMain").get_by_role("link", name="Over time").click()

    expect(page.get_by_role("heading", name="Error trend")).to_be_visible()
    filters = {"org": ["org_1"], "key": ["key_1"], "code": ["internal_error"], "route": ["/v1/messages"]}
    assert parse_qs(urlsplit(page.url).query) == filters


def test_the_zone_of_the_browser_is_offered_first(filled: Path, serve: Serve, page: Page) -> None:
    look(page, serve(filled))

    page.get_by_role("combobox", name="Time zone").click()

    expect(page.get_by_role("option").first).to_have_text("Asia/Tokyo")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        pytest.param("?period=fortnight", "period has value 'fortnight'; expected one of 24h,", id="period"),
        pytest.param("?since=yesteryear", "since has value 'yesteryear'; expected a date or time", id="moment"),
        pytest.param("?since=2026-11-03&until=2026-11-02", "expected the first to be earlier", id="order"),
        pytest.param("?since=2026-11-03&period=7d", "period beside since or until; keep one", id="two periods"),
        pytest.param("?tz=Mars/Olympus", "there is no time zone 'Mars/Olympus'", id="zone"),
        pytest.param("?log=perhaps", "log has value 'perhaps'; expected true or false", id="switch"),
        pytest.param("error_trend?bucket=week", "expected minute, hour or day, got week", id="value of a question"),
        pytest.param(
            "rate_limit_hot_spots?min_shared_keys=few", "min_shared_keys has value 'few'; expected a", id="number"
        ),
        pytest.param("request?id=req_none", "no request in the lake has the id 'req_none'", id="request"),
    ],
)
def test_what_the_address_cannot_mean_is_told_in_one_message(
    address: str, said: str, filled: Path, serve: Serve, page: Page
) -> None:
    look(page, f"{serve(filled)}/{address}")

    expect(page.get_by_test_id("stAlert")).to_have_count(1)
    expect(page.get_by_test_id("stAlert")).to_contain_text(said)
    expect(page.get_by_test_id("stException")).to_have_count(0)


def test_a_parameter_that_no_page_knows_is_named_and_the_page_is_drawn(filled: Path, serve: Serve, page: Page) -> None:
    look(page, f"{serve(filled)}/errors_by_code?colour=<b>red</b>&organisation=x")

    expect(page.get_by_test_id("stAlert")).to_contain_text("colour, organisation")
    expect(page.get_by_text("4 rows", exact=True)).to_be_visible()


def test_what_clients_sent_is_never_markup_or_a_formula(tmp_path: Path, serve: Serve, page: Page) -> None:
    rows = [
        error(
            number,
            text,
            org_id=text,
            key_id=text,
            route=text,
            path=text,
            message=text,
            user_agent=text,
            request_id=text,
        )
        for number, text in enumerate(HOSTILE.values())
    ]
    counts = dict.fromkeys(("requests", "errors", "lines"), len(rows))
    ledger = source(HOSTILE["script"], name=HOSTILE["script"], **counts)
    ledger |= {"kind": "source", "day": MORNING.date(), "first_ts": MORNING, "last_ts": rows[-1]["ts"]}
    address = serve(write(tmp_path / "lake", [*rows, ledger]))
    page.on("dialog", lambda dialog: pytest.fail(f"a dialog opened: {dialog.message}"))

    look(page, f"{address}/?period=all")
    for title in TITLES:
        assert _troubles(turn_to(page, title)) == []
        assert _is_inert(page)

    look(page, f"{address}/request?id={quote(HOSTILE['script'])}")
    assert _is_inert(page)
    look(page, f"{address}/errors_by_org")
    page.get_by_test_id("stDataFrameResizable").first.click(position={"x": 16, "y": 52})
    expect(page.get_by_role("link", name="By code")).to_be_visible()
    assert _is_inert(drawn(page))  # a click on a page that is still being drawn is lost
    cells = _downloaded(page, "CSV").read_text("utf-8")
    assert f"\n'{HOSTILE['formula']}," in cells


def test_what_is_ingested_meanwhile_is_seen_at_the_next_look(tmp_path: Path, serve: Serve, page: Page) -> None:
    lake = write(tmp_path / "lake", [error(0, "not_found")])
    address = f"{serve(lake)}/errors_by_code?period=all"
    look(page, address)
    expect(page.get_by_text("1 row", exact=True)).to_be_visible()

    write(lake, [error(1, "opted_out")])
    page.reload()

    expect(page.get_by_text("2 rows", exact=True)).to_be_visible()


def test_only_this_machine_is_served(filled: Path, serve: Serve) -> None:
    port = urlsplit(serve(filled)).port

    # All of 127.0.0.0/8 is this machine: a server of every address would answer here too.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port or 0), timeout=5)


def test_a_page_of_another_name_cannot_read_along(filled: Path, serve: Serve) -> None:
    address = urlsplit(serve(filled))
    ask = (
        "GET /_stcore/stream HTTP/1.1\r\nHost: evil.example\r\nOrigin: http://evil.example\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=5) as connection:
        connection.sendall(ask.encode())
        answered = connection.recv(64).decode()

    assert answered.startswith("HTTP/1.1 403")


def _downloaded(page: Page, button: str) -> Path:
    """The file behind `button`. Streamlit draws a page again at will, and a click meanwhile is lost: click again."""
    for _ in range(5):
        try:
            with page.expect_download(timeout=10_000) as download:
                drawn(page).get_by_role("button", name=button).click()
            return Path(download.value.path())
        except TooLate:
            continue
    raise AssertionError(f"{button} gave no download in five clicks")


def _troubles(page: Page) -> list[str]:
    """What a page says went wrong: exceptions, errors and warnings."""
    found = page.locator(
        "[data-testid=stException], [data-testid=stAlertContentError], [data-testid=stAlertContentWarning]"
    )
    return found.all_inner_texts()


def _is_inert(page: Page) -> bool:
    """Did no script run, and is nothing in the page's body an element that the hostile strings describe?"""
    elements = page.locator(
        "[data-testid=stMain] :is(script, img[src=x], strong, s, .katex, a[href*=attacker], img[src*=attacker])"
    )
    return elements.count() == 0 and page.evaluate("window.hacked === undefined")
