-- title: Errors by fault
-- asks: How much of the traffic fails, how much of that is the platform's fault, and is that more than before?
-- chart: bar(fault, errors)
-- param since: first moment, inclusive (UTC date or timestamp); all when NULL
-- param until: last moment, exclusive (UTC date or timestamp); the data-through time when NULL
-- param for_org: only this org_id
-- param for_key: only this caller (key_id, else key_hash, else client_ip)
-- param for_code: only this code
-- param for_route: only this route
-- columns:
--   fault: rate_limited (status 429, or a code that comes with it); platform (a code that the platform owns, or without a
--     known code a status of 500 and above); client (every other error). One row each, also where it has no errors
--   errors: errors of the row
--   share: errors / errors of all rows
--   requests: all requests in scope, whatever their answer
--   rate: errors / requests
--   first_seen: earliest error
--   last_seen: latest error
--   previous_errors: errors in the equally long period before since; NULL without a since
--   previous_requests: requests in that period
--   previous_rate: previous_errors / previous_requests
--   change: errors / previous_errors - 1; NULL where there were none before
CREATE OR REPLACE MACRO errors_by_fault(
    since := NULL, until := NULL, for_org := NULL, for_key := NULL, for_code := NULL, for_route := NULL
) AS TABLE
WITH all_requests AS (
    SELECT coalesce(sum(requests), 0)::BIGINT AS requests
    FROM request_counts(since, until, for_org, for_key, for_route)
),
earlier_requests AS (
    SELECT coalesce(sum(requests), 0)::BIGINT AS requests
    FROM request_counts(make_timestamp(previous_since_us(since, until)), since, for_org, for_key, for_route)
    WHERE since IS NOT NULL
),
error_cells AS (
    SELECT true AS is_current, status, code, count(*) AS errors, min(ts) AS first_seen, max(ts) AS last_seen
    FROM requests_in_scope(since, until, for_org, for_key, for_route)
    WHERE is_error AND (for_code IS NULL OR code = for_code)
    GROUP BY ALL
    UNION ALL
    SELECT false AS is_current, status, code, count(*) AS errors, NULL AS first_seen, NULL AS last_seen
    FROM requests_in_scope(make_timestamp(previous_since_us(since, until)), since, for_org, for_key, for_route)
    WHERE since IS NOT NULL AND is_error AND (for_code IS NULL OR code = for_code)
    GROUP BY ALL
),
judged_cells AS (
    SELECT
        fault_of(error_cells.status, catalogue.http_status, catalogue.owner) AS fault,
        error_cells.is_current,
        error_cells.errors,
        error_cells.first_seen,
        error_cells.last_seen
    FROM error_cells
    LEFT JOIN catalogue ON catalogue.code = error_cells.code
),
faults AS (
    SELECT unnest(['rate_limited', 'platform', 'client']) AS fault
),
fault_groups AS (
    SELECT
        faults.fault,
        coalesce(sum(judged_cells.errors) FILTER (WHERE judged_cells.is_current), 0) AS errors,
        min(judged_cells.first_seen) AS first_seen,
        max(judged_cells.last_seen) AS last_seen,
        CASE WHEN since IS NOT NULL
            THEN coalesce(sum(judged_cells.errors) FILTER (WHERE NOT judged_cells.is_current), 0)
        END AS previous_errors
    FROM faults
    LEFT JOIN judged_cells ON judged_cells.fault = faults.fault
    GROUP BY ALL
)
SELECT
    fault_groups.fault,
    fault_groups.errors::BIGINT AS errors,
    fault_groups.errors / nullif(sum(fault_groups.errors) OVER (), 0) AS share,
    all_requests.requests,
    fault_groups.errors / nullif(all_requests.requests, 0) AS rate,
    fault_groups.first_seen,
    fault_groups.last_seen,
    fault_groups.previous_errors::BIGINT AS previous_errors,
    CASE WHEN since IS NOT NULL THEN earlier_requests.requests END AS previous_requests,
    fault_groups.previous_errors / nullif(earlier_requests.requests, 0) AS previous_rate,
    fault_groups.errors / nullif(fault_groups.previous_errors, 0) - 1 AS change
FROM fault_groups
CROSS JOIN all_requests
CROSS JOIN earlier_requests
WHERE all_requests.requests + earlier_requests.requests > 0
ORDER BY errors DESC, fault_groups.fault;
