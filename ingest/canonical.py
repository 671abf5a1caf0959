"""Records of either lane -> canonical values: types, units, who answered and why, the route. Still unredacted.

Knows units and HTTP; knows no gateway by name.
"""

# ruff: noqa: S608 - the SQL is built from names and numbers of this module
from typing import Final

from ingest.formats import Format
from ingest.prepared import quoted

_TO_MS: Final = {"s": "* 1e3", "ms": "", "us": "/ 1e3", "ns": "/ 1e6"}
_TO_US: Final = {"s": "* 1e6", "ms": "* 1e3", "us": ""}
_EARLIEST_US: Final = 946_684_800_000_000  # 2000-01-01
_LATEST_US: Final = 4_102_444_800_000_000  # 2100-01-01

GATEWAY_REASONS: Final = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "no_route",
    408: "request_timeout",
    413: "request_too_large",
    414: "uri_too_long",
    429: "too_many_requests",
    431: "headers_too_large",
    444: "connection_closed",
    494: "headers_too_large",
    495: "bad_client_certificate",
    496: "no_client_certificate",
    497: "plain_http_on_https_port",
    499: "client_closed_request",
    500: "gateway_error",
    502: "bad_gateway",
    503: "service_unavailable",
    504: "gateway_timeout",
}
"""Why a gateway answers itself, by HTTP status (RFC 9110; 444 and 494 to 499 are nginx's own)."""

# Statuses that a proxy makes and an API behind it does not, for logs that say neither body nor upstream.
_PROXY_STATUSES: Final = "408, 414, 431, 444, 494, 495, 496, 497, 499, 502, 503, 504"

MACROS: Final = r"""
CREATE OR REPLACE MACRO is_word(segment) AS
    regexp_full_match(segment, '\.{0,2}|\{[A-Za-z_]+\}|:[A-Za-z_]+'
        '|[vV][0-9]{1,3}(?:\.[0-9]{1,3}){0,2}(?:alpha|beta)?[0-9]?'
        '|oauth2|oidc2|s3|k8s|i18n|ipv[46]|md5|sha(?:1|256|512)|base64|2fa|mp[34]|e164|10dlc|web3'
        '|\.?[A-Za-z]+(?:[._~-]+[A-Za-z]+)*')
    AND length(segment) <= 32
    AND NOT regexp_matches(segment, '[bcdfghjklmnpqrstvwxzBCDFGHJKLMNPQRSTVWXZ]{6}');
CREATE OR REPLACE MACRO is_route(path) AS
    regexp_full_match(path, '(?:/(?:v[0-9]{1,3}|[a-z]{1,32}|\{id\}))+')
    AND NOT regexp_matches(path, '[bcdfghjklmnpqrstvwxz]{6}');
CREATE OR REPLACE MACRO with_plain_ids_folded(path) AS
    regexp_replace(path, '/(?:\{org_id\}|(?:[A-Za-z]{1,12}[_-])?[0-9a-zA-Z-]*[0-9][0-9a-zA-Z-]{8,})', '/{id}', 'g');
CREATE OR REPLACE MACRO route_of(path, folded) AS
    CASE WHEN is_route(folded) THEN folded
    ELSE array_to_string(list_transform(string_split(replace(path, '{org_id}', '{id}'), '/'), lambda segment:
        CASE WHEN is_word(segment) THEN segment ELSE '{id}' END), '/') END;
CREATE OR REPLACE MACRO without_own_org(path, org) AS
    CASE WHEN length(org) >= 4 AND contains(path, org)
        THEN replace(path || '//', '/' || org || '/', '/{org_id}/')[:-3] ELSE path END;
CREATE OR REPLACE MACRO duration_ms(value) AS
    CASE WHEN regexp_full_match(value, '\+?(?:[0-9]+h)?(?:[0-9]+m)?(?:[0-9]+(?:\.[0-9]+)?(?:s|ms|us|µs|μs|ns))?')
        AND value <> ''
    THEN coalesce(TRY_CAST(regexp_extract(value, '([0-9]+)h', 1) AS DOUBLE), 0) * 3600000
        + coalesce(TRY_CAST(regexp_extract(value, '([0-9]+)m(?:[0-9]|$)', 1) AS DOUBLE), 0) * 60000
        + coalesce(TRY_CAST(regexp_extract(value, '([0-9.]+)(?:s|ms|us|µs|μs|ns)$', 1) AS DOUBLE), 0)
            * CASE regexp_extract(value, '[a-zµμ]*$') WHEN 's' THEN 1000 WHEN 'ms' THEN 1 WHEN 'ns' THEN 0.000001
                WHEN 'us' THEN 0.001 WHEN 'µs' THEN 0.001 WHEN 'μs' THEN 0.001 ELSE 0 END
    END;
CREATE OR REPLACE MACRO if_duration(value) AS CASE WHEN value BETWEEN 0 AND 1e12 THEN value END;
CREATE OR REPLACE MACRO first_address(value) AS CASE
    WHEN regexp_full_match(value, '[0-9.]+:[0-9]+') THEN split_part(value, ':', 1)
    WHEN starts_with(value, '[') THEN regexp_extract(value, '^\[([^\]]*)\]', 1)
    ELSE value END;
CREATE OR REPLACE MACRO target_of(path) AS
    CASE WHEN starts_with(path, 'http') AND regexp_matches(path, '^https?://')
    THEN coalesce(nullif(regexp_replace(path, '^https?://[^/?#]*', ''), ''), '/') ELSE path END;
CREATE OR REPLACE MACRO last_try(value) AS
    coalesce(TRY_CAST(value AS DOUBLE), TRY_CAST(regexp_extract(value, '([0-9.]+)[^0-9.]*$', 1) AS DOUBLE));
"""
"""A path segment is an id unless it is made of words: a digit makes it one, save in versions and technical names.

The caller's own org_id is one whatever it looks like. `route_of(path, with_plain_ids_folded(path))` is the route: most
paths need no look at each segment.
"""


