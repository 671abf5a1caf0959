"""What is behind a customer's errors, by what the evidence shows for their code: who acts, and what to tell them.

Each code has a rule in RULES. The definitions are those of the questions that judge the code alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import pyarrow as pa
from statsmodels.stats.proportion import proportion_confint

Row = Mapping[str, Any]

_MOMENT: Final = pa.timestamp("us", tz="UTC")
_SCHEMA: Final = pa.schema(
    {
        "code": pa.string(),
        "org_id": pa.string(),
        "caller": pa.string(),
        "errors": pa.int64(),
        "requests": pa.int64(),
        "first_seen": _MOMENT,
        "last_seen": _MOMENT,
        "is_over": pa.bool_(),
        "branch": pa.string(),
        "owner": pa.string(),
        "evidence": pa.string(),
        "example_request_ids": pa.list_(pa.string()),
        "sentence": pa.string(),
    }
)
_LEAST_ERRORS: Final = 5
_LEAST_OTHERS: Final = 20
# Where so many ids are tried, each once or twice, ids may be counted up: no sign of a misspelt route.
_LEAST_TRIED: Final = 8
_LEAST_WAIT_S: Final = 60
_LEAST_OUTAGE_S: Final = 600
_NOT_ENOUGH: Final = "not enough data"
_BACK_OFF: Final = "Nothing is wrong with the requests; failed ones may be tried again with exponential backoff."


@dataclass(frozen=True)
class Play:
    """A branch, the evidence for it, what it means, what to do (None: what the catalogue says) and who does it."""

    branch: str
    evidence: str
    means: str = ""
    advice: str | None = None
    owner: str | None = None


Rule = Callable[[Row], Play]


def judge(evidence: pa.Table, parameters: Mapping[str, object]) -> pa.Table:
    """A row for each row of the evidence, in its order; columns as in the question's header."""
    return pa.Table.from_pylist([_row(row) for row in evidence.to_pylist()], _SCHEMA)


def _row(row: Row) -> Row:
    play = _play(row)
    owner = play.owner or row["owner"] or ("platform" if row["status"] >= 500 else "client")
    return {
        **{name: row[name] for name in _SCHEMA.names if name in row},
        "branch": play.branch,
        "owner": owner,
        "evidence": play.evidence,
        "sentence": _sentence(row, play),
    }


def _play(row: Row) -> Play:
    if row["errors"] < _LEAST_ERRORS:
        return Play(_NOT_ENOUGH, f"{row['errors']:,} errors, fewer than {_LEAST_ERRORS}")
    if row["caller"] is None:
        return Play(_NOT_ENOUGH, "the log does not name the caller")
    rule = RULES.get(row["code"])
    if rule is None and row["status"] == 429:
        rule = _rate_limited
    elif rule is None and row["status"] >= 500:
        rule = _platform_fault
    return (rule or _unknown)(row)


def _validation_failed(row: Row) -> Play:
    field, errors = row["field"], row["errors"]
    if row["fields"] == 0:
        return Play(_NOT_ENOUGH, "the log has no readable details", "The log does not say which field is wrong.")
    of_all = f"{_part(row['field_errors'], errors)} name the field {field}"
    if row["field_errors"] >= 0.8 * errors:
        return Play("one field", of_all, f"Nearly always the field {field} is refused.")
    if row["fields"] == 1:
        return Play(_NOT_ENOUGH, of_all, "Most of the answers do not say which field is wrong.")
    means = f"{row['fields']:,} different fields are refused, most often {field}."
    return Play("several fields", f"{row['fields']:,} fields; {of_all}", means)


def _missing_api_key(row: Row) -> Play:
    return Play("no key sent", _where(row), "These requests carry no API key at all.")


