-- How surely the attempts of a group are told apart by what they want, of their intent_confidence_of(): high where all
-- are high, low where one is low.
CREATE OR REPLACE MACRO least_confidence(confidence) AS CASE
    WHEN bool_and(confidence = 'high') THEN 'high'
    WHEN bool_and(confidence <> 'low') THEN 'medium'
    ELSE 'low'
END;

-- The windows in which an account is refused with `refusal_code`, as the lake knew them at `until`. An account is an
-- organisation; where the log has none, each caller is an account of its own and stands in lone_caller. A window lasts
-- from the first refusal to the first pass that begins after it has ended, or is open (no passed_at). A pass is a 2xx
-- on a method and route on which anybody was refused with that code: what is free for all says nothing of the account.
-- Windows with less than merge_gap_s between them are one.
CREATE OR REPLACE MACRO refusal_windows(refusal_code, until, merge_gap_s) AS TABLE
WITH refusals AS (
    SELECT
        org_id,
        CASE WHEN org_id IS NULL THEN caller END AS lone_caller,
        caller, key_id, key_hash, method, route, request_id,
        CASE
            WHEN idempotency_hash IS NOT NULL
                THEN concat_ws(' ', 'key', caller, method, route, idempotency_hash)
            WHEN names_object(route) THEN concat_ws(' ', 'path', caller, method, path)
        END AS intent,
        intent_confidence_of(idempotency_hash, route) AS intent_confidence,
        epoch_us(ts) AS end_us
    FROM requests
    WHERE kind = 'error'
      AND code = refusal_code
      AND (until IS NULL OR (day <= until::TIMESTAMP::DATE AND ts < utc_moment(until)))
),
guarded_routes AS (
    SELECT DISTINCT method, route
    FROM refusals
),
refused_minutes AS (
    SELECT DISTINCT org_id, lone_caller, end_us // 60000000 AS minute_number
    FROM refusals
),
successes AS (
    SELECT org_id, NULL AS lone_caller, start_us(ts, latency_ms) AS start_us, epoch_us(ts) AS end_us, method, route
    FROM requests
    WHERE kind = 'ok'
      AND status BETWEEN 200 AND 299
      AND (until IS NULL OR (day <= until::TIMESTAMP::DATE AND ts < utc_moment(until)))
      AND org_id IN (SELECT org_id FROM refusals)
    UNION ALL
    SELECT org_id, caller AS lone_caller, start_us(ts, latency_ms) AS start_us, epoch_us(ts) AS end_us, method, route
    FROM requests
    WHERE kind = 'ok'
      AND status BETWEEN 200 AND 299
      AND (until IS NULL OR (day <= until::TIMESTAMP::DATE AND ts < utc_moment(until)))
      AND org_id IS NULL
      AND caller IN (SELECT lone_caller FROM refusals)
),
-- One row for all passes that began in a minute without a refusal: of millions of passes few need an order.
passes AS (
    SELECT
        successes.org_id,
        successes.lone_caller,
        successes.start_us // 60000000 AS minute_number,
        CASE WHEN refused_minutes.minute_number IS NOT NULL THEN successes.start_us END AS exact_start_us,
        count(*) AS passed,
        min(successes.start_us) AS start_us,
        min(successes.end_us) AS end_us
    FROM successes
    INNER JOIN guarded_routes
        ON guarded_routes.method IS NOT DISTINCT FROM successes.method
        AND guarded_routes.route IS NOT DISTINCT FROM successes.route
    LEFT JOIN refused_minutes
        ON refused_minutes.org_id IS NOT DISTINCT FROM successes.org_id
        AND refused_minutes.lone_caller IS NOT DISTINCT FROM successes.lone_caller
        AND refused_minutes.minute_number = successes.start_us // 60000000
    GROUP BY ALL
),
moments AS (
    SELECT
        org_id, lone_caller, end_us AS moment_us, true AS is_refusal, 0 AS passed, NULL AS passed_us,
        caller, key_id, key_hash, method, route, request_id, intent, intent_confidence
    FROM refusals
    UNION ALL
    SELECT
        org_id, lone_caller, start_us AS moment_us, false AS is_refusal, passed, end_us AS passed_us,
        NULL AS caller, NULL AS key_id, NULL AS key_hash, NULL AS method, NULL AS route, NULL AS request_id,
        NULL AS intent, NULL AS intent_confidence
    FROM passes
),
-- A pass that begins in the moment in which a refusal ends is taken for the earlier one.
answers AS (
    SELECT
        org_id, lone_caller, moment_us, is_refusal,
        caller, key_id, key_hash, method, route, request_id, intent, intent_confidence,
        sum(passed) OVER (
            PARTITION BY org_id, lone_caller
            ORDER BY moment_us, is_refusal, request_id
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS passed_so_far,
        min(passed_us) OVER (
            PARTITION BY org_id, lone_caller
            ORDER BY moment_us, is_refusal, request_id
            ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING
        ) AS next_passed_us
    FROM moments
),
steps AS (
    SELECT
        org_id, lone_caller, moment_us, passed_so_far, next_passed_us,
        caller, key_id, key_hash, method, route, request_id, intent, intent_confidence,
        lag(moment_us) OVER (
            PARTITION BY org_id, lone_caller
            ORDER BY moment_us, request_id
        ) AS previous_us,
        lag(next_passed_us) OVER (
            PARTITION BY org_id, lone_caller
            ORDER BY moment_us, request_id
        ) AS previous_passed_us
    FROM answers
    WHERE is_refusal
),
numbered_refusals AS (
    SELECT
        org_id, lone_caller, moment_us, passed_so_far, next_passed_us,
        caller, key_id, key_hash, method, route, request_id, intent, intent_confidence,
        sum(
            CASE
                WHEN previous_us IS NULL OR moment_us - previous_passed_us >= microseconds(merge_gap_s) THEN 1
                ELSE 0
            END
        ) OVER (
            PARTITION BY org_id, lone_caller
            ORDER BY moment_us, request_id
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS window_number
    FROM steps
),
ranked_refusals AS (
    SELECT
        org_id, lone_caller, window_number, moment_us, passed_so_far, next_passed_us,
        caller, key_id, key_hash, method, route, request_id, intent, intent_confidence,
        row_number() OVER (
            PARTITION BY org_id, lone_caller, window_number
            ORDER BY moment_us DESC, request_id
        ) AS recency
    FROM numbered_refusals
)
SELECT
    org_id,
    lone_caller,
    make_timestamptz(min(moment_us)) AS first_refused_at,
    make_timestamptz(max(moment_us)) AS last_refused_at,
    CASE WHEN bool_and(next_passed_us IS NOT NULL) THEN make_timestamptz(max(next_passed_us)) END AS passed_at,
    count(*) AS attempts,
    count(DISTINCT intent) + count(*) FILTER (WHERE intent IS NULL) AS distinct_intents,
    least_confidence(intent_confidence) AS intent_confidence,
    count(DISTINCT coalesce(key_id, key_hash)) AS keys,
    list_sort(list(DISTINCT caller) FILTER (WHERE caller IS NOT NULL)) AS callers,
    list_sort(list(DISTINCT route) FILTER (WHERE route IS NOT NULL)) AS routes,
    min(passed_so_far)::BIGINT AS passed_before,
    (max(passed_so_far) - min(passed_so_far))::BIGINT AS passed_meanwhile,
    list(request_id ORDER BY recency) FILTER (WHERE recency <= 3 AND request_id IS NOT NULL) AS example_request_ids
FROM ranked_refusals
GROUP BY org_id, lone_caller, window_number;

-- The moment up to which a question without, or with a later, `until` knows what happened.
CREATE OR REPLACE MACRO known_until(until) AS least(utc_moment(until), data_through());