def canonical_sql(layout: Format, records: str) -> str:
    """A query that gives the request columns of the contract from `records`, a query of the schema `careful.RECORDS`.

    Without `gateway` and `source_id`, which are the same in every row. Beside them: `day`, `kind`, `reject_reason`
    (null for a request), `is_refused`, and `presented_key`, `idempotency_key` and `recipient`, all raw.
    """
    # A macro repeats its argument, and CASE evaluates each of them: so every step is a SELECT of its own.
    targeted = f"""
        SELECT * REPLACE (
            split_part({_target(layout)}, '?', 1) AS path, {_first_of_list("client_ip", layout)} AS client_ip)
        FROM ({_requested(layout, records)})"""
    timed = f"""
        SELECT * REPLACE (
                {_status(layout)} AS status,
                {_latency(layout)} AS latency_ms,
                {_ms("upstream_ms", layout, "last_try({})")} AS upstream_ms,
                {_address(layout)} AS client_ip,
                {_decoded("user_agent", layout)} AS user_agent,
                without_own_org(path, org_id) AS path
            ),
            {_ts_us("ts", layout)} AS logged_us
        FROM ({targeted})"""
    latency_us = "coalesce((latency_ms * 1e3)::BIGINT, 0)"
    ended_us = f"TRY(logged_us + {latency_us})" if layout.ts_is == "start" else "logged_us"
    answered = f"""
        SELECT * REPLACE (
                make_timestamptz(CASE WHEN {ended_us} BETWEEN {_EARLIEST_US} AND {_LATEST_US} THEN {ended_us} END) AS ts
            ),
            code IS NOT NULL OR status >= 400 AS is_error,
            CASE
                WHEN code IS NOT NULL OR {_said_upstream(layout)} THEN 'upstream'
                WHEN status < 400 THEN CASE WHEN {_upstream_answered(layout)} THEN 'upstream' ELSE 'gateway' END
                WHEN is_html OR status IN ({_PROXY_STATUSES}) OR NOT {_upstream_answered(layout)} THEN 'gateway'
                WHEN status = 400 AND method IS NULL THEN 'gateway'
                ELSE 'upstream'
            END AS origin
        FROM ({timed})"""
    reasons = " ".join(f"WHEN {status} THEN '{reason}'" for status, reason in GATEWAY_REASONS.items())
    return f"""
        SELECT line, ts, coalesce(envelope_request_id, request_id) AS request_id, org_id, key_id,
            api_key AS presented_key, client_ip, user_agent, method, path, status, code, message, docs_url, details,
            CASE WHEN is_error THEN recipient END AS recipient,
            TRY_CAST(retry_after_s AS DOUBLE) AS retry_after_s, idempotency_key, latency_ms, upstream_ms,
            TRY_CAST(response_bytes AS BIGINT) AS response_bytes, origin, host, is_refused,
            CASE WHEN is_error THEN body_state END AS body_state,
            CASE WHEN is_error AND origin = 'gateway'
                THEN coalesce({_own_reason(layout)}, CASE status {reasons} ELSE 'status_' || status END)
            END AS gateway_reason,
            ts::DATE AS day,
            CASE WHEN is_error THEN 'error' ELSE 'ok' END AS kind,
            CASE WHEN logged_us IS NULL THEN 'no_timestamp' WHEN ts IS NULL THEN 'impossible_timestamp'
                WHEN status IS NULL OR status NOT BETWEEN 100 AND 999 THEN 'no_status' END AS reject_reason
        FROM ({answered})"""