def _invalid_api_key(row: Row) -> Play:
    last_success, rejected = row["caller_last_success"], f"{row['errors']:,} rejected"
    if not row["is_keyed"] and row["quoted_keys"] >= 5 and row["errors"] <= 3 * row["quoted_keys"]:
        return Play(
            "guessed keys",
            f"{row['quoted_keys']:,} different keys from one address, {rejected}",
            "One address tries many different keys, each hardly more than once.",
            "Find out who calls from the address, and block it if nobody answers for it.",
            "platform",
        )
    if 2 * row["placeholders"] > row["errors"] and last_success is None:
        return Play(
            "placeholder key",
            f"{_part(row['placeholders'], row['errors'])} with the name or an example of a key",
            "What is sent as the key is a placeholder such as YOUR_API_KEY.",
            "Put the real key into the configuration.",
        )
    if row["is_keyed"] and last_success is not None and last_success > row["last_seen"]:
        return Play(
            "works again",
            f"{rejected}, a success at {_moment(last_success)}",
            "The key was rejected for a time and is accepted again.",
            "Nothing is left to do unless it happens again.",
        )
    since = f"{row['calls_since_success']:,} rejected since the last success"
    if row["calls_since_success"] < 3:
        return Play(_NOT_ENOUGH, since)
    if not row["is_keyed"] and last_success is not None and last_success >= row["first_seen"]:
        return Play(_NOT_ENOUGH, "the log has no key, and another one works at the address")
    if last_success is not None:
        means = f"The key worked until {_moment(last_success)} and is not accepted any more."
        return Play("retired key still calling", since, means)
    if row["is_known_key"]:
        return Play("retired key still calling", since, "The key is known, and is not accepted any more.")
    return Play("never worked", f"{rejected}, no success", "No request with this key has ever succeeded.")


def _refused_scope(row: Row) -> Play:
    return _probing(row) or _personal_key(row) or _missing_scope(row)


def _personal_key(row: Row) -> Play | None:
    if not row["is_personal_key"]:
        return None
    means = "A personal key is used for what only an organization key may reach."
    return Play("personal key", _where(row), means, "Use an organization key issued by a current owner.")


def _probing(row: Row) -> Play | None:
    asked = row["caller_requests"]
    if not asked or row["refused_routes"] < 5 or row["caller_successes"] >= 0.05 * asked:
        return None
    return Play(
        "probing",
        f"refused on {row['refused_routes']:,} routes; {_part(row['caller_successes'], asked)} requests succeed",
        "The key tries one route after another and hardly ever succeeds.",
        "Ask the owner of the key what it is for, and suspend it if nobody knows.",
        "platform",
    )


def _missing_scope(row: Row) -> Play:
    if row["has_worked_here"]:
        return Play(
            "lost the grant",
            f"{row['route_errors']:,} refused on {row['route']}, where it succeeded before",
            f"The key was allowed to use {row['route']} before.",
            "Find out why the scope was taken away, and grant it again if that was a mistake.",
            "account_team",
        )
    if row["sibling_key"] is not None:
        return Play(
            "another key of the org may",
            f"{row['route_errors']:,} refused on {row['route']}, where the key {row['sibling_key']} succeeds",
            f"Another key of the organisation, {row['sibling_key']}, may use {row['route']}.",
            "Use that key there, or have the scope granted; stop calling until then.",
        )
    return Play("never granted", _where(row), f"The key has never succeeded on {row['route']}.")


def _not_found(row: Row) -> Play:
    missed, ids, own = row["route_errors"], row["ids"], row["own_ids"]
    of_ids = f"{missed:,} not found on {row['route']}, {ids:,} different {'ids' if row['names_object'] else 'paths'}"
    if missed < 10:
        return Play(_NOT_ENOUGH, f"{missed:,} not found on {row['route']}, fewer than 10")
    are_many_ids = row["names_object"] and ids >= _LEAST_TRIED and 2 * ids >= missed
    is_unknown_route = row["anybodys_successes"] == 0 and (row["route_callers"] <= 2 or not row["is_keyed"])
    if is_unknown_route and not are_many_ids:
        return Play(
            "route that nobody succeeds on",
            f"{missed:,} not found on {row['route']}, no success of anybody",
            f"Nobody has ever succeeded on {row['route']}.",
            "Check the address and the method against the documentation.",
        )
    if row["names_object"] and 2 * own >= ids:
        return Play(
            "own ids that are gone",
            f"{of_ids}, {own:,} of them worked before",
            f"{own:,} of the {ids:,} ids worked before and do not exist any more.",
            "Drop the ids of what was deleted.",
        )
    if row["names_object"] and missed >= 2 * ids and not are_many_ids:
        return Play("same ids again and again", of_ids, f"The same {ids:,} ids are asked for again and again.")
    if row["names_object"]:
        return Play(
            "ids that never worked",
            f"{of_ids}, {own:,} of them worked before",
            f"Of the {ids:,} ids asked for on {row['route']}, {own:,} are known to have worked before.",
            "Find out where the ids come from: a stale list, a wrong environment, or somebody who tries them.",
        )
    if 2 * missed <= row["route_requests"] and row["route_successes"] >= 10:
        return Play("often nothing there", f"{of_ids}; {row['route_successes']:,} requests succeed there")
    return Play(_NOT_ENOUGH, of_ids)


