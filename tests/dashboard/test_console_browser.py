"""The page for SQL in a real browser: that others are served meanwhile, that it ends, and that data stay data."""

import re
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.analysis.queries.event_lake import error
from tests.dashboard.conftest import Serve, drawn, look, write

ENDLESS: Final = "SELECT count(*) FROM range(1000000) AS a, range(1000000) AS b, range(1000000) AS c"
MARKUP: Final = "<img src=x onerror='window.hacked = 1'>"
HOSTILE: Final = (MARKUP, "[link](javascript:window.hacked=1) **bold** :material/delete: $x^2$", "`` ` **bold** `")


def field(page: Page) -> Locator:
    return page.get_by_role("textbox", name="SQL")


def run(page: Page, sql: str) -> Page:
    """`page`, after its query was run from the keyboard."""
    field(page).fill(sql)
    field(page).press("Control+Enter")
    return page


def test_a_query_is_run_from_the_keyboard_and_shared_by_its_address(filled: Path, serve: Serve, page: Page) -> None:
    run(look(page, f"{serve(filled)}/console"), "SELECT code, count(*) AS n\nFROM errors GROUP BY ALL")

    expect(page.get_by_text(re.compile(r"^4 rows in "))).to_be_visible()
    expect(page).to_have_url(re.compile(r"/console\?sql=SELECT\+code"))
    page.reload()

    expect(field(drawn(page))).to_have_value("SELECT code, count(*) AS n\nFROM errors GROUP BY ALL")
    expect(page.get_by_text("This query has not been run.")).to_be_visible()
    expect(page.get_by_text(re.compile("rows in"))).to_have_count(0)


def test_a_row_of_an_answer_leads_on(filled: Path, serve: Serve, page: Page) -> None:
    run(look(page, f"{serve(filled)}/console"), "SELECT DISTINCT org_id FROM errors ORDER BY org_id")
    expect(page.get_by_text(re.compile(r"^2 rows in "))).to_be_visible()
    table = drawn(page).get_by_test_id("stDataFrameResizable").first
    table.scroll_into_view_if_needed()
    table.click(position={"x": 16, "y": 52})

    page.get_by_test_id("stMain").get_by_role("link", name="By code").click()

    expect(page).to_have_url(re.compile(r"/errors_by_code\?org=org_0$"))


def test_an_example_is_written_into_the_field_and_not_run(filled: Path, serve: Serve, page: Page) -> None:
    look(page, f"{serve(filled)}/console?tz=Asia/Tokyo")

    page.get_by_role("link", name="Which codes does each route answer with?").click()

    expect(field(page)).to_have_value(re.compile("^SELECT route, code, count"))
    expect(page.get_by_text("This query has not been run.")).to_be_visible()
    expect(drawn(page).get_by_role("combobox", name="Time zone")).to_have_value("Asia/Tokyo")


def test_others_are_served_while_an_endless_query_runs_until_its_limit(filled: Path, serve: Serve, page: Page) -> None:
    address = serve(filled)
    other = page.context.new_page()
    look(other, f"{address}/errors_by_code?period=all")
    run(look(page, f"{address}/console"), ENDLESS)
    expect(page.get_by_text(re.compile("^Running: "))).to_be_visible()

    look(other, f"{address}/errors_by_org?period=all")

    expect(other.get_by_text("2 rows", exact=True)).to_be_visible()
    assert page.get_by_text(re.compile("^Running: ")).is_visible()
    expect(page.get_by_test_id("stAlert")).to_contain_text("the query met the time limit of 15 s")
    other.close()


def test_a_query_is_stopped_by_its_button_and_by_leaving(filled: Path, serve: Serve, page: Page) -> None:
    run(look(page, f"{serve(filled)}/console"), ENDLESS)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("This query has not been run.")).to_be_visible()

    field(page).press("Control+Enter")
    expect(page.get_by_text(re.compile("^Running: "))).to_be_visible()
    page.get_by_test_id("stSidebar").get_by_role("link", name="Overview", exact=True).click()

    expect(page.get_by_role("heading", name="Overview", level=1)).to_be_visible()
    expect(drawn(page).get_by_test_id("stAlert")).to_have_count(0)


def test_nothing_of_a_query_or_its_answer_is_markup(tmp_path: Path, serve: Serve, page: Page) -> None:
    rows = [error(number, text, org_id=text, message=text) for number, text in enumerate(HOSTILE)]
    address = serve(write(tmp_path / "lake", rows))
    page.on("dialog", lambda dialog: pytest.fail(f"a dialog opened: {dialog.message}"))
    name = HOSTILE[1].replace('"', '""')
    queries = [
        f'SELECT org_id, message AS "{name}", code AS "{MARKUP}" FROM errors',
        f'SELECT "{name}" FROM errors',
        f'SELECT "{MARKUP}" FROM errors',
        f"FROM '{HOSTILE[2]}'",
        f"SELECT '{name}'::INTEGER",
    ]

    for sql in queries:
        look(page, f"{address}/console?sql={quote(sql)}")
        drawn(page).get_by_role("button", name="Run").click()
        expect(page.get_by_text(re.compile("^3 rows in |cannot be answered")).first).to_be_visible()
        inner = page.locator("[data-testid=stMain] :is(img[src=x], strong, .katex, a[href*=javascript])")
        assert (drawn(page) and inner.count(), page.evaluate("window.hacked")) == (0, None)