def plain_sql(layout: Format, successes: str) -> str:
    """As `canonical_sql` over plain successes, without the columns that are null in all of them."""
    return f"""
        SELECT * EXCLUDE (
            code, message, docs_url, details, recipient, body_state, gateway_reason, is_refused, reject_reason)
        FROM ({canonical_sql(layout, successes)})
        WHERE reject_reason IS NULL"""


def _requested(layout: Format, records: str) -> str:
    """`records` with method and path, out of the request line where they have none, and the host of an absolute URL."""
    found = records
    if layout.has("request_line"):
        found = f"SELECT *, regexp_extract(request_line, {_REQUEST}, ['method', 'path']) AS request FROM ({records})"
    requested = f"""
        SELECT * REPLACE (
            coalesce(method, nullif(request.method, '')) AS method, coalesce(path, nullif(request.path, '')) AS path)
        FROM ({found})"""
    host = f"SELECT * REPLACE ({_host(layout)} AS host) FROM ({{}})"
    return host.format(requested if layout.has("request_line") else records)


# The target of a request has such a path in it (RFC 9112, 3.2); the second word of a garbled line may be a secret.
_REQUEST: Final = "'^([A-Za-z]{1,20}) (?:https?://[^/ ]+)?(/[^ ]*)?'"


def _target(layout: Format) -> str:
    return "'/' || ltrim(path, '/')" if layout.unit("path") == "bare" else "target_of(path)"


def _status(layout: Format) -> str:
    status = "TRY_CAST(status AS SMALLINT)"
    if not layout.no_response:
        return status
    # nginx's own status for a client that was gone before it was sent one, which other tools have taken over.
    return (
        f"CASE WHEN {status} IN ({', '.join(str(int(text)) for text in layout.no_response)}) THEN 499 ELSE {status} END"
    )


def _ms(field: str, layout: Format, number: str = "TRY_CAST({} AS DOUBLE)") -> str:
    """A duration in milliseconds, null where it is missing, negative (gateways write -1 for a phase not reached) or
    of more than thirty years."""
    unit = layout.unit(field)
    value = f"duration_ms({field})" if unit == "duration" else f"{number.format(field)} {_TO_MS[unit]}"
    return f"if_duration({value})"


def _latency(layout: Format) -> str:
    latency = _ms("latency_ms", layout)
    if layout.has("transfer_ms"):
        latency = f"{latency} + coalesce({_ms('transfer_ms', layout)}, 0)"
    if layout.has("started"):
        since_started = f"if_duration((({_ts_us('ts', layout)})::DOUBLE - ({_ts_us('started', layout)})::DOUBLE) / 1e3)"
        latency = f"coalesce({latency}, {since_started})"
    return latency


