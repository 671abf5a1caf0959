-- title: Callers without a key
-- asks: Who calls without an API key: an integration that lost it, a crawler or a scanner?
-- codes: missing_api_key
-- chart: stacked(client_ip, requests, verdict)
-- param since: first moment, inclusive (UTC date or timestamp); all when NULL
-- param until: last moment, exclusive (UTC date or timestamp); all when NULL
-- param for_key: only this client_ip
-- param for_route: only callers that tried this route; the verdict still weighs all routes
-- param min_requests: fewer requests are not enough data
-- param min_walked_routes: so many routes that do not exist are walked, not mistyped
-- param max_unknown_share: the greatest part of an integration's requests that goes to routes that do not exist; those
--   that a rate limit refuses say nothing of their routes and are left out of the part
-- param min_alone: a user agent with fewer requests is judged by all that its address sends without a key
-- columns:
--   client_ip: address of the client
--   user_agent: its User-Agent. A row for each address and agent that was refused for a missing key, or that asked for
--     min_walked_routes or more that were not found and from whose address nothing succeeds
--   verdict: crawler (min_walked_routes or more that do not exist, more than max_unknown_share of the requests, and it
--     goes on: 20 requests or more, and twice as many as paths or for an hour), else scanner (such routes in one go; or
--     one in ten requests malformed; or more than max_unknown_share to routes that do not exist, with one among them
--     that only attacks ask for: dot files, PHP, admin logins), else misconfigured integration (requests, and repeated
--     ones, to routes that exist), else not enough data (fewer than min_requests, or none of these; also where keys are
--     sent from the address and none ever succeeds)
--   requests: failed requests without key and organisation
--   missing_key: those refused with missing_api_key
--   not_found: those answered with not_found, or by the gateway with no_route
--   malformed: those that the gateway refused as no proper request
--   distinct_routes: distinct routes of the requests
--   existing_routes: those that exist: somebody succeeded there, or met an error that comes after key and route were
--     looked at; or missing_api_key, where the API answers callers without a key with not_found on others. To the
--     verdict also those that ask an address for a key with whose keys somebody succeeds elsewhere
--   routes: up to ten of the routes, in name order
--   keyed_requests: requests with a key from the same address
--   keyed_successes: those of them that succeeded
--   requests_per_minute: requests / minutes of the clock with any
--   first_seen: earliest request
--   last_seen: latest request
--   days: UTC days with requests
--   example_request_ids: the three latest requests
CREATE OR REPLACE MACRO keyless_callers(
    since := NULL, until := NULL, for_key := NULL, for_route := NULL,
    min_requests := 5, min_walked_routes := 3, max_unknown_share := 0.2, min_alone := 20
) AS TABLE
WITH keyless_errors AS (
    SELECT
        client_ip, user_agent, route, path, code, gateway_reason, day, ts, request_id,
        origin = 'gateway' AND status IN (400, 405, 414, 431, 494, 497) AS is_malformed,
        is_rate_limited(status, code) AS is_limited,
        code = 'not_found' OR (code IS NULL AND gateway_reason = 'no_route') AS is_not_found
    FROM requests
    WHERE kind = 'error'
      AND key_id IS NULL
      AND key_hash IS NULL
      AND org_id IS NULL
      AND (since IS NULL OR (day >= since::TIMESTAMP::DATE AND ts >= utc_moment(since)))
      AND (until IS NULL OR (day <= until::TIMESTAMP::DATE AND ts < utc_moment(until)))
      AND (for_key IS NULL OR client_ip = for_key)
),
-- Of others only those that ask for what does not exist: where no key is logged, all errors come without one.
candidates AS (
    SELECT client_ip, user_agent
    FROM keyless_errors
    GROUP BY ALL
    HAVING bool_or(coalesce(code = 'missing_api_key', false))
        OR count(DISTINCT route) FILTER (WHERE is_not_found) >= min_walked_routes
),
calls AS (
    SELECT
        keyless_errors.client_ip, keyless_errors.user_agent, keyless_errors.route, keyless_errors.path,
        keyless_errors.code, keyless_errors.day, keyless_errors.ts, keyless_errors.request_id,
        coalesce(keyless_errors.is_malformed, false) AS is_malformed,
        keyless_errors.is_limited,
        coalesce(keyless_errors.is_not_found, false) AS is_not_found,
        coalesce(keyless_errors.code = 'missing_api_key', false) AS is_missing_key
    FROM keyless_errors
    INNER JOIN (SELECT DISTINCT client_ip FROM candidates) AS addresses
        ON addresses.client_ip IS NOT DISTINCT FROM keyless_errors.client_ip
),
answered_routes AS (
    SELECT route
    FROM daily_successes
    WHERE (route IN (SELECT route FROM calls)) IS TRUE
    GROUP BY ALL
    UNION
    SELECT route
    FROM requests
    WHERE kind = 'error'
      AND code NOT IN ('not_found', 'missing_api_key', 'invalid_api_key', 'rate_limited')
      AND (route IN (SELECT route FROM calls)) IS TRUE
    GROUP BY ALL
),
doors AS (
    SELECT count(*) > 0 AS is_route_looked_up_first
    FROM (
        SELECT client_ip, user_agent
        FROM calls
        GROUP BY ALL
        HAVING bool_or(is_missing_key)
           AND bool_or(is_not_found AND route NOT IN (SELECT route FROM answered_routes))
    )
),
existing_routes AS (
    SELECT route
    FROM answered_routes
    UNION
    SELECT calls.route
    FROM calls
    CROSS JOIN doors
    WHERE calls.is_missing_key
      AND doors.is_route_looked_up_first
),
addresses AS (
    SELECT
        client_ip,
        coalesce(sum(requests) FILTER (WHERE is_keyed), 0)::BIGINT AS keyed_requests,
        coalesce(sum(requests) FILTER (WHERE is_keyed AND NOT is_error), 0)::BIGINT AS keyed_successes,
        coalesce(sum(requests) FILTER (WHERE NOT is_error), 0)::BIGINT AS successes
    FROM (
        SELECT client_ip, key_id IS NOT NULL OR key_hash IS NOT NULL AS is_keyed, is_error, requests
        FROM request_counts(since, until, NULL, NULL, NULL)
        WHERE (client_ip IN (SELECT client_ip FROM candidates)) IS TRUE
    )
    GROUP BY ALL
),
judged_calls AS (
    SELECT
        calls.client_ip, calls.user_agent, calls.route, calls.path, calls.day, calls.ts, calls.request_id,
        calls.is_malformed, calls.is_limited, calls.is_not_found, calls.is_missing_key,
        for_route IS NULL OR calls.route = for_route AS is_on_route,
        existing_routes.route IS NOT NULL AS is_existing_route,
        existing_routes.route IS NULL
            AND NOT calls.is_malformed
            AND (calls.is_not_found OR (calls.is_missing_key AND coalesce(addresses.keyed_successes, 0) = 0))
            AS is_unknown_route,
        CASE
            WHEN count(*) OVER (PARTITION BY calls.client_ip, calls.user_agent) >= min_alone THEN calls.user_agent
        END AS agent_alone,
        row_number() OVER (
            PARTITION BY calls.client_ip, calls.user_agent
            ORDER BY calls.ts DESC, calls.request_id NULLS LAST
        ) AS recency
    FROM calls
    LEFT JOIN existing_routes ON existing_routes.route = calls.route
    LEFT JOIN addresses ON addresses.client_ip = calls.client_ip
),
-- Agents with many requests stand alone, the others of an address together: a scanner changes its agent.
evidence AS (
    SELECT
        client_ip,
        agent_alone,
        count(*) AS requests,
        count(DISTINCT path) AS paths,
        count(*) FILTER (WHERE is_malformed) / count(*) AS malformed_share,
        count(*) FILTER (WHERE is_unknown_route) / nullif(count(*) FILTER (WHERE NOT is_limited), 0) AS unknown_share,
        count(DISTINCT route) FILTER (WHERE is_unknown_route) AS unknown_routes,
        bool_or(is_unknown_route AND is_attacked(route)) AS is_attacking,
        (epoch_us(max(ts)) - epoch_us(min(ts))) / 1e6 AS span_s
    FROM judged_calls
    GROUP BY ALL
),
keyless_callers AS (
    SELECT
        client_ip,
        user_agent,
        agent_alone,
        count(*) AS requests,
        count(*) FILTER (WHERE is_missing_key) AS missing_key,
        count(*) FILTER (WHERE is_not_found) AS not_found,
        count(*) FILTER (WHERE is_malformed) AS malformed,
        count(DISTINCT route) AS distinct_routes,
        count(DISTINCT route) FILTER (WHERE is_existing_route) AS existing_routes,
        count(DISTINCT minute_of(ts)) AS minutes,
        count(*) FILTER (WHERE is_on_route) AS requests_on_route,
        min(ts) AS first_seen,
        max(ts) AS last_seen,
        count(DISTINCT day) AS days,
        list(request_id ORDER BY recency) FILTER (WHERE recency <= 3 AND request_id IS NOT NULL) AS example_request_ids
    FROM judged_calls
    GROUP BY ALL
),
ranked_routes AS (
    SELECT client_ip, user_agent, route, row_number() OVER (PARTITION BY client_ip, user_agent ORDER BY route) AS place
    FROM judged_calls
    WHERE route IS NOT NULL
    GROUP BY client_ip, user_agent, route
),
routes_tried AS (
    SELECT client_ip, user_agent, list(route ORDER BY place) AS routes
    FROM ranked_routes
    WHERE place <= 10
    GROUP BY ALL
)
SELECT
    keyless_callers.client_ip,
    keyless_callers.user_agent,
    CASE
        WHEN keyless_callers.client_ip IS NULL OR evidence.requests < min_requests THEN 'not enough data'
        WHEN evidence.unknown_routes >= min_walked_routes AND evidence.unknown_share > max_unknown_share THEN
            CASE
                WHEN evidence.requests >= 20 AND (evidence.requests >= 2 * evidence.paths OR evidence.span_s >= 3600)
                    THEN 'crawler'
                ELSE 'scanner'
            END
        WHEN evidence.malformed_share >= 0.1 THEN 'scanner'
        WHEN evidence.is_attacking AND evidence.unknown_share > max_unknown_share THEN 'scanner'
        WHEN evidence.unknown_share <= max_unknown_share
            AND keyless_callers.requests >= min_requests
            AND keyless_callers.requests >= 2 * keyless_callers.distinct_routes
            AND (addresses.keyed_requests = 0 OR addresses.keyed_successes > 0) THEN 'misconfigured integration'
        ELSE 'not enough data'
    END AS verdict,
    keyless_callers.requests,
    keyless_callers.missing_key,
    keyless_callers.not_found,
    keyless_callers.malformed,
    keyless_callers.distinct_routes,
    keyless_callers.existing_routes,
    coalesce(routes_tried.routes, []) AS routes,
    coalesce(addresses.keyed_requests, 0) AS keyed_requests,
    coalesce(addresses.keyed_successes, 0) AS keyed_successes,
    keyless_callers.requests / keyless_callers.minutes AS requests_per_minute,
    keyless_callers.first_seen,
    keyless_callers.last_seen,
    keyless_callers.days,
    keyless_callers.example_request_ids
FROM keyless_callers
INNER JOIN candidates
    ON candidates.client_ip IS NOT DISTINCT FROM keyless_callers.client_ip
    AND candidates.user_agent IS NOT DISTINCT FROM keyless_callers.user_agent
INNER JOIN evidence
    ON evidence.client_ip IS NOT DISTINCT FROM keyless_callers.client_ip
    AND evidence.agent_alone IS NOT DISTINCT FROM keyless_callers.agent_alone
LEFT JOIN addresses ON addresses.client_ip = keyless_callers.client_ip
LEFT JOIN routes_tried
    ON routes_tried.client_ip IS NOT DISTINCT FROM keyless_callers.client_ip
    AND routes_tried.user_agent IS NOT DISTINCT FROM keyless_callers.user_agent
WHERE (keyless_callers.missing_key > 0 OR coalesce(addresses.successes, 0) = 0)
  AND keyless_callers.requests_on_route > 0
ORDER BY
    keyless_callers.requests DESC, keyless_callers.client_ip NULLS LAST, keyless_callers.user_agent NULLS LAST;
