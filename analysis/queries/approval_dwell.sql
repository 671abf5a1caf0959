-- title: Waiting for approval
-- asks: Which organisations send before they are approved, since when, and do they keep trying?
-- chart: bar(org_id, attempts)
-- codes: approval_required
-- param since: only waits that were not over by then (UTC date or timestamp); they are told whole, from before since
-- param until: what was known then (UTC date or timestamp); later requests are left out
-- param for_org: only this org_id
-- param for_key: only waits in which this caller (key_id, else key_hash, else client_ip) was refused; they are told whole
-- param for_route: only waits in which this route was refused; they are told whole
-- param merge_gap_s: refusals that come less than this after a success belong to the wait before it: an approval takes
--   a moment to be known everywhere
-- param min_attempts: so many refusals are a wait also where they are over within min_wait_s or sends passed before
-- param min_wait_s: a shorter interruption of sends that pass is not enough data
-- param trying_s: an organisation that was refused within this before the end of the data keeps trying
-- columns:
--   org_id: organisation that was refused; NULL where the log does not name it
--   caller: key_id, else key_hash, else client_ip, where org_id is NULL: each such caller is an account of its own
--   state: waiting (never approved as far as the data go), approved (its sends pass since approved_at), withdrawn (sends
--     passed before, none since), approved again (they pass once more), or not enough data (sends passed before, and
--     the refusals are fewer than min_attempts or over within min_wait_s; or all of that without sends before)
--   is_still_refused: no send has passed since, up to until or the end of the data
--   first_refused_at: end of the first send refused with approval_required
--   last_refused_at: end of the latest one
--   approved_at: end of the first 2xx on a method and route that needs approval which began after the last refusal; NULL
--     while still refused. Approval is needed where approval_required occurs for anybody; a read that passes is none
--   waiting_days: days of 24 hours from first_refused_at to approved_at; while refused, to until or the end of the data
--   attempts: sends refused with approval_required
--   distinct_intents: things that they were to do: distinct idempotency keys, distinct paths that name an object, and
--     each attempt for itself where it has neither (at most so many)
--   intent_confidence: how sure that number is: high where every attempt has an idempotency key, medium where it has
--     one or its path names an object, low otherwise
--   keeps_trying: still refused, more than once, and again within trying_s before the end of the data: futile, since no
--     send passes before somebody approves
--   keys: distinct keys refused
--   routes: routes refused, in name order
--   passed_before: sends that passed before the first refusal
--   passed_meanwhile: sends that passed between the first and the last refusal
--   example_request_ids: the three latest refusals
CREATE OR REPLACE MACRO approval_dwell(
    since := NULL, until := NULL, for_org := NULL, for_key := NULL, for_route := NULL,
    merge_gap_s := 60, min_attempts := 3, min_wait_s := 60, trying_s := 86400
) AS TABLE
WITH waits AS (
    SELECT
        org_id, lone_caller, first_refused_at, last_refused_at, passed_at, attempts, distinct_intents,
        intent_confidence, keys, callers, routes, passed_before, passed_meanwhile, example_request_ids,
        (epoch_us(coalesce(passed_at, known_until(until))) - epoch_us(first_refused_at)) / 1e6 AS waiting_s
    FROM refusal_windows('approval_required', until, merge_gap_s)
)
SELECT
    org_id,
    lone_caller AS caller,
    CASE
        WHEN passed_before = 0 AND passed_at IS NULL THEN 'waiting'
        WHEN passed_before = 0 AND (attempts >= min_attempts OR waiting_s >= min_wait_s) THEN 'approved'
        WHEN attempts < min_attempts OR waiting_s < min_wait_s THEN 'not enough data'
        WHEN passed_at IS NULL THEN 'withdrawn'
        ELSE 'approved again'
    END AS state,
    passed_at IS NULL AS is_still_refused,
    first_refused_at,
    last_refused_at,
    passed_at AS approved_at,
    waiting_s / 86400 AS waiting_days,
    attempts,
    distinct_intents,
    intent_confidence,
    passed_at IS NULL
        AND attempts > 1
        AND epoch_us(known_until(until)) - epoch_us(last_refused_at) <= microseconds(trying_s) AS keeps_trying,
    keys,
    routes,
    passed_before,
    passed_meanwhile,
    example_request_ids
FROM waits
WHERE (since IS NULL OR passed_at IS NULL OR passed_at > utc_moment(since))
  AND (for_org IS NULL OR org_id = for_org)
  AND (for_key IS NULL OR list_contains(callers, for_key))
  AND (for_route IS NULL OR list_contains(routes, for_route))
ORDER BY
    state = 'not enough data', is_still_refused DESC, waiting_days DESC, attempts DESC,
    org_id NULLS LAST, caller NULLS LAST, first_refused_at;
