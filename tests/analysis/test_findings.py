"""The rules of --fail-on: what they say, when they hold, and what a wrong one is told."""

import re

import pytest

from analysis.findings import COUNTS, RATES, Finding, Rule, findings, read_rule
from ingest.schema import BadInput


@pytest.mark.parametrize(
    ("text", "name", "sign", "limit"),
    [
        pytest.param("error_rate > 5%", "error_rate", ">", 0.05, id="a rate in per cent"),
        pytest.param("error_rate > 0.05", "error_rate", ">", 0.05, id="a rate as a fraction"),
        pytest.param("platform_error_rate>=0.5%", "platform_error_rate", ">=", 0.005, id="without spaces"),
        pytest.param("  retry_storms   >  0 ", "retry_storms", ">", 0.0, id="with more spaces"),
        pytest.param("requests < 1", "requests", "<", 1.0, id="fewer than"),
        pytest.param("code:internal_error > 100", "code:internal_error", ">", 100.0, id="a code"),
        pytest.param("unknown_codes = 2", "unknown_codes", "=", 2.0, id="equal"),
        pytest.param("error_rate > 100%", "error_rate", ">", 1.0, id="the highest rate"),
    ],
)
def test_a_rule_is_a_name_a_comparison_and_a_limit(text: str, name: str, sign: str, limit: float) -> None:
    assert read_rule(text) == Rule(" ".join(text.split()), name, sign, limit)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        pytest.param("", "expected NAME > LIMIT", id="nothing"),
        pytest.param("error_rate", "expected NAME > LIMIT", id="no comparison"),
        pytest.param("error_rate > much", "expected NAME > LIMIT", id="no number"),
        pytest.param("error_rate > -1", "expected NAME > LIMIT", id="a negative limit"),
        pytest.param("errors > 1e400", "expected NAME > LIMIT", id="an exponent"),
        pytest.param("error_rate != 5%", "expected NAME > LIMIT", id="an unknown comparison"),
        pytest.param("errors > 1; errors > 2", "expected NAME > LIMIT", id="two rules"),
        pytest.param("__import__('os').getpid() > 0", "there is no number", id="code of a program"),
        pytest.param("eror_rate > 5%", "did you mean error_rate?", id="a typing error"),
        pytest.param("code: > 5", "there is no number 'code:'", id="a code without a name"),
        pytest.param("error_rate > 5", "a rate is at most 100%", id="a rate that no traffic has"),
        pytest.param("retry_storms > 5%", "retry_storms is a count and no rate; write it without %", id="per cent"),
    ],
)
def test_a_wrong_rule_is_told_in_one_line(text: str, verdict: str) -> None:
    with pytest.raises(BadInput, match=re.escape(verdict)) as raised:
        read_rule(text)

    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["error_rate", "burn > 1"])
def test_a_malformed_rule_is_told_every_name_and_one_example(text: str) -> None:
    with pytest.raises(BadInput, match=re.escape("'error_rate > 5%'")) as raised:
        read_rule(text)

    assert [name for name in (*RATES, *COUNTS, "code:NAME") if name not in str(raised.value)] == []


@pytest.mark.parametrize(
    ("text", "value", "holds"),
    [
        ("errors > 5", 6, True),
        ("errors > 5", 5, False),
        ("errors >= 5", 5, True),
        ("errors >= 5", 4, False),
        ("errors < 5", 4, True),
        ("errors < 5", 5, False),
        ("errors <= 5", 5, True),
        ("errors <= 5", 6, False),
        ("errors = 5", 5, True),
        ("errors == 5", 6, False),
        pytest.param("error_rate < 5%", None, False, id="no requests have no rate"),
    ],
)
def test_a_rule_holds_for_what_it_says(text: str, value: float | None, holds: bool) -> None:
    assert read_rule(text).holds_for(value) is holds


def test_the_rules_that_hold_are_found_in_their_order_with_the_number() -> None:
    rules = [read_rule(text) for text in ("retry_storms > 0", "errors > 99", "error_rate > 5%", "code:not_found > 6")]

    found = findings(rules, {"error_rate": 0.25, "errors": 12, "retry_storms": 2, "code:not_found": 7})

    assert found == (Finding(rules[0], 2), Finding(rules[2], 0.25), Finding(rules[3], 7))


def test_a_code_that_was_not_met_was_met_0_times() -> None:
    absent = read_rule("code:internal_error < 1")

    assert findings([absent, read_rule("code:internal_error > 0")], {}) == (Finding(absent, 0),)


@pytest.mark.parametrize(
    ("text", "value", "line"),
    [
        ("error_rate > 5%", 0.25, "error_rate > 5% holds: error_rate is 25.0000%"),
        ("code:not_found > 6", 1234, "code:not_found > 6 holds: code:not_found is 1,234"),
    ],
)
def test_a_finding_is_a_line_that_names_the_rule_and_the_number(text: str, value: float, line: str) -> None:
    assert str(Finding(read_rule(text), value)) == line
