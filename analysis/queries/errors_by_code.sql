-- title: Errors by code
-- asks: Which error codes do clients see, how often, and is that more than before?
-- chart: bar(label, errors)
-- param since: first moment, inclusive (UTC date or timestamp); all when NULL
-- param until: last moment, exclusive (UTC date or timestamp); the data-through time when NULL
-- param for_org: only this org_id
-- param for_key: only this caller (key_id, else key_hash, else client_ip)
-- param for_code: only this code
-- param for_route: only this route
-- columns:
--   label: the code; else why the gateway answered itself; else (no code)
--   code: error code of the envelope; NULL where the response had none that could be read
--   origin: upstream (the API) or gateway (the proxy); an envelope is upstream
--   gateway_reason: why the gateway answered itself
--   category: what the code is about, from the catalogue
--   owner: who acts, from the catalogue
--   is_retryable: may a retry of the unchanged request succeed, from the catalogue
--   is_known_code: is the code in the catalogue; NULL without a code
--   errors: errors of the row
--   share: errors / errors of all rows
--   requests: all requests in scope, whatever their answer
--   rate: errors / requests
--   first_seen: earliest error
--   last_seen: latest error
--   orgs: distinct organisations that met it
--   keys: distinct keys (key_id, else key_hash) that met it
--   previous_errors: errors in the equally long period before since; NULL without a since
--   change: errors / previous_errors - 1; NULL where there were none before
CREATE OR REPLACE MACRO errors_by_code(
    since := NULL, until := NULL, for_org := NULL, for_key := NULL, for_code := NULL, for_route := NULL
) AS TABLE
WITH error_cells AS (
    SELECT
        code,
        CASE WHEN code IS NULL THEN origin ELSE 'upstream' END AS origin,
        CASE WHEN code IS NULL THEN gateway_reason END AS gateway_reason,
        org_id,
        key_id,
        key_hash,
        is_current,
        count(*) AS errors,
        min(ts) AS first_seen,
        max(ts) AS last_seen
    FROM errors_with_previous(since, until, for_org, for_key, for_code, for_route)
    GROUP BY ALL
),
error_groups AS (
    SELECT
        code,
        origin,
        gateway_reason,
        sum(errors) FILTER (WHERE is_current) AS errors,
        min(first_seen) FILTER (WHERE is_current) AS first_seen,
        max(last_seen) FILTER (WHERE is_current) AS last_seen,
        count(DISTINCT org_id) FILTER (WHERE is_current) AS orgs,
        count(DISTINCT coalesce(key_id, key_hash)) FILTER (WHERE is_current) AS keys,
        CASE WHEN since IS NOT NULL THEN coalesce(sum(errors) FILTER (WHERE NOT is_current), 0) END AS previous_errors
    FROM error_cells
    GROUP BY ALL
),
all_requests AS (
    SELECT coalesce(sum(requests), 0)::BIGINT AS requests
    FROM request_counts(since, until, for_org, for_key, for_route)
)
SELECT
    coalesce(error_groups.code, error_groups.gateway_reason, '(no code)') AS label,
    error_groups.code,
    error_groups.origin,
    error_groups.gateway_reason,
    catalogue.category,
    catalogue.owner,
    catalogue.is_retryable,
    CASE WHEN error_groups.code IS NOT NULL THEN catalogue.code IS NOT NULL END AS is_known_code,
    error_groups.errors::BIGINT AS errors,
    error_groups.errors / sum(error_groups.errors) OVER () AS share,
    all_requests.requests,
    error_groups.errors / nullif(all_requests.requests, 0) AS rate,
    error_groups.first_seen,
    error_groups.last_seen,
    error_groups.orgs,
    error_groups.keys,
    error_groups.previous_errors::BIGINT AS previous_errors,
    error_groups.errors / nullif(error_groups.previous_errors, 0) - 1 AS change
FROM error_groups
CROSS JOIN all_requests
LEFT JOIN catalogue ON catalogue.code = error_groups.code
WHERE error_groups.errors > 0
ORDER BY errors DESC, label, error_groups.origin;
