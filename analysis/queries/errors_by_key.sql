-- title: Errors by key
-- asks: Which API keys meet errors, what part of their calls fails, and is that more than before?
-- chart: bar(key, errors)
-- param since: first moment, inclusive (UTC date or timestamp); all when NULL
-- param until: last moment, exclusive (UTC date or timestamp); the data-through time when NULL
-- param for_org: only this org_id
-- param for_key: only this caller (key_id, else key_hash, else client_ip)
-- param for_code: only this code
-- param for_route: only this route
-- columns:
--   key: key_id, else the fingerprint of the key that was presented; NULL for all keyless traffic together
--   org_id: organisation of the key's errors (the last in name order, should a key have several)
--   errors: errors of the key
--   share: errors / errors of all rows
--   requests: requests of the key, whatever their answer
--   rate: errors / requests
--   first_seen: earliest error
--   last_seen: latest error
--   codes: distinct error codes
--   orgs: distinct organisations of the errors
--   client_ips: distinct client addresses of the errors
--   previous_errors: errors in the equally long period before since; NULL without a since
--   change: errors / previous_errors - 1; NULL where there were none before
CREATE OR REPLACE MACRO errors_by_key(
    since := NULL, until := NULL, for_org := NULL, for_key := NULL, for_code := NULL, for_route := NULL
) AS TABLE
WITH error_cells AS (
    SELECT
        key_id,
        key_hash,
        code,
        org_id,
        client_ip,
        is_current,
        count(*) AS errors,
        min(ts) AS first_seen,
        max(ts) AS last_seen
    FROM errors_with_previous(since, until, for_org, for_key, for_code, for_route)
    GROUP BY ALL
),
error_groups AS (
    SELECT
        coalesce(key_id, key_hash) AS key,
        max(org_id) FILTER (WHERE is_current) AS org_id,
        sum(errors) FILTER (WHERE is_current) AS errors,
        min(first_seen) FILTER (WHERE is_current) AS first_seen,
        max(last_seen) FILTER (WHERE is_current) AS last_seen,
        count(DISTINCT code) FILTER (WHERE is_current) AS codes,
        count(DISTINCT org_id) FILTER (WHERE is_current) AS orgs,
        count(DISTINCT client_ip) FILTER (WHERE is_current) AS client_ips,
        CASE WHEN since IS NOT NULL THEN coalesce(sum(errors) FILTER (WHERE NOT is_current), 0) END AS previous_errors
    FROM error_cells
    GROUP BY ALL
),
request_groups AS (
    SELECT coalesce(key_id, key_hash) AS key, sum(requests) AS requests
    FROM request_counts(since, until, for_org, for_key, for_route)
    GROUP BY ALL
)
SELECT
    error_groups.key,
    error_groups.org_id,
    error_groups.errors::BIGINT AS errors,
    error_groups.errors / sum(error_groups.errors) OVER () AS share,
    request_groups.requests::BIGINT AS requests,
    error_groups.errors / nullif(request_groups.requests, 0) AS rate,
    error_groups.first_seen,
    error_groups.last_seen,
    error_groups.codes,
    error_groups.orgs,
    error_groups.client_ips,
    error_groups.previous_errors::BIGINT AS previous_errors,
    error_groups.errors / nullif(error_groups.previous_errors, 0) - 1 AS change
FROM error_groups
INNER JOIN request_groups ON request_groups.key IS NOT DISTINCT FROM error_groups.key
WHERE error_groups.errors > 0
ORDER BY errors DESC, error_groups.key NULLS LAST;
