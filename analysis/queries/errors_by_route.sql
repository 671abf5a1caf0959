-- title: Errors by route
-- asks: Which routes answer with errors, what part of their calls fails, and is that more than before?
-- chart: stacked(route, errors, method)
-- param since: first moment, inclusive (UTC date or timestamp); all when NULL
-- param until: last moment, exclusive (UTC date or timestamp); the data-through time when NULL
-- param for_org: only this org_id
-- param for_key: only this caller (key_id, else key_hash, else client_ip)
-- param for_code: only this code
-- param for_route: only this route
-- columns:
--   method: HTTP method
--   route: path with its ids folded
--   errors: errors of the method on the route
--   share: errors / errors of all rows
--   requests: requests of the method on the route, whatever their answer
--   rate: errors / requests
--   first_seen: earliest error
--   last_seen: latest error
--   codes: distinct error codes
--   orgs: distinct organisations that met them
--   keys: distinct keys (key_id, else key_hash) that met them
--   previous_errors: errors in the equally long period before since; NULL without a since
--   change: errors / previous_errors - 1; NULL where there were none before
CREATE OR REPLACE MACRO errors_by_route(
    since := NULL, until := NULL, for_org := NULL, for_key := NULL, for_code := NULL, for_route := NULL
) AS TABLE
WITH code_cells AS (
    SELECT
        method,
        route,
        code,
        is_current,
        count(*) AS errors,
        min(ts) AS first_seen,
        max(ts) AS last_seen
    FROM errors_with_previous(since, until, for_org, for_key, for_code, for_route)
    GROUP BY ALL
),
error_groups AS (
    SELECT
        method,
        route,
        sum(errors) FILTER (WHERE is_current) AS errors,
        min(first_seen) FILTER (WHERE is_current) AS first_seen,
        max(last_seen) FILTER (WHERE is_current) AS last_seen,
        count(DISTINCT code) FILTER (WHERE is_current) AS codes,
        CASE WHEN since IS NOT NULL THEN coalesce(sum(errors) FILTER (WHERE NOT is_current), 0) END AS previous_errors
    FROM code_cells
    GROUP BY ALL
),
key_cells AS (
    SELECT DISTINCT method, route, org_id, key_id, key_hash
    FROM errors_with_previous(since, until, for_org, for_key, for_code, for_route)
    WHERE is_current
),
affected AS (
    SELECT
        method,
        route,
        count(DISTINCT org_id) AS orgs,
        count(DISTINCT coalesce(key_id, key_hash)) AS keys
    FROM key_cells
    GROUP BY ALL
),
request_groups AS (
    SELECT method, route, sum(requests)::BIGINT AS requests
    FROM request_counts(since, until, for_org, for_key, for_route)
    GROUP BY ALL
)
SELECT
    error_groups.method,
    error_groups.route,
    error_groups.errors::BIGINT AS errors,
    error_groups.errors / sum(error_groups.errors) OVER () AS share,
    request_groups.requests,
    error_groups.errors / nullif(request_groups.requests, 0) AS rate,
    error_groups.first_seen,
    error_groups.last_seen,
    error_groups.codes,
    affected.orgs,
    affected.keys,
    error_groups.previous_errors::BIGINT AS previous_errors,
    error_groups.errors / nullif(error_groups.previous_errors, 0) - 1 AS change
FROM error_groups
INNER JOIN affected
    ON affected.method IS NOT DISTINCT FROM error_groups.method
    AND affected.route IS NOT DISTINCT FROM error_groups.route
INNER JOIN request_groups
    ON request_groups.method IS NOT DISTINCT FROM error_groups.method
    AND request_groups.route IS NOT DISTINCT FROM error_groups.route
WHERE error_groups.errors > 0
ORDER BY errors DESC, error_groups.route NULLS LAST, error_groups.method NULLS LAST;
