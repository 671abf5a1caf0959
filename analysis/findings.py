"""The rules of `--fail-on`: a number of the report, a comparison and a limit.

Knows the grammar of a rule and its words. Knows no lake: the numbers come from the caller.
"""

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from ingest.schema import BadInput

RATES: Final = ("error_rate", "platform_error_rate", "rate_limited_rate", "client_error_rate")
COUNTS: Final = (
    *("requests", "errors", "platform_errors", "rate_limited", "client_errors", "unknown_codes"),
    *("rate_limit_hot_spots", "scope_misuse", "retry_storms", "rejects"),
    *("findings", "what_changed", "platform_incidents", "error_budget", "blame_split", "credit_outages"),
    *("approval_dwell", "rejected_keys", "retry_discipline", "blocked_resends", "enumeration", "contract_drift"),
)
CODE_PREFIX: Final = "code:"

_EXAMPLE: Final = "write for example 'error_rate > 5%'"
_RULE: Final = re.compile(
    r"\s*(?P<name>[^\s<>=!]+)\s*(?P<sign>>=|<=|==|>|<|=)\s*(?P<limit>\d{1,15}(\.\d{1,9})?)\s*(?P<percent>%?)\s*"
)
_COMPARISONS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "=": operator.eq,
    "==": operator.eq,
}


@dataclass(frozen=True)
class Rule:
    """One rule: `name` is one of RATES, COUNTS or code:NAME; `limit` is a fraction for a rate."""

    text: str
    name: str
    sign: str
    limit: float

    @property
    def is_rate(self) -> bool:
        """Is the number a fraction of the requests?"""
        return self.name in RATES

    def holds_for(self, value: float | None) -> bool:
        """Is the rule true of `value`? Not of None, which is the rate of no requests."""
        return value is not None and _COMPARISONS[self.sign](value, self.limit)


@dataclass(frozen=True)
class Finding:
    """A rule that holds and the number that it holds for; its text is a line for a person."""

    rule: Rule
    value: float

    def __str__(self) -> str:
        shown = f"{self.value:.4%}" if self.rule.is_rate else f"{self.value:,.0f}"
        return f"{self.rule.text} holds: {self.rule.name} is {shown}"


def read_rule(text: str) -> Rule:
    """The rule that `text` says, such as "error_rate > 5%"; BadInput with the names that there are and an example."""
    found = _RULE.fullmatch(text)
    if not found:
        raise BadInput(f"--fail-on {text[:80]!r}: expected NAME > LIMIT, {_EXAMPLE}; {_names()}")
    name, limit = found["name"], float(found["limit"])
    is_code = name.startswith(CODE_PREFIX) and name != CODE_PREFIX
    if name not in RATES and name not in COUNTS and not is_code:
        close = get_close_matches(name, (*RATES, *COUNTS), n=1)
        meant = f"did you mean {close[0]}?" if close else f"{_EXAMPLE};"
        raise BadInput(f"--fail-on {text[:80]!r}: there is no number {name[:40]!r}; {meant} {_names()}")
    if found["percent"]:
        limit /= 100
    if name in RATES and limit > 1:
        raise BadInput(f"--fail-on {text[:80]!r}: a rate is at most 100%; {_EXAMPLE} or 'error_rate > 0.05'")
    if name not in RATES and found["percent"]:
        raise BadInput(f"--fail-on {text[:80]!r}: {name} is a count and no rate; write it without %")
    return Rule(" ".join(text.split()), name, found["sign"], limit)


def findings(rules: Iterable[Rule], values: Mapping[str, float | None]) -> tuple[Finding, ...]:
    """The rules that hold for `values`, in their order; a code that `values` does not have was met 0 times."""
    found = []
    for rule in rules:
        value = values.get(rule.name, 0) if rule.name.startswith(CODE_PREFIX) else values[rule.name]
        if value is not None and rule.holds_for(value):
            found.append(Finding(rule, value))
    return tuple(found)


def _names() -> str:
    return f"the names are {', '.join((*RATES, *COUNTS))} and {CODE_PREFIX}NAME"