def _idempotency_in_progress(row: Row) -> Play:
    return Play(
        "asked again while running",
        f"{row['errors']:,} refused, {_keys(row)}",
        "A request is sent again while the first one with its Idempotency-Key is still being processed.",
    )


def _idempotency_key_reused(row: Row) -> Play:
    means = "An Idempotency-Key is used again for a request with another body."
    return Play("one key for many bodies", f"{row['errors']:,} refused, {_keys(row)}", means)


def _keys(row: Row) -> str:
    keys = row["idempotency_keys"]
    return f"{keys:,} {'key' if keys == 1 else 'keys'}" if keys else "the log has no Idempotency-Keys"


def _approval_required(row: Row) -> Play:
    refused = f"{row['errors']:,} sends refused"
    if row["passed_at"] is not None:
        is_blip = row["has_passed_before"] and row["refused_s"] < _LEAST_WAIT_S
        return Play(_NOT_ENOUGH, refused) if is_blip else _passes_again(row, "approved since")
    if row["has_passed_before"]:
        means = "Sends passed before; the approval seems to have been withdrawn."
        return Play("approval withdrawn", f"{refused}, sends passed before", means)
    return Play("not approved yet", f"{refused}, none ever passed", "No send of the organisation has ever passed.")


def _insufficient_credits(row: Row) -> Play:
    refused = f"{row['errors']:,} sends refused"
    if row["passed_at"] is None:
        return Play("out of credits", f"{refused}, none passed since", "No send has passed since the last refusal.")
    is_one = row["idempotency_keys"] == 1 and row["errors_with_key"] == row["errors"]
    if is_one and row["refused_s"] < _LEAST_OUTAGE_S:
        return Play(_NOT_ENOUGH, f"{refused}, all the same one")
    return _passes_again(row, "topped up since")


def _passes_again(row: Row, branch: str) -> Play:
    latest = _moment(row["passed_at"])
    return Play(
        branch,
        f"{row['errors']:,} sends refused, sends passed after the last of them, the latest at {latest}",
        f"Sends pass again, the latest at {latest}.",
        "Send again what was refused, if it is still wanted.",
        "client",
    )


def _blocked(row: Row) -> Play:
    known, recipients = row["known"], row["recipients"]
    resends = known - recipients
    if 2 * known < row["errors"]:
        return Play(_NOT_ENOUGH, f"the recipients of {_part(known, row['errors'])} are known")
    counts = f"{known:,} refused sends to {recipients:,} {'recipient' if recipients == 1 else 'recipients'}"
    often = resends >= 0.2 * known and resends >= 0.02 * row["requests"]
    if resends >= 5 and (resends >= 0.75 * known or often):
        means = f"{resends:,} of the sends went to recipients that had been refused before."
        return Play("same recipients again", counts, means)
    if recipients >= 20:
        means = f"{recipients:,} different recipients are refused: the list holds many who cannot be reached."
        return Play("many recipients", counts, means)
    return Play("few recipients", counts)


def _rate_limited(row: Row) -> Play:
    told, early, burst = row["told"], row["early"], row["burst_errors"]
    if told >= _LEAST_ERRORS and 2 * early >= told:
        return Play(
            "calls inside Retry-After",
            f"{early:,} of {told:,} refused again before the wait of the refusal before was over",
            "Requests come again before the time that Retry-After asked to wait.",
            "Wait for Retry-After before the next request, in all workers that share the key.",
        )
    runs = f"{burst:,} of {row['errors']:,} in runs shorter than 10 s, {row['runs']:,} runs in all"
    if row["errors"] < 2 * row["runs"]:
        return Play(
            "now and then",
            f"{row['errors']:,} refusals in {row['runs']:,} runs",
            "Single requests are refused now and then.",
            "Wait for Retry-After when refused; nothing else is needed.",
        )
    if 2 * burst > row["errors"]:
        means = "Requests come in short bursts that exceed the limit."
        return Play("burst", runs, means, "Spread the requests evenly over time; wait for Retry-After when refused.")
    return Play(
        "steady load above the limit",
        runs,
        "Requests come faster than the limit allows, not only in short bursts.",
        "Send fewer requests, or ask for a higher limit; wait for Retry-After when refused.",
    )


