-- title: Fields that fail validation
-- asks: Which field is sent wrong, by which client software and version, and did a version bring it?
-- codes: validation_failed
-- chart: stacked(field, errors, verdict)
-- param since: first moment, inclusive (UTC date or timestamp); all when NULL
-- param until: last moment, exclusive (UTC date or timestamp); all when NULL
-- param for_org: only this org_id
-- param for_key: only this caller (key_id, else key_hash, else client_ip)
-- param for_route: only this route
-- param min_errors: with fewer errors a row is not enough data
-- param min_requests: versions with fewer requests to the route are not compared with others
-- param one_client_share: from this part of the errors on, one caller makes it "one client"
-- columns:
--   method: HTTP method
--   route: path with its ids folded
--   field: the field that details name, the places in arrays folded: to[17], to.17 and /to/17 are to[]
--   issue: what is wrong with it; quoted values are folded to "..."
--   sdk: software of the client, the first product in its User-Agent; NULL where it names none
--   sdk_version: its version
--   verdict: details not readable (the body was cut, or names no field and no issue), else not enough data, else one
--     client, else since version (the rate jumped with since_version, also if its busiest caller is left out), else
--     many clients
--   errors: requests refused for this field and issue, however often a request has them
--   share: errors / requests refused with validation_failed; a request with two fields counts for each
--   requests: requests of this software and version to the method and route, whatever their answer
--   rate: errors / requests
--   since_version: the version of this software with which the rate jumped: the interval of its rate (Wilson, 99 %)
--     lies above that of the version before; NULL where no version up to this one did, or a later one fixed it
--   previous_version: the version before since_version
--   previous_rate: its rate
--   orgs: distinct organisations
--   keys: distinct callers (key_id, else key_hash, else client_ip)
--   top_caller: the caller with most of the errors
--   top_caller_share: its part of the errors
--   first_seen: earliest error
--   last_seen: latest error
--   example_request_ids: the three latest
CREATE OR REPLACE MACRO validation_fields(
    since := NULL, until := NULL, for_org := NULL, for_key := NULL, for_route := NULL,
    min_errors := 10, min_requests := 20, one_client_share := 0.8
) AS TABLE
WITH refusals AS (
    SELECT
        row_number() OVER (
            ORDER BY ts, source_id NULLS LAST, line NULLS LAST, request_id NULLS LAST, caller NULLS LAST
        ) AS refusal,
        ts, request_id, org_id, caller, method, route,
        product_of(user_agent) AS sdk,
        product_version_of(user_agent) AS sdk_version,
        details
    FROM requests_in_scope(since, until, for_org, for_key, for_route)
    WHERE is_error
      AND code = 'validation_failed'
),
-- A request that names a field and issue twice, to[0] and to[1], has them once.
faults AS (
    SELECT
        refusal, ts, request_id, org_id, caller, method, route, sdk, sdk_version,
        folded_field_of(detail.field) AS field,
        folded_issue_of(detail.issue) AS issue
    FROM (
        SELECT refusal, ts, request_id, org_id, caller, method, route, sdk, sdk_version, unnest(details) AS detail
        FROM refusals
        WHERE coalesce(array_length(details), 0) > 0
    )
    GROUP BY ALL
    UNION ALL
    SELECT
        refusal, ts, request_id, org_id, caller, method, route, sdk, sdk_version,
        NULL AS field,
        NULL AS issue
    FROM refusals
    WHERE coalesce(array_length(details), 0) = 0
),
ranked_faults AS (
    SELECT
        ts, request_id, org_id, caller, method, route, sdk, sdk_version, field, issue,
        row_number() OVER (
            PARTITION BY method, route, sdk, sdk_version, field, issue
            ORDER BY ts DESC, request_id NULLS LAST, refusal
        ) AS recency
    FROM faults
),
cells AS (
    SELECT
        method, route, sdk, sdk_version, field, issue,
        count(*) AS errors,
        count(DISTINCT org_id) AS orgs,
        count(DISTINCT caller) AS keys,
        min(ts) AS first_seen,
        max(ts) AS last_seen,
        list(request_id ORDER BY recency) FILTER (WHERE recency <= 3 AND request_id IS NOT NULL) AS example_request_ids
    FROM ranked_faults
    GROUP BY ALL
),
caller_counts AS (
    SELECT method, route, sdk, sdk_version, field, issue, caller, count(*) AS caller_errors
    FROM faults
    GROUP BY ALL
),
ranked_callers AS (
    SELECT
        method, route, sdk, sdk_version, field, issue, caller, caller_errors,
        row_number() OVER (
            PARTITION BY method, route, sdk, sdk_version, field, issue
            ORDER BY caller_errors DESC, caller NULLS LAST
        ) AS caller_rank
    FROM caller_counts
),
-- Of all requests to the routes concerned three columns are read, and User-Agents are taken apart once each.
agents AS (
    SELECT asked.method, asked.route, asked.user_agent, count(*) AS requests
    FROM requests_in_scope(since, until, for_org, for_key, for_route) AS asked
    INNER JOIN (SELECT DISTINCT method, route FROM refusals) AS concerned
        ON concerned.method IS NOT DISTINCT FROM asked.method
        AND concerned.route IS NOT DISTINCT FROM asked.route
    GROUP BY ALL
),
versions AS (
    SELECT
        method, route,
        product_of(user_agent) AS sdk,
        product_version_of(user_agent) AS sdk_version,
        sum(requests) AS requests
    FROM agents
    GROUP BY ALL
),
-- Every version of the software that sent a field wrong, also those that did not.
rates AS (
    SELECT
        faulty.method, faulty.route, faulty.sdk, faulty.field, faulty.issue,
        versions.sdk_version,
        versions.requests,
        coalesce(cells.errors, 0) AS errors,
        coalesce(cells.errors - ranked_callers.caller_errors, 0) AS errors_of_others
    FROM (
        SELECT DISTINCT method, route, sdk, field, issue
        FROM cells
        WHERE sdk_version IS NOT NULL
          AND (field IS NOT NULL OR issue IS NOT NULL)
    ) AS faulty
    INNER JOIN versions
        ON versions.sdk = faulty.sdk
        AND versions.method IS NOT DISTINCT FROM faulty.method
        AND versions.route IS NOT DISTINCT FROM faulty.route
        AND versions.sdk_version IS NOT NULL
        AND versions.requests >= min_requests
    LEFT JOIN cells
        ON cells.sdk = faulty.sdk
        AND cells.sdk_version = versions.sdk_version
        AND cells.method IS NOT DISTINCT FROM faulty.method
        AND cells.route IS NOT DISTINCT FROM faulty.route
        AND cells.field IS NOT DISTINCT FROM faulty.field
        AND cells.issue IS NOT DISTINCT FROM faulty.issue
    LEFT JOIN ranked_callers
        ON ranked_callers.sdk = cells.sdk
        AND ranked_callers.sdk_version = cells.sdk_version
        AND ranked_callers.method IS NOT DISTINCT FROM cells.method
        AND ranked_callers.route IS NOT DISTINCT FROM cells.route
        AND ranked_callers.field IS NOT DISTINCT FROM cells.field
        AND ranked_callers.issue IS NOT DISTINCT FROM cells.issue
        AND ranked_callers.caller_rank = 1
),
compared AS (
    SELECT
        method, route, sdk, field, issue, sdk_version, requests, errors, errors_of_others,
        lag(sdk_version) OVER releases AS previous_version,
        lag(errors) OVER releases AS previous_errors,
        lag(requests) OVER releases AS previous_requests
    FROM rates
    WINDOW releases AS (
        PARTITION BY method, route, sdk, field, issue
        ORDER BY version_order_of(sdk_version)
    )
),
jumps AS (
    SELECT
        method, route, sdk, field, issue, sdk_version, previous_version, previous_errors, previous_requests,
        coalesce(
            wilson_low(errors, requests, 2.576) > wilson_high(previous_errors, previous_requests, 2.576), false
        ) AS is_jump,
        coalesce(
            wilson_high(errors, requests, 2.576) < wilson_low(previous_errors, previous_requests, 2.576), false
        ) AS is_fix,
        coalesce(
            wilson_low(errors_of_others, requests, 2.576) > wilson_high(previous_errors, previous_requests, 2.576),
            false
        ) AS is_jump_of_others
    FROM compared
),
-- An era begins with a version that changes the rate, and goes on until the next that does.
numbered_eras AS (
    SELECT
        method, route, sdk, field, issue, sdk_version, previous_version, previous_errors, previous_requests, is_jump,
        is_jump_of_others,
        sum(CASE WHEN is_jump OR is_fix THEN 1 ELSE 0 END) OVER (
            PARTITION BY method, route, sdk, field, issue
            ORDER BY version_order_of(sdk_version)
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS era
    FROM jumps
),
eras AS (
    SELECT
        method, route, sdk, field, issue, era,
        max(sdk_version) AS since_version,
        max(previous_version) AS previous_version,
        max(previous_errors / nullif(previous_requests, 0)) AS previous_rate,
        bool_or(is_jump_of_others) AS is_jump_of_others
    FROM numbered_eras
    WHERE is_jump
    GROUP BY ALL
),
origins AS (
    SELECT
        numbered_eras.method, numbered_eras.route, numbered_eras.sdk, numbered_eras.field, numbered_eras.issue,
        numbered_eras.sdk_version, eras.since_version, eras.previous_version, eras.previous_rate,
        eras.is_jump_of_others
    FROM numbered_eras
    INNER JOIN eras
        ON eras.sdk = numbered_eras.sdk
        AND eras.method IS NOT DISTINCT FROM numbered_eras.method
        AND eras.route IS NOT DISTINCT FROM numbered_eras.route
        AND eras.field IS NOT DISTINCT FROM numbered_eras.field
        AND eras.issue IS NOT DISTINCT FROM numbered_eras.issue
        AND eras.era = numbered_eras.era
)
SELECT
    cells.method,
    cells.route,
    cells.field,
    cells.issue,
    cells.sdk,
    cells.sdk_version,
    CASE
        WHEN cells.field IS NULL AND cells.issue IS NULL THEN 'details not readable'
        WHEN cells.errors < min_errors THEN 'not enough data'
        WHEN ranked_callers.caller_errors >= one_client_share * cells.errors THEN 'one client'
        WHEN origins.is_jump_of_others THEN 'since version'
        ELSE 'many clients'
    END AS verdict,
    cells.errors,
    cells.errors / (SELECT nullif(count(*), 0) FROM refusals) AS share,
    versions.requests::BIGINT AS requests,
    cells.errors / versions.requests AS rate,
    origins.since_version,
    origins.previous_version,
    origins.previous_rate,
    cells.orgs,
    cells.keys,
    ranked_callers.caller AS top_caller,
    ranked_callers.caller_errors / cells.errors AS top_caller_share,
    cells.first_seen,
    cells.last_seen,
    cells.example_request_ids
FROM cells
INNER JOIN versions
    ON versions.method IS NOT DISTINCT FROM cells.method
    AND versions.route IS NOT DISTINCT FROM cells.route
    AND versions.sdk IS NOT DISTINCT FROM cells.sdk
    AND versions.sdk_version IS NOT DISTINCT FROM cells.sdk_version
INNER JOIN ranked_callers
    ON ranked_callers.method IS NOT DISTINCT FROM cells.method
    AND ranked_callers.route IS NOT DISTINCT FROM cells.route
    AND ranked_callers.sdk IS NOT DISTINCT FROM cells.sdk
    AND ranked_callers.sdk_version IS NOT DISTINCT FROM cells.sdk_version
    AND ranked_callers.field IS NOT DISTINCT FROM cells.field
    AND ranked_callers.issue IS NOT DISTINCT FROM cells.issue
    AND ranked_callers.caller_rank = 1
LEFT JOIN origins
    ON origins.sdk = cells.sdk
    AND origins.sdk_version = cells.sdk_version
    AND origins.method IS NOT DISTINCT FROM cells.method
    AND origins.route IS NOT DISTINCT FROM cells.route
    AND origins.field IS NOT DISTINCT FROM cells.field
    AND origins.issue IS NOT DISTINCT FROM cells.issue
ORDER BY
    cells.errors DESC, cells.route NULLS LAST, cells.method NULLS LAST, cells.field NULLS LAST, cells.issue NULLS LAST,
    cells.sdk NULLS LAST, cells.sdk_version NULLS LAST;
