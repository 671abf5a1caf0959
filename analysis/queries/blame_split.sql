-- title: Whose fault
-- asks: Whose problems are the errors, with a looping client counted once, and did the platform itself begin to refuse?
-- chart: bar(blame, intents)
-- param since: first moment, inclusive (UTC date or timestamp); all when NULL
-- param until: last moment, exclusive (UTC date or timestamp); all when NULL
-- param for_org: only this org_id
-- param for_key: only this caller (key_id, else key_hash, else client_ip)
-- param for_route: only this route
-- param min_orgs: so many organisations that succeeded on a route a day before, and meet a code there for the first time
--     in 14 days, make a burst suspicious
-- param min_refused: if they are refused with it in this part of their requests there meanwhile
-- param min_share: and they are this part of the organisations that ask for the route meanwhile
-- param max_p: and so many are at most this likely by chance
-- columns:
--   blame: client, authorization, pacing, account, recipient or platform: the category of the code in the catalogue; of
--     other errors by status: 5xx platform, 401 and 403 authorization, 429 pacing, else client. Or platform suspected: a
--     burst of a client error that the platform may have caused itself, a row each; its errors are in a row above too
--   errors: errors, a line each
--   error_share: errors / all errors
--   intents: what clients wanted and did not get: errors of the same caller, method, path (or route that names no object)
--     and idempotency key (or recipient) count once
--   intent_share: intents / all intents with an error
--   callers: keys, or addresses without one, that met them
--   orgs: organisations that met them; of a suspicion those that met it for the first time
--   code: the most frequent code, gateway's reason or status; of a suspicion its code
--   method: of a suspicion its method
--   route: of a suspicion its route
--   started_at: first error
--   ended_at: last error; of a suspicion, when the last of its organisations met it: never ten minutes after the one before
--   orgs_active: of a suspicion, organisations that asked for the route meanwhile
--   expected_orgs: of a suspicion, how many meet the code there for the first time in so long a time otherwise
--   refused: of a suspicion, the part of the requests of its orgs on the route meanwhile that were refused so
--   p_value: of a suspicion, exact Poisson test of orgs against expected_orgs
--   example_request_ids: the three latest errors; of a suspicion the first of three organisations
CREATE OR REPLACE MACRO blame_split(
    since := NULL, until := NULL, for_org := NULL, for_key := NULL, for_route := NULL,
    min_orgs := 5, min_refused := 0.3, min_share := 0.2, max_p := 0.000001
) AS TABLE
WITH failures AS (
    SELECT
        failed.ts,
        failed.request_id,
        failed.org_id,
        failed.caller,
        failed.method,
        failed.route,
        failed.code,
        coalesce(failed.code, failed.gateway_reason, failed.status::VARCHAR) AS reason,
        blame_of(catalogue.category, failed.status, failed.code) AS blame,
        intent_path_of(failed.route, failed.path) AS intent_path,
        intent_token_of(failed.code, failed.idempotency_hash, failed.recipient_hash) AS intent_token
    FROM requests_in_scope(since, until, for_org, for_key, for_route) AS failed
    LEFT JOIN catalogue ON catalogue.code = failed.code
    WHERE failed.is_error
),
intents AS (
    SELECT blame, count(*) AS intents
    FROM (
        SELECT DISTINCT blame, caller, method, intent_path, intent_token
        FROM failures
    )
    GROUP BY ALL
),
reasons AS (
    SELECT blame, reason, row_number() OVER (PARTITION BY blame ORDER BY errors DESC, reason) AS place
    FROM (
        SELECT blame, reason, count(*) AS errors
        FROM failures
        GROUP BY ALL
    )
),
latest AS (
    SELECT
        blame, request_id,
        row_number() OVER (PARTITION BY blame ORDER BY ts DESC, request_id) AS recency
    FROM failures
    WHERE request_id IS NOT NULL
),
examples AS (
    SELECT blame, list(request_id ORDER BY recency) AS example_request_ids
    FROM latest
    WHERE recency <= 3
    GROUP BY ALL
),
blamed AS (
    SELECT
        blame,
        count(*) AS errors,
        count(DISTINCT caller) AS callers,
        count(DISTINCT org_id) AS orgs,
        min(ts) AS started_at,
        max(ts) AS ended_at
    FROM failures
    GROUP BY ALL
),
-- When each organisation met a code on a route, also in the 14 days before; what is the platform's anyway is left out.
refusals AS (
    SELECT
        refused.org_id, refused.method, refused.route, refused.code,
        epoch_us(refused.ts) AS ended_us,
        epoch_us(refused.ts) - lag(epoch_us(refused.ts)) OVER (
            PARTITION BY refused.org_id, refused.method, refused.route, refused.code
            ORDER BY refused.ts, refused.request_id
        ) AS since_last_us
    FROM requests AS refused
    LEFT JOIN catalogue ON catalogue.code = refused.code
    WHERE refused.kind = 'error'
      AND refused.code IS NOT NULL
      AND refused.org_id IS NOT NULL
      AND refused.status < 500
      AND blame_of(catalogue.category, refused.status, refused.code) NOT IN ('platform', 'pacing')
      AND (since IS NULL OR refused.day >= (since::TIMESTAMP - INTERVAL 15 DAY)::DATE)
      AND (until IS NULL OR (refused.day <= until::TIMESTAMP::DATE AND refused.ts < utc_moment(until)))
      AND (for_org IS NULL OR refused.org_id = for_org)
      AND (for_key IS NULL OR refused.caller = for_key)
      AND (for_route IS NULL OR refused.route = for_route)
),
-- Who succeeded there a day before already: at the beginning of the data, or of a customer, everything is met first.
successes AS (
    SELECT org_id, method, route, epoch_us(min(first_ts)) AS first_us
    FROM request_counts(NULL, until, for_org, for_key, for_route)
    WHERE NOT is_error
      AND org_id IS NOT NULL
    GROUP BY ALL
),
first_meetings AS (
    SELECT
        refusals.org_id, refusals.method, refusals.route, refusals.code, refusals.ended_us,
        refusals.ended_us - lag(refusals.ended_us) OVER (
            PARTITION BY refusals.method, refusals.route, refusals.code
            ORDER BY refusals.ended_us, refusals.org_id
        ) AS pause_us
    FROM refusals
    INNER JOIN successes
        ON successes.org_id = refusals.org_id
        AND successes.method IS NOT DISTINCT FROM refusals.method
        AND successes.route IS NOT DISTINCT FROM refusals.route
    WHERE (refusals.since_last_us IS NULL OR refusals.since_last_us >= 14 * 86400000000)
      AND refusals.ended_us - successes.first_us >= 86400000000
),
numbered AS (
    SELECT
        org_id, method, route, code, ended_us,
        -- Those in a row, never ten minutes between two of them, are one burst.
        sum(CASE WHEN pause_us <= 600000000 THEN 0 ELSE 1 END) OVER (
            PARTITION BY method, route, code
            ORDER BY ended_us, org_id
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS burst
    FROM first_meetings
),
meetings AS (
    SELECT method, route, code, count(*) AS meetings
    FROM first_meetings
    GROUP BY ALL
),
known AS (
    SELECT greatest(
        1,
        coalesce(epoch_us(utc_moment(until)), epoch_us(data_through()))
            - greatest(epoch_us(data_begins()), coalesce(epoch_us(utc_moment(since)) - 15 * 86400000000, 0))
    ) AS length_us
),
large_bursts AS (
    SELECT
        method, route, code, burst::BIGINT AS burst,
        count(*) AS orgs,
        min(ended_us) AS first_us,
        max(ended_us) AS last_us
    FROM numbered
    GROUP BY ALL
    HAVING count(*) >= min_orgs
       AND (since IS NULL OR max(ended_us) >= epoch_us(utc_moment(since)))
),
with_expected AS (
    SELECT
        large_bursts.method, large_bursts.route, large_bursts.code, large_bursts.burst, large_bursts.orgs,
        large_bursts.first_us, large_bursts.last_us,
        (meetings.meetings - large_bursts.orgs + 0.5)
            * (large_bursts.last_us - large_bursts.first_us + 60000000) / known.length_us AS expected_orgs
    FROM large_bursts
    CROSS JOIN known
    INNER JOIN meetings
        ON meetings.method IS NOT DISTINCT FROM large_bursts.method
        AND meetings.route IS NOT DISTINCT FROM large_bursts.route
        AND meetings.code = large_bursts.code
),
-- What may well be chance is not looked into: that would read the requests of all times.
bursts AS (
    SELECT method, route, code, burst, orgs, first_us, last_us, expected_orgs
    FROM with_expected
    WHERE is_beyond(orgs, expected_orgs, 0, 3)
),
hit_orgs AS (
    SELECT DISTINCT bursts.method, bursts.route, bursts.code, bursts.burst, numbered.org_id
    FROM bursts
    INNER JOIN numbered
        ON numbered.method IS NOT DISTINCT FROM bursts.method
        AND numbered.route IS NOT DISTINCT FROM bursts.route
        AND numbered.code = bursts.code
        AND numbered.burst = bursts.burst
),
-- Everything that was asked of the route from the first meeting to the last.
asked_meanwhile AS (
    SELECT
        bursts.method, bursts.route, bursts.code, bursts.burst, bursts.orgs, bursts.first_us, bursts.last_us,
        bursts.expected_orgs,
        asked.org_id, asked.caller, asked.ts, asked.request_id,
        asked.is_error AND asked.code IS NOT DISTINCT FROM bursts.code AS is_refused,
        hit_orgs.org_id IS NOT NULL AS is_hit,
        intent_path_of(asked.route, asked.path) AS intent_path,
        intent_token_of(asked.code, asked.idempotency_hash, asked.recipient_hash) AS intent_token
    FROM bursts
    INNER JOIN requests AS asked
        ON asked.method IS NOT DISTINCT FROM bursts.method
        AND asked.route IS NOT DISTINCT FROM bursts.route
        AND asked.ts BETWEEN make_timestamptz(bursts.first_us) AND make_timestamptz(bursts.last_us)
    LEFT JOIN hit_orgs
        ON hit_orgs.method IS NOT DISTINCT FROM bursts.method
        AND hit_orgs.route IS NOT DISTINCT FROM bursts.route
        AND hit_orgs.code = bursts.code
        AND hit_orgs.burst = bursts.burst
        AND hit_orgs.org_id = asked.org_id
    WHERE (for_org IS NULL OR asked.org_id = for_org)
      AND (for_key IS NULL OR asked.caller = for_key)
),
refused_meanwhile AS (
    SELECT
        method, route, code, burst, org_id, caller, ts, request_id, intent_path, intent_token,
        row_number() OVER (
            PARTITION BY method, route, code, burst, org_id
            ORDER BY ts, request_id
        ) AS place_of_org
    FROM asked_meanwhile
    WHERE is_refused
      AND is_hit
),
first_of_orgs AS (
    SELECT
        method, route, code, burst, request_id,
        row_number() OVER (PARTITION BY method, route, code, burst ORDER BY ts, request_id) AS place
    FROM refused_meanwhile
    WHERE place_of_org = 1
      AND request_id IS NOT NULL
),
suspicious_examples AS (
    SELECT method, route, code, burst, list(request_id ORDER BY place) AS example_request_ids
    FROM first_of_orgs
    WHERE place <= 3
    GROUP BY ALL
),
suspicious_intents AS (
    SELECT method, route, code, burst, count(*) AS intents
    FROM (
        SELECT DISTINCT method, route, code, burst, caller, intent_path, intent_token
        FROM refused_meanwhile
    )
    GROUP BY ALL
),
suspicious AS (
    SELECT
        method, route, code, burst, orgs, first_us, last_us, expected_orgs,
        count(*) FILTER (WHERE is_refused AND is_hit) AS errors,
        count(*) FILTER (WHERE is_hit) AS requests,
        count(DISTINCT caller) FILTER (WHERE is_refused AND is_hit) AS callers,
        count(DISTINCT org_id) AS orgs_active
    FROM asked_meanwhile
    GROUP BY ALL
)
SELECT
    blamed.blame,
    blamed.errors,
    blamed.errors / sum(blamed.errors) OVER () AS error_share,
    intents.intents,
    intents.intents / sum(intents.intents) OVER () AS intent_share,
    blamed.callers,
    blamed.orgs,
    reasons.reason AS code,
    NULL AS method,
    NULL AS route,
    blamed.started_at,
    blamed.ended_at,
    NULL::BIGINT AS orgs_active,
    NULL::DOUBLE AS expected_orgs,
    NULL::DOUBLE AS refused,
    examples.example_request_ids
FROM blamed
INNER JOIN intents ON intents.blame = blamed.blame
INNER JOIN reasons ON reasons.blame = blamed.blame AND reasons.place = 1
LEFT JOIN examples ON examples.blame = blamed.blame
UNION ALL
SELECT
    'platform suspected' AS blame,
    suspicious.errors,
    suspicious.errors / nullif((SELECT count(*) FROM failures), 0) AS error_share,
    suspicious_intents.intents,
    suspicious_intents.intents / nullif((SELECT sum(intents) FROM intents), 0) AS intent_share,
    suspicious.callers,
    suspicious.orgs,
    suspicious.code,
    suspicious.method,
    suspicious.route,
    make_timestamptz(suspicious.first_us) AS started_at,
    make_timestamptz(suspicious.last_us) AS ended_at,
    suspicious.orgs_active,
    suspicious.expected_orgs,
    suspicious.errors / nullif(suspicious.requests, 0) AS refused,
    suspicious_examples.example_request_ids
FROM suspicious
INNER JOIN suspicious_intents
    ON suspicious_intents.method IS NOT DISTINCT FROM suspicious.method
    AND suspicious_intents.route IS NOT DISTINCT FROM suspicious.route
    AND suspicious_intents.code = suspicious.code
    AND suspicious_intents.burst = suspicious.burst
LEFT JOIN suspicious_examples
    ON suspicious_examples.method IS NOT DISTINCT FROM suspicious.method
    AND suspicious_examples.route IS NOT DISTINCT FROM suspicious.route
    AND suspicious_examples.code = suspicious.code
    AND suspicious_examples.burst = suspicious.burst
WHERE suspicious.errors >= min_refused * suspicious.requests
  AND suspicious.orgs >= min_share * suspicious.orgs_active
ORDER BY blame = 'platform suspected', intents DESC, blame, started_at, method NULLS LAST, route NULLS LAST, code;
