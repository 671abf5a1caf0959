-- title: Scope misuse
-- asks: Which keys are refused for lack of scope, and is that a wrong key, a missing grant, a regression or probing?
-- codes: insufficient_scope, scope_invalid
-- chart: stacked(route, refused, verdict)
-- param since: first moment, inclusive (UTC date or timestamp); all when NULL
-- param until: last moment, exclusive (UTC date or timestamp); all when NULL
-- param for_org: only this org_id
-- param for_key: only this caller (key_id, else key_hash, else client_ip)
-- param for_route: only this route; the verdict still weighs all routes
-- param min_probed_routes: so many refused routes of one caller are probing
-- param max_probe_success: as long as no greater part of its requests succeeds
-- columns:
--   caller: key_id, else key_hash, else client_ip
--   org_id: organisation of the refused requests
--   method: HTTP method
--   route: path with its ids folded
--   verdict: probing (the caller is refused on min_probed_routes and hardly succeeds anywhere), else personal key (it
--     met scope_invalid on an organization-only resource), else regression (the caller succeeded here before), else
--     wrong key (another key of the organisation succeeds here), else missing grant
--   refused: requests refused with insufficient_scope or scope_invalid
--   codes: the codes of the refusals, in name order
--   refused_paths: distinct paths among them; many on one route are other objects tried
--   caller_refused_routes: every method and route that the caller is refused on, in name order
--   caller_requests: requests of the caller in scope, whatever their answer
--   caller_success_rate: the part of them that succeeded
--   own_successes: successes of the caller on this method and route, also from before since
--   last_own_success: the latest of them; after last_seen, the refusals are over
--   sibling_key: the key of the organisation with most successes on this method and route, also from before since
--   sibling_successes: its successes there
--   first_seen: earliest refusal
--   last_seen: latest refusal
--   example_request_ids: the three latest refusals
CREATE OR REPLACE MACRO scope_misuse(
    since := NULL, until := NULL, for_org := NULL, for_key := NULL, for_route := NULL,
    min_probed_routes := 5, max_probe_success := 0.05
) AS TABLE
WITH refusals AS (
    SELECT
        caller, org_id, method, route, path, code, ts, request_id,
        row_number() OVER (
            PARTITION BY caller, org_id, method, route
            ORDER BY ts DESC, request_id
        ) AS recency
    FROM requests_in_scope(since, until, for_org, for_key, NULL)
    WHERE is_error
      AND code IN ('insufficient_scope', 'scope_invalid')
),
cells AS (
    SELECT
        caller,
        org_id,
        method,
        route,
        count(*) AS refused,
        list_sort(list(DISTINCT code)) AS codes,
        bool_or(code = 'scope_invalid') AS is_personal_key,
        count(DISTINCT path) AS refused_paths,
        min(ts) AS first_seen,
        max(ts) AS last_seen,
        list(request_id ORDER BY recency) FILTER (WHERE recency <= 3 AND request_id IS NOT NULL) AS example_request_ids
    FROM refusals
    GROUP BY ALL
),
refused_callers AS (
    SELECT
        caller,
        count(DISTINCT coalesce(method, '') || ' ' || coalesce(route, '')) AS refused_routes,
        list_sort(list(DISTINCT coalesce(method, '') || ' ' || coalesce(route, ''))) AS caller_refused_routes
    FROM refusals
    GROUP BY ALL
),
-- What the refused organisations, and refused callers without one, ever asked: a success may lie before `since`.
traffic AS (
    SELECT
        org_id,
        caller,
        key_id IS NOT NULL OR key_hash IS NOT NULL AS is_keyed,
        method,
        route,
        coalesce(sum(requests) FILTER (WHERE is_current), 0)::BIGINT AS requests,
        coalesce(sum(requests) FILTER (WHERE NOT is_error AND is_current), 0)::BIGINT AS successes_in_scope,
        coalesce(sum(requests) FILTER (WHERE NOT is_error), 0)::BIGINT AS successes,
        min(first_ts) FILTER (WHERE NOT is_error) AS first_success,
        max(last_ts) FILTER (WHERE NOT is_error) AS last_success
    FROM (
        SELECT org_id, caller, key_id, key_hash, method, route, is_error, requests, first_ts, last_ts, true AS is_current
        FROM request_counts(since, until, NULL, NULL, NULL)
        UNION ALL
        SELECT org_id, caller, key_id, key_hash, method, route, is_error, requests, first_ts, last_ts, false AS is_current
        FROM request_counts(NULL, least(since::TIMESTAMP, until::TIMESTAMP), NULL, NULL, NULL)
        WHERE since IS NOT NULL
    )
    WHERE org_id IN (SELECT org_id FROM refusals)
       OR (org_id IS NULL AND caller IN (SELECT caller FROM refusals))
    GROUP BY ALL
),
caller_totals AS (
    SELECT
        caller,
        sum(requests) AS caller_requests,
        sum(successes_in_scope) / nullif(sum(requests), 0) AS caller_success_rate
    FROM traffic
    WHERE for_org IS NULL OR org_id = for_org
    GROUP BY ALL
),
own_traffic AS (
    SELECT
        caller, org_id, method, route,
        sum(successes) AS own_successes,
        min(first_success) AS first_own_success,
        max(last_success) AS last_own_success
    FROM traffic
    GROUP BY ALL
),
siblings AS (
    SELECT
        cells.caller, cells.org_id, cells.method, cells.route,
        traffic.caller AS sibling_key,
        traffic.successes AS sibling_successes,
        row_number() OVER (
            PARTITION BY cells.caller, cells.org_id, cells.method, cells.route
            ORDER BY traffic.successes DESC, traffic.caller
        ) AS sibling_rank
    FROM cells
    INNER JOIN traffic
        ON traffic.org_id = cells.org_id
        AND traffic.method IS NOT DISTINCT FROM cells.method
        AND traffic.route IS NOT DISTINCT FROM cells.route
    WHERE traffic.is_keyed
      AND traffic.caller <> cells.caller
      AND traffic.successes > 0
)
SELECT
    cells.caller,
    cells.org_id,
    cells.method,
    cells.route,
    CASE
        WHEN refused_callers.refused_routes >= min_probed_routes
            AND caller_totals.caller_success_rate < max_probe_success THEN 'probing'
        WHEN cells.is_personal_key THEN 'personal key'
        WHEN own_traffic.first_own_success < cells.first_seen THEN 'regression'
        WHEN siblings.sibling_key IS NOT NULL THEN 'wrong key'
        ELSE 'missing grant'
    END AS verdict,
    cells.refused,
    cells.codes,
    cells.refused_paths,
    refused_callers.caller_refused_routes,
    caller_totals.caller_requests::BIGINT AS caller_requests,
    caller_totals.caller_success_rate,
    own_traffic.own_successes::BIGINT AS own_successes,
    own_traffic.last_own_success,
    siblings.sibling_key,
    siblings.sibling_successes,
    cells.first_seen,
    cells.last_seen,
    cells.example_request_ids
FROM cells
INNER JOIN refused_callers ON refused_callers.caller = cells.caller
INNER JOIN caller_totals ON caller_totals.caller = cells.caller
INNER JOIN own_traffic
    ON own_traffic.caller = cells.caller
    AND own_traffic.org_id IS NOT DISTINCT FROM cells.org_id
    AND own_traffic.method IS NOT DISTINCT FROM cells.method
    AND own_traffic.route IS NOT DISTINCT FROM cells.route
LEFT JOIN siblings
    ON siblings.caller = cells.caller
    AND siblings.org_id IS NOT DISTINCT FROM cells.org_id
    AND siblings.method IS NOT DISTINCT FROM cells.method
    AND siblings.route IS NOT DISTINCT FROM cells.route
    AND siblings.sibling_rank = 1
WHERE for_route IS NULL OR cells.route = for_route
ORDER BY
    cells.refused DESC, cells.caller, cells.org_id NULLS LAST, cells.route NULLS LAST, cells.method NULLS LAST;
