-- title: Credit outages
-- asks: Which organisations ran out of credits, since when, for how long, and what did it cost them?
-- chart: bar(org_id, attempts)
-- codes: insufficient_credits
-- param since: only outages that were not over by then (UTC date or timestamp); they are told whole, from before since
-- param until: what was known then (UTC date or timestamp); later requests are left out, so an outage may still be open
-- param for_org: only this org_id
-- param for_key: only outages that hit this caller (key_id, else key_hash, else client_ip); they are told whole
-- param for_route: only outages that hit this route; they are told whole
-- param merge_gap_s: outages with less than this between the end of one and the start of the next are one
-- param min_attempts: fewer refusals are not enough data
-- param min_passed: so great a share of sends that pass meanwhile makes the outage a partial one
-- param recurrence_days: how far back earlier outages are counted
-- columns:
--   org_id: organisation that was refused; NULL where the log does not name it
--   caller: key_id, else key_hash, else client_ip, where org_id is NULL: each such caller is an account of its own
--   verdict: not enough data (fewer than min_attempts refusals, or one intent alone for less than merge_gap_s), else
--     partial outage (sends passed meanwhile: the balance covered some, or came and went), else outage
--   is_open: no send has passed since, up to until or the end of the data
--   started_at: end of the first send refused with insufficient_credits
--   ended_at: end of the first 2xx on a billable method and route that began after the last refusal; NULL while open.
--     Billable is where insufficient_credits occurs for anybody; a success elsewhere, a read for instance, ends nothing
--   duration_s: seconds from started_at to ended_at; while open, to until or the end of the data
--   attempts: sends refused with insufficient_credits
--   distinct_intents: things that they were to do: distinct idempotency keys, distinct paths that name an object, and
--     each attempt for itself where it has neither (at most so many)
--   intent_confidence: how sure that number is: high where every attempt has an idempotency key, medium where it has
--     one or its path names an object, low otherwise
--   keys: distinct keys refused
--   routes: routes refused, in name order
--   passed_meanwhile: billable sends of the organisation that passed between the first and the last refusal
--   refused_share: attempts / (attempts + passed_meanwhile)
--   last_refused_at: end of the latest refusal; long before the end of the data, the organisation has stopped trying
--   earlier_outages: outages of the organisation, not those without enough data, that started in the recurrence_days
--     before
--   example_request_ids: the three latest refusals
CREATE OR REPLACE MACRO credit_outages(
    since := NULL, until := NULL, for_org := NULL, for_key := NULL, for_route := NULL,
    merge_gap_s := 600, min_attempts := 2, min_passed := 0.1, recurrence_days := 90
) AS TABLE
WITH outages AS (
    SELECT
        org_id, lone_caller, first_refused_at, last_refused_at, passed_at, attempts, distinct_intents,
        intent_confidence, keys, callers, routes, passed_meanwhile, example_request_ids,
        epoch_us(first_refused_at) AS started_us,
        (epoch_us(coalesce(passed_at, known_until(until))) - epoch_us(first_refused_at)) / 1e6 AS duration_s,
        attempts / nullif(attempts + passed_meanwhile, 0) AS refused_share
    FROM refusal_windows('insufficient_credits', until, merge_gap_s)
),
judged_outages AS (
    SELECT
        org_id, lone_caller, first_refused_at, last_refused_at, passed_at, attempts, distinct_intents,
        intent_confidence, keys, callers, routes, passed_meanwhile, example_request_ids, started_us, duration_s,
        refused_share,
        CASE
            WHEN attempts < min_attempts OR (distinct_intents = 1 AND duration_s < merge_gap_s) THEN 'not enough data'
            WHEN refused_share <= 1 - min_passed THEN 'partial outage'
            ELSE 'outage'
        END AS verdict
    FROM outages
),
recurrences AS (
    SELECT recurring.org_id, recurring.lone_caller, recurring.started_us, count(*) AS earlier_outages
    FROM judged_outages AS recurring
    INNER JOIN judged_outages AS earlier
        ON earlier.org_id IS NOT DISTINCT FROM recurring.org_id
        AND earlier.lone_caller IS NOT DISTINCT FROM recurring.lone_caller
        AND earlier.started_us < recurring.started_us
        AND earlier.started_us >= recurring.started_us - microseconds(86400 * recurrence_days)
    WHERE earlier.verdict <> 'not enough data'
    GROUP BY ALL
)
SELECT
    judged_outages.org_id,
    judged_outages.lone_caller AS caller,
    verdict,
    passed_at IS NULL AS is_open,
    first_refused_at AS started_at,
    passed_at AS ended_at,
    duration_s,
    attempts,
    distinct_intents,
    intent_confidence,
    keys,
    routes,
    passed_meanwhile,
    refused_share,
    last_refused_at,
    coalesce(recurrences.earlier_outages, 0) AS earlier_outages,
    example_request_ids
FROM judged_outages
LEFT JOIN recurrences
    ON recurrences.org_id IS NOT DISTINCT FROM judged_outages.org_id
    AND recurrences.lone_caller IS NOT DISTINCT FROM judged_outages.lone_caller
    AND recurrences.started_us = judged_outages.started_us
WHERE (since IS NULL OR passed_at IS NULL OR passed_at > utc_moment(since))
  AND (for_org IS NULL OR judged_outages.org_id = for_org)
  AND (for_key IS NULL OR list_contains(callers, for_key))
  AND (for_route IS NULL OR list_contains(routes, for_route))
ORDER BY
    verdict = 'not enough data', is_open DESC, distinct_intents DESC, attempts DESC, started_at,
    judged_outages.org_id NULLS LAST, caller NULLS LAST;
