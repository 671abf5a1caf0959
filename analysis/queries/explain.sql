-- title: The story of a request, a key or an organisation
-- asks: What happened to this request, this key or this organisation, and when?
-- chart: none
-- param about: a request_id, a caller (key_id, else key_hash, else client_ip) or an org_id; the caller with most errors
--   when NULL
-- param since: first moment, inclusive (UTC date or timestamp); all when NULL
-- param until: last moment, exclusive (UTC date or timestamp); all when NULL
-- param max_gap_s: errors that are no more than so many seconds apart are one event
-- columns:
--   started_at: end of the first response of the event
--   ended_at: end of its last response
--   event: first request, errors (a run of those of one caller from one address that were answered alike), last success
--     or last request
--   answer: the code, else the gateway's reason, else the status
--   requests: how many requests the event has
--   caller: who asked
--   org_id: its organisation
--   client_ip: from where
--   request_ids: of its first three requests
CREATE OR REPLACE MACRO explain(about := NULL, since := NULL, until := NULL, max_gap_s := 600) AS TABLE
WITH worst AS (
    SELECT max_by(caller, struct_pack(errors := errors, caller := caller)) AS caller
    FROM (
        SELECT caller, count(*) AS errors
        FROM errors
        WHERE caller IS NOT NULL
        GROUP BY ALL
    )
),
-- A request stands for its caller.
named AS (
    SELECT max(caller) AS caller
    FROM errors
    WHERE request_id = about::VARCHAR
),
callers AS (
    SELECT coalesce(named.caller, about::VARCHAR, worst.caller) AS name
    FROM named
    CROSS JOIN worst
),
asked AS (
    SELECT ts, request_id, caller, org_id, client_ip, status, code, gateway_reason, is_error
    FROM requests_in_scope(since, until, NULL, (SELECT name FROM callers), NULL)
    UNION ALL
    SELECT ts, request_id, caller, org_id, client_ip, status, code, gateway_reason, is_error
    FROM requests_in_scope(since, until, (SELECT name FROM callers), NULL, NULL)
),
placed AS (
    SELECT
        ts, request_id, caller, org_id, client_ip, coalesce(code, gateway_reason, status::VARCHAR) AS answer, is_error,
        row_number() OVER (ORDER BY ts, request_id NULLS LAST, caller NULLS LAST) AS place,
        row_number() OVER (ORDER BY ts DESC, request_id DESC NULLS LAST, caller DESC NULLS LAST) AS place_from_end,
        row_number() OVER (
            PARTITION BY is_error
            ORDER BY ts DESC, request_id DESC NULLS LAST, caller DESC NULLS LAST
        ) AS place_of_kind
    FROM asked
),
error_runs AS (
    SELECT started_at, ended_at, answer, errors, caller, org_id, client_ip, request_ids
    FROM runs(since, until, NULL, (SELECT name FROM callers), NULL, max_gap_s)
    UNION ALL
    SELECT started_at, ended_at, answer, errors, caller, org_id, client_ip, request_ids
    FROM runs(since, until, (SELECT name FROM callers), NULL, NULL, max_gap_s)
)
SELECT started_at, ended_at, event, answer, requests, caller, org_id, client_ip, request_ids
FROM (
    SELECT
        ts AS started_at, ts AS ended_at, 'first request' AS event, answer, 1 AS requests, caller, org_id, client_ip,
        list_value(request_id) AS request_ids, 0 AS turn
    FROM placed
    WHERE place = 1
    UNION ALL
    SELECT
        started_at, ended_at, 'errors' AS event, answer, errors AS requests, caller, org_id, client_ip, request_ids,
        1 AS turn
    FROM error_runs
    UNION ALL
    SELECT
        ts AS started_at, ts AS ended_at,
        CASE WHEN place_from_end = 1 THEN 'last request' ELSE 'last success' END AS event,
        answer, 1 AS requests, caller, org_id, client_ip, list_value(request_id) AS request_ids, 2 AS turn
    FROM placed
    WHERE place > 1
      AND (place_from_end = 1 OR (NOT is_error AND place_of_kind = 1))
)
ORDER BY started_at, turn, answer, caller NULLS LAST, client_ip NULLS LAST;