def _platform_fault(row: Row) -> Play:
    if 2 * row["shared_errors"] >= row["errors"]:
        return Play(
            "platform fault for many",
            f"{_part(row['shared_errors'], row['errors'])} in minutes in which others met the same, up to "
            f"{row['accounts_at_once']:,} customers at a time",
            "Other customers met the same error on the same route in the same minutes.",
            _BACK_OFF,
            "platform",
        )
    own, of_own = row["route_errors"], row["route_requests"]
    others, of_others = row["others_errors"], row["others_requests"]
    if not row["is_keyed"] and row["route_successes"] == 0:
        return Play(_NOT_ENOUGH, "the log does not say whose requests failed", owner="platform")
    if of_others < _LEAST_OTHERS:
        return Play(_NOT_ENOUGH, f"{of_others:,} requests of others on {row['route']}", owner="platform")
    rates = f"{_part(own, of_own)} fail so on {row['route']}, of others {_part(others, of_others)}"
    lowest, _ = proportion_confint(own, of_own, method="wilson")
    if lowest < 2 * others / of_others:
        return Play(
            "platform fault now and then",
            rates,
            "Other customers meet this error about as often.",
            _BACK_OFF,
            "platform",
        )
    return Play(
        "this customer's requests alone",
        rates,
        "Other customers meet this error there less often, if at all: something about these requests brings it about.",
        row["client_action"] or "Give support the request_ids and what was sent.",
        "platform",
    )


def _hung_up(row: Row) -> Play:
    return Play(
        "client hung up",
        _where(row),
        "The client closed the connection before the answer was there.",
        "Wait longer for the answer, or find out on the platform why it takes so long.",
        "client",
    )


def _no_route(row: Row) -> Play:
    return Play(
        "no such route",
        _where(row),
        "The gateway knows no such route.",
        "Check the address and the method against the documentation.",
        "client",
    )


def _malformed(row: Row) -> Play:
    return Play(
        "request that the gateway refuses",
        _where(row),
        "The gateway refuses these requests as malformed or too large, before they reach the API.",
        "Check how the client builds its requests.",
        "client",
    )


def _unknown(row: Row) -> Play:
    advice = row["client_action"] or "Look up what the documentation of the API says of it."
    return Play("no rule for this code", _where(row), advice=advice)


RULES: Final[Mapping[str, Rule]] = {
    "validation_failed": _validation_failed,
    "missing_api_key": _missing_api_key,
    "insufficient_scope": _refused_scope,
    "invalid_api_key": _invalid_api_key,
    "scope_invalid": _refused_scope,
    "not_found": _not_found,
    "idempotency_in_progress": _idempotency_in_progress,
    "idempotency_key_reused": _idempotency_key_reused,
    "approval_required": _approval_required,
    "dnc_blocked": _blocked,
    "insufficient_credits": _insufficient_credits,
    "opted_out": _blocked,
    "rate_limited": _rate_limited,
    "internal_error": _platform_fault,
    "client_closed_request": _hung_up,
    "no_route": _no_route,
    "bad_request": _malformed,
    "request_too_large": _malformed,
    "uri_too_long": _malformed,
    "headers_too_large": _malformed,
}
"""By code of the catalogue, or by reason of the gateway; others go by their status."""


def _sentence(row: Row, play: Play) -> str:
    ids = row["example_request_ids"]
    advice = row["client_action"] if play.advice is None else play.advice
    parts = (
        f"{_who(row)} was answered {row['code']} {row['errors']:,} times {_when(row)}, {_where_most(row)}.",
        play.means or f"What the data show: {play.evidence}.",
        advice or "",
        "It has succeeded there since." if row["is_over"] else "",
        f"Example request ids: {', '.join(ids)}." if ids else "",
    )
    return " ".join(filter(None, parts))


def _who(row: Row) -> str:
    if row["caller"] is None:
        who = "A caller that the log does not name"
    else:
        who = f"The {'key' if row['is_keyed'] else 'address'} {row['caller']}"
    return who if row["org_id"] is None else f"{who} of organisation {row['org_id']}"


def _when(row: Row) -> str:
    first, last = _moment(row["first_seen"]), _moment(row["last_seen"])
    return f"at {first}" if first == last else f"from {first} to {last}"


def _where_most(row: Row) -> str:
    mostly = "on" if row["routes"] == 1 else "mostly on"
    place = f"{mostly} {row['route']}" if row["route"] else "on no known route"
    return f"{place}, in {row['requests']:,} requests there"


def _where(row: Row) -> str:
    """How much of it, and where."""
    routes = f", {row['routes']:,} routes in all" if row["routes"] > 1 else ""
    return f"{_part(row['errors'], row['requests'])} requests fail so, mostly on {row['route'] or 'no route'}{routes}"


def _part(some: int, of: int) -> str:
    return f"{some:,} of {of:,} ({some / of:.0%})"


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"
