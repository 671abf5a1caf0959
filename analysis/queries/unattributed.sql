-- title: Unattributed errors
-- asks: Which errors cannot be laid to an organisation or a key, where do they come from, and why?
-- chart: stacked(source, errors, reason)
-- param since: first moment, inclusive (UTC date or timestamp); all when NULL
-- param until: last moment, exclusive (UTC date or timestamp); all when NULL
-- param for_route: only this route
-- columns:
--   code: error code; NULL where the response had none
--   gateway_reason: why the gateway answered itself; NULL where it did not
--   route: path with its ids folded
--   source: name of the source in the ledger
--   missing: what the errors lack: org and key, org, or key (key_id and key_hash)
--   reason: no key sent (missing_api_key), else unknown key (invalid_api_key), else not logged (no request of the source
--     has what is missing: its log does not name it), else gateway answered, else body not read (the log holds none, or
--     none that can be decoded), else answered before the key was checked (the API does not say for whom)
--   errors: errors of the row
--   share: errors / all errors in scope
--   client_ips: distinct client addresses of the errors
--   first_seen: earliest error
--   last_seen: latest error
--   example_request_ids: the three latest errors
CREATE OR REPLACE MACRO unattributed(since := NULL, until := NULL, for_route := NULL) AS TABLE
WITH all_errors AS (
    SELECT count(*) AS errors_in_scope
    FROM requests
    WHERE kind = 'error'
      AND (since IS NULL OR (day >= since::TIMESTAMP::DATE AND ts >= utc_moment(since)))
      AND (until IS NULL OR (day <= until::TIMESTAMP::DATE AND ts < utc_moment(until)))
      AND (for_route IS NULL OR route = for_route)
),
nameless_errors AS (
    SELECT
        code, gateway_reason, route, source_id, client_ip, ts, request_id, origin, body_state,
        org_id IS NULL AS lacks_org,
        key_id IS NULL AND key_hash IS NULL AS lacks_key
    FROM requests
    WHERE kind = 'error'
      AND (org_id IS NULL OR (key_id IS NULL AND key_hash IS NULL))
      AND (since IS NULL OR (day >= since::TIMESTAMP::DATE AND ts >= utc_moment(since)))
      AND (until IS NULL OR (day <= until::TIMESTAMP::DATE AND ts < utc_moment(until)))
      AND (for_route IS NULL OR route = for_route)
),
attributed_errors AS (
    SELECT
        source_id,
        bool_or(org_id IS NOT NULL) AS has_org,
        bool_or(key_id IS NOT NULL OR key_hash IS NOT NULL) AS has_key
    FROM requests
    WHERE kind = 'error'
    GROUP BY ALL
),
-- The successes, which are many, are asked only of the sources whose errors name nobody.
attributed_successes AS (
    SELECT
        source_id,
        bool_or(org_id IS NOT NULL) AS has_org,
        bool_or(key_id IS NOT NULL OR key_hash IS NOT NULL) AS has_key
    FROM requests
    WHERE kind = 'ok'
      AND (source_id IN (SELECT source_id FROM attributed_errors WHERE NOT has_org OR NOT has_key)) IS TRUE
    GROUP BY ALL
),
attributed_sources AS (
    SELECT source_id, bool_or(has_org) AS has_org, bool_or(has_key) AS has_key
    FROM (
        SELECT source_id, has_org, has_key
        FROM attributed_errors
        UNION ALL
        SELECT source_id, has_org, has_key
        FROM attributed_successes
    )
    GROUP BY ALL
),
source_names AS (
    SELECT source_id, min(name) AS name
    FROM sources
    GROUP BY ALL
),
unattributed_errors AS (
    SELECT
        nameless_errors.code,
        nameless_errors.gateway_reason,
        nameless_errors.route,
        coalesce(source_names.name, nameless_errors.source_id) AS source,
        CASE
            WHEN nameless_errors.lacks_org AND nameless_errors.lacks_key THEN 'org and key'
            WHEN nameless_errors.lacks_org THEN 'org'
            ELSE 'key'
        END AS missing,
        CASE
            WHEN nameless_errors.code = 'missing_api_key' THEN 'no key sent'
            WHEN nameless_errors.code = 'invalid_api_key' THEN 'unknown key'
            WHEN NOT (nameless_errors.lacks_org AND attributed_sources.has_org)
                AND NOT (nameless_errors.lacks_key AND attributed_sources.has_key) THEN 'not logged'
            WHEN nameless_errors.origin = 'gateway' THEN 'gateway answered'
            WHEN nameless_errors.body_state IN ('absent', 'undecodable') THEN 'body not read'
            ELSE 'answered before the key was checked'
        END AS reason,
        nameless_errors.client_ip,
        nameless_errors.ts,
        nameless_errors.request_id
    FROM nameless_errors
    INNER JOIN attributed_sources ON attributed_sources.source_id = nameless_errors.source_id
    LEFT JOIN source_names ON source_names.source_id = nameless_errors.source_id
),
recent_first AS (
    SELECT
        code, gateway_reason, route, source, missing, reason, client_ip, ts, request_id,
        row_number() OVER (
            PARTITION BY code, gateway_reason, route, source, missing, reason
            ORDER BY ts DESC, request_id NULLS LAST
        ) AS recency
    FROM unattributed_errors
)
SELECT
    code,
    gateway_reason,
    route,
    source,
    missing,
    reason,
    count(*) AS errors,
    count(*) / max(errors_in_scope) AS share,
    count(DISTINCT client_ip) AS client_ips,
    min(ts) AS first_seen,
    max(ts) AS last_seen,
    list(request_id ORDER BY recency) FILTER (WHERE recency <= 3 AND request_id IS NOT NULL) AS example_request_ids
FROM recent_first
CROSS JOIN all_errors
GROUP BY code, gateway_reason, route, source, missing, reason
ORDER BY
    errors DESC, code NULLS LAST, gateway_reason NULLS LAST, route NULLS LAST, source NULLS LAST, missing, reason;