def _first_of_list(field: str, layout: Format) -> str:
    return f"trim(split_part({field}, ',', 1))" if layout.unit(field) == "address" else field


def _address(layout: Format) -> str:
    return "first_address(client_ip)" if layout.unit("client_ip") == "address" else "client_ip"


def _decoded(field: str, layout: Format) -> str:
    return f"coalesce(TRY(url_decode({field})), {field})" if field in layout.percent_encoded else field


def _host(layout: Format) -> str:
    if layout.has("host") or not layout.has("path"):
        return "host"
    return "CASE WHEN starts_with(path, 'http') THEN nullif(regexp_extract(path, '^https?://([^/?#:@]+)', 1), '') END"


def _own_reason(layout: Format) -> str:
    """The gateway's own word for why it answered, where it is a short token and not free text."""
    if not layout.has("gateway_reason"):
        return "NULL"
    return "CASE WHEN regexp_full_match(gateway_reason, '[A-Za-z][A-Za-z0-9_.,:|/-]{0,63}') THEN gateway_reason END"


def _upstream_answered(layout: Format) -> str:
    """SQL that says whether the API behind the gateway answered; by the status alone where the log does not say."""
    answered = f"status NOT IN ({_PROXY_STATUSES})"
    if layout.has("upstream_status"):
        answered = f"coalesce(upstream_status > '-' AND upstream_status NOT IN ('0', '000', '-1'), {answered})"
    if layout.by_upstream or layout.by_gateway:
        cases = [f"WHEN {_answered_by(words)} THEN false" for words in (layout.by_gateway,) if words]
        cases += [f"WHEN {_answered_by(words)} THEN true" for words in (layout.by_upstream,) if words]
        if not (layout.by_upstream and layout.by_gateway):
            cases.append(f"WHEN answered_by > '-' THEN {'false' if layout.by_upstream else 'true'}")
        answered = f"CASE {' '.join(cases)} ELSE {answered} END"
    return f"({answered})"


def _said_upstream(layout: Format) -> str:
    """SQL that says whether the log names the API as who answered: then even a 503 and a page of HTML are its own."""
    return f"coalesce({_answered_by(layout.by_upstream)}, false)" if layout.by_upstream else "false"


def _answered_by(words: tuple[str, ...]) -> str:
    """SQL that says whether `answered_by` is one of `words`, of which an empty one stands for no value."""
    return f"coalesce(nullif(answered_by, '-'), '') IN ({', '.join(map(quoted, words))})"


def _ts_us(field: str, layout: Format) -> str:
    unit = layout.unit("ts")
    match unit:
        case "iso8601" if layout.time_zone == "UTC":
            return f"epoch_us(TRY_CAST({field} AS TIMESTAMPTZ))"
        case "clf":
            return f"epoch_us(try_strptime({field}, '%d/%b/%Y:%H:%M:%S %z'))"
        case "epoch":
            raise ValueError("the magnitude of `ts` decides its unit; settle it before the SQL is built")
        case "ns":
            # Of a number of nanoseconds DOUBLE keeps no more than every 256th.
            whole = f"TRY((TRY_CAST({field} AS BIGINT) + 500) // 1000)"
            return f"coalesce({whole}, TRY_CAST(round(TRY_CAST({field} AS DOUBLE) / 1e3) AS BIGINT))"
        case _ if unit in _TO_US:
            return f"TRY_CAST(round(TRY_CAST({field} AS DOUBLE) {_TO_US[unit]}) AS BIGINT)"
        case _:
            local = f"TRY_CAST({field} AS TIMESTAMP)" if unit == "iso8601" else f"try_strptime({field}, {quoted(unit)})"
            return f"epoch_us({local if '%z' in unit else f'timezone({quoted(layout.time_zone)}, {local})'})"
