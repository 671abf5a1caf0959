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
-- Refusals less than merge_gap_s apart are in one window whatever passes between them, so that passes matter only where
-- such an island begins and ends.
with_gaps AS (
    SELECT
        org_id, lone_caller, caller, key_id, key_hash, route, request_id, intent, intent_confidence, end_us,
        CASE
            WHEN end_us - lag(end_us) OVER (
                PARTITION BY org_id, lone_caller
                ORDER BY end_us, request_id NULLS LAST
            ) < microseconds(merge_gap_s) THEN 0
            ELSE 1
        END AS is_first
    FROM refusals
),
island_refusals AS (
    SELECT
        org_id, lone_caller, caller, key_id, key_hash, route, request_id, intent, intent_confidence, end_us,
        sum(is_first) OVER (
            PARTITION BY org_id, lone_caller
            ORDER BY end_us, request_id NULLS LAST
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS island
    FROM with_gaps
),
edges AS (
    SELECT org_id, lone_caller, island, true AS is_first, min(end_us) AS end_us
    FROM island_refusals
    GROUP BY ALL
    UNION ALL
    SELECT org_id, lone_caller, island, false AS is_first, max(end_us) AS end_us
    FROM island_refusals
    GROUP BY ALL
),
edge_minutes AS (
    SELECT DISTINCT org_id, lone_caller, end_us // 60000000 AS minute_number
    FROM edges
),
-- IS TRUE: DuckDB puts the few refused accounts in a hash table and not the successes, which are many.
successes AS (
    SELECT org_id, NULL AS lone_caller, start_us(ts, latency_ms) AS start_us, epoch_us(ts) AS end_us, method, route
    FROM requests
    WHERE kind = 'ok'
      AND status BETWEEN 200 AND 299
      AND (until IS NULL OR (day <= until::TIMESTAMP::DATE AND ts < utc_moment(until)))
      AND (org_id IN (SELECT org_id FROM refusals)) IS TRUE
    UNION ALL
    SELECT org_id, caller AS lone_caller, start_us(ts, latency_ms) AS start_us, epoch_us(ts) AS end_us, method, route
    FROM requests
    WHERE kind = 'ok'
      AND status BETWEEN 200 AND 299
      AND (until IS NULL OR (day <= until::TIMESTAMP::DATE AND ts < utc_moment(until)))
      AND org_id IS NULL
      AND (caller IN (SELECT lone_caller FROM refusals)) IS TRUE
),
-- One row for all passes that began in a minute without an edge: of millions of passes few need an order.
passes AS (
    SELECT
        successes.org_id,
        successes.lone_caller,
        successes.start_us // 60000000 AS minute_number,
        CASE WHEN edge_minutes.minute_number IS NOT NULL THEN successes.start_us END AS exact_start_us,
        count(*) AS passed,
        min(successes.start_us) AS start_us,
        min(successes.end_us) AS end_us
    FROM successes
    INNER JOIN guarded_routes
        ON guarded_routes.method IS NOT DISTINCT FROM successes.method
        AND guarded_routes.route IS NOT DISTINCT FROM successes.route
    LEFT JOIN edge_minutes
        ON edge_minutes.org_id IS NOT DISTINCT FROM successes.org_id
        AND edge_minutes.lone_caller IS NOT DISTINCT FROM successes.lone_caller
        AND edge_minutes.minute_number = successes.start_us // 60000000
    GROUP BY ALL
),
moments AS (
    SELECT org_id, lone_caller, end_us AS moment_us, island, is_first, 0 AS passed, NULL AS passed_us
    FROM edges
    UNION ALL
    SELECT org_id, lone_caller, start_us AS moment_us, 0 AS island, false AS is_first, passed, end_us AS passed_us
    FROM passes
),
-- A pass that begins in the moment in which a refusal ends is taken for the earlier one.
answers AS (
    SELECT
        org_id, lone_caller, moment_us, island, is_first,
        sum(passed) OVER (
            PARTITION BY org_id, lone_caller
            ORDER BY moment_us, island, is_first DESC
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS passed_so_far,
        min(passed_us) OVER (
            PARTITION BY org_id, lone_caller
            ORDER BY moment_us, island, is_first DESC
            ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING
        ) AS next_passed_us
    FROM moments
),
islands AS (
    SELECT
        org_id, lone_caller, island,
        min(moment_us) AS first_us,
        min(passed_so_far) AS passed_before,
        max(passed_so_far) AS passed_by_then,
        max(next_passed_us) FILTER (WHERE NOT is_first) AS next_passed_us
    FROM answers
    WHERE island > 0
    GROUP BY ALL
),
with_pauses AS (
    SELECT
        org_id, lone_caller, island, passed_before, passed_by_then, next_passed_us,
        CASE
            WHEN island = 1 THEN 1
            WHEN first_us - lag(next_passed_us) OVER (
                PARTITION BY org_id, lone_caller
                ORDER BY island
            ) >= microseconds(merge_gap_s) THEN 1
            ELSE 0
        END AS is_first
    FROM islands
),
window_islands AS (
    SELECT
        org_id, lone_caller, island, passed_before, passed_by_then, next_passed_us,
        sum(is_first) OVER (
            PARTITION BY org_id, lone_caller
            ORDER BY island
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS window_number
    FROM with_pauses
),
ranked_refusals AS (
    SELECT
        island_refusals.org_id, island_refusals.lone_caller, island_refusals.caller, island_refusals.key_id,
        island_refusals.key_hash, island_refusals.route, island_refusals.request_id, island_refusals.intent,
        island_refusals.intent_confidence, island_refusals.end_us,
        window_islands.window_number, window_islands.passed_before, window_islands.passed_by_then,
        window_islands.next_passed_us,
        row_number() OVER (
            PARTITION BY island_refusals.org_id, island_refusals.lone_caller, window_islands.window_number
            ORDER BY island_refusals.end_us DESC, island_refusals.request_id NULLS LAST
        ) AS recency
    FROM island_refusals
    INNER JOIN window_islands
        ON window_islands.org_id IS NOT DISTINCT FROM island_refusals.org_id
        AND window_islands.lone_caller IS NOT DISTINCT FROM island_refusals.lone_caller
        AND window_islands.island = island_refusals.island
)
SELECT
    org_id,
    lone_caller,
    make_timestamptz(min(end_us)) AS first_refused_at,
    make_timestamptz(max(end_us)) AS last_refused_at,
    CASE WHEN bool_and(next_passed_us IS NOT NULL) THEN make_timestamptz(max(next_passed_us)) END AS passed_at,
    count(*) AS attempts,
    count(DISTINCT intent) + count(*) FILTER (WHERE intent IS NULL) AS distinct_intents,
    least_confidence(intent_confidence) AS intent_confidence,
    count(DISTINCT coalesce(key_id, key_hash)) AS keys,
    list_sort(list(DISTINCT caller) FILTER (WHERE caller IS NOT NULL)) AS callers,
    list_sort(list(DISTINCT route) FILTER (WHERE route IS NOT NULL)) AS routes,
    min(passed_before)::BIGINT AS passed_before,
    (max(passed_by_then) - min(passed_before))::BIGINT AS passed_meanwhile,
    list(request_id ORDER BY recency) FILTER (WHERE recency <= 3 AND request_id IS NOT NULL) AS example_request_ids
FROM ranked_refusals
GROUP BY org_id, lone_caller, window_number;

-- The moment up to which a question without, or with a later, `until` knows what happened.
CREATE OR REPLACE MACRO known_until(until) AS least(utc_moment(until), data_through());
