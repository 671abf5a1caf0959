-- title: Sends to blocked recipients
-- asks: Who sends to people who are blocked or have opted out: again and again, or from a stale list?
-- chart: bar(org_id, refused)
-- codes: dnc_blocked, opted_out
-- param since: only requests at or after this (UTC date or timestamp); what was told before counts for resends all the same
-- param until: only requests before this (UTC date or timestamp); later ones are left out
-- param for_org: only this org_id
-- param for_key: only this caller (key_id, else key_hash, else client_ip)
-- param for_route: only this route
-- param min_resends: fewer resends are no repeats
-- param again_share: repeats where so great a share of the refused sends are resends: each recipient four times on average
-- param min_resend_share: repeats also where this share of the refused sends are resends, and the caller resends often
-- param often_share: a caller resends often where this share of all its sends are resends
-- param spike_window_s: how short the time of a spike is
-- param min_spike_recipients: fewer recipients refused within spike_window_s are no spike
-- param min_spike_share: a smaller share of refused sends in that time is no spike: a long list has some
-- param spike_factor: a spike has at least so many times the caller's usual share
-- param min_usual_hours: a caller that sent in fewer hours has no usual share
-- param min_sends: fewer sends are not enough data to call the refusals occasional or steady
-- param max_occasional_share: up to this share of its sends refused, a caller has the odd refusal that everybody has
-- param min_contact_orgs: an address that the refusals of so many organisations name, and of more than half of all, is
--   a contact and no recipient
-- columns:
--   org_id: organisation of the caller, where the log names it
--   caller: key_id, else key_hash, else client_ip
--   verdict: repeats (the same recipients again and again after having been told), spike (many recipients for the first
--     time within spike_window_s, a large share of the sends and far more than usual: a stale list), steady (more than
--     max_occasional_share, without either: lists that nobody cleans), occasional (no more than that and hardly anybody
--     again, which is normal), or not enough data (too few sends, or a larger share whose recipients the log does not
--     name)
--   refused: sends answered dnc_blocked or opted_out
--   codes: the codes met, in name order
--   sends: requests of the caller on the methods and routes on which anybody is so refused
--   share: refused / sends
--   org_share: refused / sends of the whole organisation there; where the log names none, as share
--   known: refused sends whose recipient is known by its fingerprint, recipient_hash
--   recipients: distinct recipients among these
--   resends: refused sends that began after the same organisation had been refused the same recipient
--   most_to_one: refused sends to the recipient that got most of them
--   peak_recipients: most recipients refused within spike_window_s that were not refused in as long before
--   peak_started_at: the first refusal of that time
--   peak_share: refused / sends in the clock hours (UTC) that it touches; NULL below min_spike_recipients
--   usual_share: median, over the clock hours in which the caller sends, of refused / sends; NULL as peak_share
--   refused_days: days (UTC) with a refusal
--   first_seen: first refused send
--   last_seen: latest one
--   example_request_ids: the three latest refused sends, resends before others
CREATE OR REPLACE MACRO blocked_resends(
    since := NULL, until := NULL, for_org := NULL, for_key := NULL, for_route := NULL,
    min_resends := 5, again_share := 0.75, min_resend_share := 0.2, often_share := 0.02,
    spike_window_s := 3600, min_spike_recipients := 20, min_spike_share := 0.1, spike_factor := 3.0,
    min_usual_hours := 24, min_sends := 20, max_occasional_share := 0.05, min_contact_orgs := 5
) AS TABLE
WITH told AS (
    SELECT
        org_id, caller, method, route, code, request_id, recipient_hash, day, ts,
        coalesce('org ' || org_id, 'caller ' || caller) AS account,
        start_us(ts, latency_ms) AS start_us,
        epoch_us(ts) AS end_us,
        since IS NULL OR ts >= utc_moment(since) AS is_current
    FROM requests
    WHERE kind = 'error'
      AND code IN ('dnc_blocked', 'opted_out')
      AND (until IS NULL OR (day <= until::TIMESTAMP::DATE AND ts < utc_moment(until)))
),
contacts AS (
    SELECT recipient_hash
    FROM told
    WHERE recipient_hash IS NOT NULL
    GROUP BY recipient_hash
    HAVING count(DISTINCT account) >= min_contact_orgs
       AND 2 * count(DISTINCT account) > (SELECT count(DISTINCT account) FROM told)
),
send_routes AS (
    SELECT DISTINCT method, route
    FROM told
    WHERE for_route IS NULL OR route = for_route
),
refusals AS (
    SELECT
        told.org_id, told.caller, told.account, told.code, told.request_id, told.day, told.ts, told.is_current,
        told.start_us, told.end_us,
        CASE WHEN contacts.recipient_hash IS NULL THEN told.recipient_hash END AS recipient
    FROM told
    LEFT JOIN contacts USING (recipient_hash)
    WHERE (for_org IS NULL OR told.org_id = for_org)
      AND (for_route IS NULL OR told.route = for_route)
),
-- Of sends at the same time neither was told what the other was answered.
compared AS (
    SELECT
        org_id, caller, code, request_id, day, ts, is_current, end_us, recipient,
        recipient IS NOT NULL AND coalesce(
            min(end_us) OVER (
                PARTITION BY account, recipient
                ORDER BY start_us, end_us, request_id NULLS LAST
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
            ) <= start_us + clock_error_us(),
            false
        ) AS is_resend,
        recipient IS NOT NULL AND coalesce(
            end_us - lag(end_us) OVER (
                PARTITION BY org_id, caller, recipient
                ORDER BY end_us, request_id NULLS LAST
            ) > microseconds(spike_window_s),
            true
        ) AS is_fresh
    FROM refusals
),
found AS (
    SELECT
        org_id, caller, code, request_id, day, ts, end_us, recipient, is_resend, is_fresh,
        count(*) OVER (PARTITION BY org_id, caller, recipient) AS sends_to_it,
        row_number() OVER (
            PARTITION BY org_id, caller
            ORDER BY is_resend DESC, end_us DESC, request_id NULLS LAST
        ) AS example
    FROM compared
    WHERE is_current
      AND (for_key IS NULL OR caller = for_key)
),
per_caller AS (
    SELECT
        org_id, caller,
        count(*) AS refused,
        list_sort(list(DISTINCT code)) AS codes,
        count(recipient) AS known,
        count(DISTINCT recipient) AS recipients,
        count(*) FILTER (WHERE is_resend) AS resends,
        max(CASE WHEN recipient IS NOT NULL THEN sends_to_it END) AS most_to_one,
        count(DISTINCT day) AS refused_days,
        min(ts) AS first_seen,
        max(ts) AS last_seen,
        list(request_id ORDER BY example) FILTER (WHERE example <= 3 AND request_id IS NOT NULL) AS example_request_ids
    FROM found
    GROUP BY org_id, caller
),
fresh AS (
    SELECT org_id, caller, end_us
    FROM found
    WHERE is_fresh
),
-- How many there are within spike_window_s rises with each and falls again when that is over.
steps AS (
    SELECT org_id, caller, end_us AS moment_us, 1 AS step
    FROM fresh
    UNION ALL
    SELECT org_id, caller, end_us + microseconds(spike_window_s) + 1 AS moment_us, -1 AS step
    FROM fresh
),
levels AS (
    SELECT
        org_id, caller, moment_us, step,
        sum(step) OVER (
            PARTITION BY org_id, caller
            ORDER BY moment_us, step
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS recipients
    FROM steps
),
ranked_levels AS (
    SELECT
        org_id, caller, moment_us, recipients,
        row_number() OVER (PARTITION BY org_id, caller ORDER BY recipients DESC, moment_us) AS place
    FROM levels
    WHERE step = 1
),
peaks AS (
    SELECT
        fresh.org_id, fresh.caller,
        max(ranked_levels.recipients)::BIGINT AS recipients,
        min(fresh.end_us) AS began_us,
        max(ranked_levels.moment_us) AS end_us
    FROM ranked_levels
    INNER JOIN fresh
        ON fresh.org_id IS NOT DISTINCT FROM ranked_levels.org_id
        AND fresh.caller IS NOT DISTINCT FROM ranked_levels.caller
        AND fresh.end_us BETWEEN ranked_levels.moment_us - microseconds(spike_window_s) AND ranked_levels.moment_us
    WHERE ranked_levels.place = 1
    GROUP BY fresh.org_id, fresh.caller
),
-- Of all callers of the organisations, for their share.
caller_sends AS (
    SELECT sent.org_id, sent.caller, sum(sent.requests) AS sends
    FROM request_counts(since, until, for_org, NULL, for_route) AS sent
    INNER JOIN send_routes
        ON send_routes.method IS NOT DISTINCT FROM sent.method
        AND send_routes.route IS NOT DISTINCT FROM sent.route
    WHERE (sent.org_id IN (SELECT org_id FROM per_caller)) IS TRUE
       OR sent.org_id IS NULL
    GROUP BY sent.org_id, sent.caller
),
org_sends AS (
    SELECT org_id, sum(sends) AS sends
    FROM caller_sends
    WHERE org_id IS NOT NULL
    GROUP BY org_id
),
-- Few callers have refusals enough for a spike: of theirs alone the time is read.
sends_by_hour AS (
    SELECT
        sent.org_id, sent.caller,
        epoch_us(sent.ts) // 3600000000 AS hour_number,
        count(*) AS sends,
        count(*) FILTER (WHERE coalesce(sent.code IN ('dnc_blocked', 'opted_out'), false)) AS refused
    FROM requests_in_scope(since, until, for_org, NULL, for_route) AS sent
    INNER JOIN send_routes
        ON send_routes.method IS NOT DISTINCT FROM sent.method
        AND send_routes.route IS NOT DISTINCT FROM sent.route
    WHERE (sent.caller IN (SELECT caller FROM peaks WHERE recipients >= min_spike_recipients)) IS TRUE
    GROUP BY ALL
),
in_peaks AS (
    SELECT
        peaks.org_id, peaks.caller,
        count(*) AS hours,
        quantile_cont(sends_by_hour.refused / sends_by_hour.sends, 0.5) AS usual_share,
        sum(sends_by_hour.refused) FILTER (
            WHERE sends_by_hour.hour_number BETWEEN peaks.began_us // 3600000000 AND peaks.end_us // 3600000000
        ) / nullif(sum(sends_by_hour.sends) FILTER (
            WHERE sends_by_hour.hour_number BETWEEN peaks.began_us // 3600000000 AND peaks.end_us // 3600000000
        ), 0) AS peak_share
    FROM peaks
    INNER JOIN sends_by_hour
        ON sends_by_hour.org_id IS NOT DISTINCT FROM peaks.org_id
        AND sends_by_hour.caller IS NOT DISTINCT FROM peaks.caller
    WHERE peaks.recipients >= min_spike_recipients
    GROUP BY peaks.org_id, peaks.caller
),
measured AS (
    SELECT
        per_caller.org_id, per_caller.caller, refused, codes, caller_sends.sends,
        refused / caller_sends.sends AS share,
        refused / coalesce(org_sends.sends, caller_sends.sends) AS org_share,
        known, per_caller.recipients, resends, most_to_one,
        coalesce(peaks.recipients, 0) AS peak_recipients,
        make_timestamptz(peaks.began_us) AS peak_started_at,
        in_peaks.peak_share, in_peaks.usual_share, in_peaks.hours,
        refused_days, first_seen, last_seen, example_request_ids
    FROM per_caller
    INNER JOIN caller_sends
        ON caller_sends.org_id IS NOT DISTINCT FROM per_caller.org_id
        AND caller_sends.caller IS NOT DISTINCT FROM per_caller.caller
    LEFT JOIN org_sends ON org_sends.org_id = per_caller.org_id
    LEFT JOIN peaks
        ON peaks.org_id IS NOT DISTINCT FROM per_caller.org_id
        AND peaks.caller IS NOT DISTINCT FROM per_caller.caller
    LEFT JOIN in_peaks
        ON in_peaks.org_id IS NOT DISTINCT FROM per_caller.org_id
        AND in_peaks.caller IS NOT DISTINCT FROM per_caller.caller
)
SELECT
    org_id,
    caller,
    CASE
        WHEN resends >= min_resends AND resends >= again_share * known THEN 'repeats'
        WHEN peak_recipients >= min_spike_recipients
            AND peak_share >= min_spike_share
            AND (hours < min_usual_hours OR peak_share >= spike_factor * usual_share) THEN 'spike'
        WHEN resends >= min_resends
            AND resends >= min_resend_share * known
            AND resends >= often_share * sends THEN 'repeats'
        WHEN sends < min_sends THEN 'not enough data'
        WHEN share <= max_occasional_share THEN 'occasional'
        WHEN 2 * known < refused THEN 'not enough data'
        ELSE 'steady'
    END AS verdict,
    refused,
    codes,
    sends::BIGINT AS sends,
    share,
    org_share,
    known,
    recipients,
    resends,
    most_to_one,
    peak_recipients,
    peak_started_at,
    peak_share,
    usual_share,
    refused_days,
    first_seen,
    last_seen,
    example_request_ids
FROM measured
ORDER BY
    verdict IN ('occasional', 'not enough data'), refused DESC, org_id NULLS LAST, caller NULLS LAST;
