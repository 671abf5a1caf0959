-- title: Affected customers
-- asks: Who was hit by these errors, what did they get done in the end, and what can support write to them?
-- chart: bar(org_id, intents_never_succeeded)
-- param since: first moment of the window, inclusive (UTC date or timestamp); all when NULL. What failed before it does
--   not count, and the recovery of what went on failing is timed from its first failure in the window
-- param until: end of the window, exclusive (UTC date or timestamp); all when NULL. Successes after it count as recovery
-- param for_org: only this org_id
-- param for_key: only this caller (key_id, else key_hash, else client_ip)
-- param for_code: only errors with this code
-- param for_route: only this route
-- param for_fault: only errors that are the fault of the platform, rate_limited or client, as in errors_by_fault
-- columns:
--   org_id: organisation of the errors; NULL where the log does not name it
--   key: key_id, else key_hash, where org_id is NULL: each such key is a customer of its own, and all traffic without
--     organisation and key is one row
--   requests: requests of the customer in the window, whatever their answer
--   errors: those of them that failed and that the filters keep
--   error_rate: errors / requests
--   affected_keys: the keys (key_id, else key_hash) with such errors, in name order
--   codes: what the errors were answered, the most frequent first: the code, else the gateway's reason, else the status
--   routes: the ten methods and routes with most of the errors, the most frequent first
--   intents_failed: chains with such an error: attempts of one caller at one thing (method, path, Idempotency-Key or
--     recipient), each begun within 300 s (or four times the Retry-After) of the failure before. Errors of callers that
--     the log does not name at all are in no chain
--   intents_later_succeeded: those that succeeded after it, in the window or later; by whatever later success where an
--     Idempotency-Key or a path that names an object tells it, else only within the chain
--   intents_never_succeeded: those that had not by data_through
--   intent_confidence: how surely the attempts of a chain want the same thing, for half of the chains or more: high by
--     Idempotency-Keys, medium by paths that name an object or by recipients, else low: there a chain may be a series
--     of different requests, so that more may be lost than intents_never_succeeded tells
--   median_recovery_s: seconds from the end of the first such error of an intent to the end of its first success, median
--     of intents_later_succeeded
--   max_recovery_s: the longest of them
--   first_error_at: earliest of the errors
--   last_error_at: latest of the errors
--   data_through: latest request in the data: "never" means not by then
--   example_request_ids: the latest such error of up to three chains, those that never succeeded first, the latest first
--   note: all of that in sentences, ready for a ticket or a mail
CREATE OR REPLACE MACRO affected_customers(
    since := NULL, until := NULL, for_org := NULL, for_key := NULL, for_code := NULL, for_route := NULL,
    for_fault := NULL
) AS TABLE
WITH wanted_codes AS (
    SELECT code, status
    FROM (
        SELECT DISTINCT answered.code, answered.status, catalogue.http_status, catalogue.owner
        FROM requests_in_scope(since, until, for_org, for_key, for_route) AS answered
        LEFT JOIN catalogue ON catalogue.code = answered.code
        WHERE answered.is_error
    )
    WHERE (for_code IS NULL OR code = for_code)
      AND CASE
          WHEN for_fault IS NULL THEN true
          WHEN for_fault IN ('platform', 'rate_limited', 'client') THEN fault_of(status, http_status, owner) = for_fault
          ELSE error('for_fault: expected platform, rate_limited or client, got ' || for_fault)
      END
),
failures AS (
    SELECT
        answered.org_id,
        coalesce(answered.key_id, answered.key_hash) AS error_key,
        answered.caller,
        coalesce(answered.code, answered.gateway_reason, answered.status::VARCHAR) AS answer,
        concat_ws(' ', answered.method, answered.route) AS method_route,
        answered.ts
    FROM requests_in_scope(since, until, for_org, for_key, for_route) AS answered
    INNER JOIN wanted_codes
        ON wanted_codes.code IS NOT DISTINCT FROM answered.code
        AND wanted_codes.status IS NOT DISTINCT FROM answered.status
    WHERE answered.is_error
),
error_groups AS (
    SELECT
        org_id,
        CASE WHEN org_id IS NULL THEN error_key END AS lone_key,
        count(*) AS errors,
        list_sort(list(DISTINCT error_key) FILTER (WHERE error_key IS NOT NULL)) AS affected_keys,
        min(ts) AS first_error_at,
        max(ts) AS last_error_at
    FROM failures
    GROUP BY ALL
),
answer_counts AS (
    SELECT org_id, CASE WHEN org_id IS NULL THEN error_key END AS lone_key, answer, count(*) AS errors
    FROM failures
    GROUP BY ALL
),
ranked_answers AS (
    SELECT
        org_id, lone_key, answer,
        row_number() OVER (PARTITION BY org_id, lone_key ORDER BY errors DESC, answer) AS answer_rank
    FROM answer_counts
),
answer_groups AS (
    SELECT org_id, lone_key, list(answer ORDER BY answer_rank) AS codes
    FROM ranked_answers
    GROUP BY ALL
),
route_counts AS (
    SELECT org_id, CASE WHEN org_id IS NULL THEN error_key END AS lone_key, method_route, count(*) AS errors
    FROM failures
    WHERE method_route <> ''
    GROUP BY ALL
),
ranked_routes AS (
    SELECT
        org_id, lone_key, method_route,
        row_number() OVER (PARTITION BY org_id, lone_key ORDER BY errors DESC, method_route) AS route_rank
    FROM route_counts
),
route_groups AS (
    SELECT org_id, lone_key, list(method_route ORDER BY route_rank) AS routes
    FROM ranked_routes
    WHERE route_rank <= 10
    GROUP BY ALL
),
request_groups AS (
    SELECT org_id, lone_key, sum(requests) AS requests
    FROM (
        SELECT org_id, NULL AS lone_key, sum(requests) AS requests
        FROM request_counts(since, until, for_org, for_key, for_route)
        WHERE org_id IS NOT NULL
        GROUP BY ALL
        UNION ALL
        SELECT org_id, coalesce(key_id, key_hash) AS lone_key, sum(requests) AS requests
        FROM request_counts(since, until, for_org, for_key, for_route)
        WHERE org_id IS NULL
        GROUP BY ALL
    )
    GROUP BY ALL
),
tries AS (
    SELECT
        tried.caller, tried.org_id, tried.method, tried.route, tried.intent_path, tried.intent_token, tried.chain,
        tried.intent_confidence, tried.request_id, tried.end_us, tried.is_error,
        tried.is_error
            AND wanted_codes.status IS NOT NULL
            AND (until IS NULL OR tried.ts < utc_moment(until)) AS is_wanted
    FROM attempts(since, NULL, for_org, for_key, for_route) AS tried
    LEFT JOIN wanted_codes
        ON wanted_codes.code IS NOT DISTINCT FROM tried.code
        AND wanted_codes.status IS NOT DISTINCT FROM tried.status
),
failed_chains AS (
    SELECT
        caller, method, intent_path, intent_token, chain,
        max(org_id) FILTER (WHERE is_wanted) AS org_id,
        max(route) AS route,
        least_confidence(intent_confidence) AS intent_confidence,
        min(end_us) FILTER (WHERE is_wanted) AS failed_us,
        max(end_us) FILTER (WHERE is_wanted) AS last_failed_us,
        min(end_us) FILTER (WHERE NOT is_error) AS succeeded_us,
        max_by(request_id, struct_pack(end_us := end_us, request_id := request_id))
            FILTER (WHERE is_wanted AND request_id IS NOT NULL) AS last_request_id
    FROM tries
    GROUP BY ALL
    HAVING bool_or(is_wanted)
),
open_chains AS (
    SELECT caller, method, route, intent_path, intent_token, chain, last_failed_us
    FROM failed_chains
    WHERE succeeded_us IS NULL
      AND intent_confidence <> 'low'
),
-- What a client takes up again after more than a chain's pause. Of the successes, which are many, the path is read only
-- where it tells objects apart.
late_successes AS (
    SELECT
        open_chains.caller, open_chains.method, open_chains.intent_path, open_chains.intent_token, open_chains.chain,
        min(epoch_us(answered.ts)) AS succeeded_us
    FROM requests_in_scope(since, NULL, for_org, for_key, for_route) AS answered
    INNER JOIN open_chains
        ON open_chains.caller = answered.caller
        AND open_chains.method IS NOT DISTINCT FROM answered.method
        AND open_chains.intent_path = answered.path
        AND open_chains.intent_token IS NOT DISTINCT FROM answered.idempotency_hash
    WHERE NOT answered.is_error
      AND names_object(answered.route)
      AND start_us(answered.ts, answered.latency_ms) > open_chains.last_failed_us
    GROUP BY ALL
    UNION ALL
    SELECT
        open_chains.caller, open_chains.method, open_chains.intent_path, open_chains.intent_token, open_chains.chain,
        min(epoch_us(answered.ts)) AS succeeded_us
    FROM requests_in_scope(since, NULL, for_org, for_key, for_route) AS answered
    INNER JOIN open_chains
        ON open_chains.caller = answered.caller
        AND open_chains.method IS NOT DISTINCT FROM answered.method
        AND open_chains.intent_path IS NOT DISTINCT FROM answered.route
        AND open_chains.intent_token = answered.idempotency_hash
    WHERE NOT answered.is_error
      AND NOT names_object(answered.route)
      AND start_us(answered.ts, answered.latency_ms) > open_chains.last_failed_us
    GROUP BY ALL
),
keyed_callers AS (
    SELECT DISTINCT caller, error_key
    FROM failures
    WHERE error_key IS NOT NULL
),
intents AS (
    SELECT
        failed_chains.org_id,
        CASE WHEN failed_chains.org_id IS NULL THEN keyed_callers.error_key END AS lone_key,
        failed_chains.intent_confidence,
        failed_chains.last_failed_us,
        failed_chains.last_request_id,
        coalesce(failed_chains.succeeded_us, late_successes.succeeded_us) IS NOT NULL AS is_recovered,
        greatest(coalesce(failed_chains.succeeded_us, late_successes.succeeded_us) - failed_chains.failed_us, 0) / 1e6
            AS recovery_s
    FROM failed_chains
    LEFT JOIN late_successes
        ON late_successes.caller = failed_chains.caller
        AND late_successes.method IS NOT DISTINCT FROM failed_chains.method
        AND late_successes.intent_path IS NOT DISTINCT FROM failed_chains.intent_path
        AND late_successes.intent_token IS NOT DISTINCT FROM failed_chains.intent_token
        AND late_successes.chain = failed_chains.chain
    LEFT JOIN keyed_callers ON keyed_callers.caller = failed_chains.caller
),
ranked_intents AS (
    SELECT
        org_id, lone_key, intent_confidence, last_request_id, is_recovered, recovery_s,
        row_number() OVER (
            PARTITION BY org_id, lone_key
            ORDER BY last_request_id IS NULL, is_recovered, last_failed_us DESC, last_request_id
        ) AS example_rank
    FROM intents
),
intent_groups AS (
    SELECT
        org_id,
        lone_key,
        count(*) AS intents_failed,
        count(*) FILTER (WHERE is_recovered) AS intents_later_succeeded,
        count(*) FILTER (WHERE intent_confidence = 'high') AS high_intents,
        count(*) FILTER (WHERE intent_confidence <> 'low') AS known_intents,
        quantile_cont(recovery_s, 0.5) FILTER (WHERE is_recovered) AS median_recovery_s,
        max(recovery_s) FILTER (WHERE is_recovered) AS max_recovery_s,
        list(last_request_id ORDER BY example_rank) FILTER (WHERE example_rank <= 3 AND last_request_id IS NOT NULL)
            AS example_request_ids
    FROM ranked_intents
    GROUP BY ALL
)
SELECT
    error_groups.org_id,
    error_groups.lone_key AS key,
    request_groups.requests::BIGINT AS requests,
    error_groups.errors,
    error_groups.errors / nullif(request_groups.requests, 0) AS error_rate,
    error_groups.affected_keys,
    answer_groups.codes,
    route_groups.routes,
    coalesce(intent_groups.intents_failed, 0) AS intents_failed,
    coalesce(intent_groups.intents_later_succeeded, 0) AS intents_later_succeeded,
    coalesce(intent_groups.intents_failed - intent_groups.intents_later_succeeded, 0) AS intents_never_succeeded,
    CASE
        WHEN 2 * intent_groups.high_intents >= intent_groups.intents_failed THEN 'high'
        WHEN 2 * intent_groups.known_intents >= intent_groups.intents_failed THEN 'medium'
        WHEN intent_groups.intents_failed > 0 THEN 'low'
    END AS intent_confidence,
    intent_groups.median_recovery_s,
    intent_groups.max_recovery_s,
    error_groups.first_error_at,
    error_groups.last_error_at,
    data_through() AS data_through,
    intent_groups.example_request_ids
FROM error_groups
INNER JOIN request_groups
    ON request_groups.org_id IS NOT DISTINCT FROM error_groups.org_id
    AND request_groups.lone_key IS NOT DISTINCT FROM error_groups.lone_key
INNER JOIN answer_groups
    ON answer_groups.org_id IS NOT DISTINCT FROM error_groups.org_id
    AND answer_groups.lone_key IS NOT DISTINCT FROM error_groups.lone_key
LEFT JOIN route_groups
    ON route_groups.org_id IS NOT DISTINCT FROM error_groups.org_id
    AND route_groups.lone_key IS NOT DISTINCT FROM error_groups.lone_key
LEFT JOIN intent_groups
    ON intent_groups.org_id IS NOT DISTINCT FROM error_groups.org_id
    AND intent_groups.lone_key IS NOT DISTINCT FROM error_groups.lone_key
ORDER BY
    intents_never_succeeded DESC, intents_failed DESC, error_groups.errors DESC,
    error_groups.org_id NULLS LAST, key NULLS LAST;
