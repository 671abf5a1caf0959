-- title: Playbook
-- asks: What is behind the errors of each customer, who has to act, and what should the customer be told?
-- chart: stacked(caller, errors, code)
-- param since: first moment, inclusive (UTC date or timestamp); all when NULL
-- param until: last moment, exclusive (UTC date or timestamp); all when NULL
-- param for_org: only this org_id
-- param for_key: only this caller (key_id, else key_hash, else client_ip)
-- param for_code: only this code
-- param for_route: only this route
-- param min_errors: fewer errors of a caller with a code are left out
-- columns:
--   code: what the errors were answered: the code, else the gateway's reason, else the status
--   org_id: organisation of the errors
--   caller: key_id, else key_hash, else client_ip
--   errors: how many
--   requests: requests of the caller to the methods and routes of the errors, whatever their answer
--   first_seen: earliest error
--   last_seen: latest error
--   is_over: did the caller succeed later on the method and route of its latest error?
--   branch: what the data show to be behind the code, "not enough data" where they show too little, "no rule for this
--     code" where nobody wrote down what to look for. Where a question of its own judges the code, by the same
--     definitions, on the route with most of the errors: scope_misuse, rejected_keys, enumeration, approval_dwell,
--     credit_outages, blocked_resends
--   owner: who has to act: client, account_team or platform; that of the catalogue unless the branch says otherwise
--   evidence: the counts that the branch was told by, in a phrase
--   example_request_ids: the three latest errors
--   sentence: what happens, since when, how often, and what to do, for a ticket or a mail to the customer
CREATE OR REPLACE MACRO playbook(
    since := NULL, until := NULL, for_org := NULL, for_key := NULL, for_code := NULL, for_route := NULL,
    min_errors := 5
) AS TABLE
-- Of the wide columns only what the codes need that are told by them.
WITH all_failures AS (
    SELECT
        coalesce(code, gateway_reason, status::VARCHAR) AS answer,
        code, status, org_id, caller, method, route, ts, request_id, retry_after_s,
        recipient_hash, idempotency_hash, latency_ms, key_id, key_hash,
        CASE WHEN code = 'not_found' THEN path END AS path,
        CASE WHEN code = 'invalid_api_key' THEN message END AS message,
        CASE WHEN code = 'validation_failed' THEN details END AS details
    FROM requests
    WHERE kind = 'error'
      AND (since IS NULL OR (day >= since::TIMESTAMP::DATE AND ts >= utc_moment(since)))
      AND (until IS NULL OR (day <= until::TIMESTAMP::DATE AND ts < utc_moment(until)))
),
cells AS (
    SELECT
        answer, org_id, caller,
        count(*) AS errors,
        min(ts) AS first_seen,
        max(ts) AS last_seen,
        max(status) AS status,
        bool_or(key_id IS NOT NULL) AS has_key_id,
        bool_or(key_id IS NOT NULL OR key_hash IS NOT NULL) AS is_keyed,
        count(DISTINCT idempotency_hash) AS idempotency_keys,
        count(idempotency_hash) AS errors_with_key,
        row_number() OVER (
            ORDER BY count(*) DESC, answer, org_id NULLS LAST, caller NULLS LAST
        ) AS cell
    FROM all_failures
    WHERE (for_org IS NULL OR org_id = for_org)
      AND (for_key IS NULL OR caller = for_key)
      AND (for_code IS NULL OR answer = for_code)
      AND (for_route IS NULL OR route = for_route)
    GROUP BY answer, org_id, caller
    HAVING count(*) >= min_errors
),
failures AS (
    SELECT
        cells.cell, all_failures.answer, all_failures.code, all_failures.status, all_failures.org_id,
        all_failures.caller, all_failures.method, all_failures.route, all_failures.path, all_failures.ts,
        all_failures.request_id, all_failures.message, all_failures.details, all_failures.retry_after_s,
        all_failures.recipient_hash, all_failures.idempotency_hash, all_failures.latency_ms, all_failures.key_hash
    FROM all_failures
    INNER JOIN cells
        ON cells.answer = all_failures.answer
        AND cells.org_id IS NOT DISTINCT FROM all_failures.org_id
        AND cells.caller IS NOT DISTINCT FROM all_failures.caller
    WHERE for_route IS NULL OR all_failures.route = for_route
),
examples AS (
    SELECT
        cell,
        list(request_id ORDER BY recency) FILTER (WHERE recency <= 3 AND request_id IS NOT NULL) AS example_request_ids
    FROM (
        SELECT
            cell, request_id,
            row_number() OVER (PARTITION BY cell ORDER BY ts DESC, request_id NULLS LAST) AS recency
        FROM failures
    )
    GROUP BY cell
),
places AS (
    SELECT
        cell, org_id, caller, method, route, errors, first_seen, last_seen,
        row_number() OVER (PARTITION BY cell ORDER BY errors DESC, route NULLS LAST, method NULLS LAST) AS place,
        row_number() OVER (PARTITION BY cell ORDER BY last_seen DESC, route NULLS LAST, method NULLS LAST) AS recency
    FROM (
        SELECT
            cell, org_id, caller, method, route,
            count(*) AS errors,
            min(ts) AS first_seen,
            max(ts) AS last_seen
        FROM failures
        GROUP BY ALL
    )
),
-- Of successes only the counts by day are read.
asked AS (
    SELECT
        org_id, caller, method, route,
        sum(requests) AS requests,
        coalesce(sum(requests) FILTER (WHERE NOT is_error), 0) AS successes
    FROM request_counts(since, until, NULL, NULL, NULL)
    GROUP BY ALL
),
ever AS (
    SELECT
        org_id, caller, method, route,
        bool_or(key_id IS NOT NULL OR key_hash IS NOT NULL) AS is_keyed,
        sum(requests) AS successes,
        min(first_ts) AS first_success,
        max(last_ts) AS last_success
    FROM request_counts(NULL, until, NULL, NULL, NULL)
    WHERE NOT is_error
    GROUP BY ALL
),
caller_totals AS (
    SELECT caller, sum(requests) AS requests, sum(successes) AS successes
    FROM asked
    WHERE for_org IS NULL OR org_id = for_org
    GROUP BY ALL
),
caller_successes AS (
    SELECT caller, max(last_success) AS last_success
    FROM ever
    GROUP BY ALL
),
route_totals AS (
    SELECT method, route, sum(requests) AS requests
    FROM asked
    GROUP BY ALL
),
route_successes AS (
    SELECT method, route, sum(successes) AS successes
    FROM ever
    GROUP BY ALL
),
route_errors AS (
    SELECT method, route, answer, count(*) AS errors, count(DISTINCT caller) AS callers
    FROM all_failures
    GROUP BY ALL
),
place_totals AS (
    SELECT
        places.cell,
        count(*) AS routes,
        sum(asked.requests) AS requests,
        bool_or(places.recency = 1 AND coalesce(ever.last_success > places.last_seen, false)) AS is_over,
        max(places.method) FILTER (WHERE places.place = 1) AS method,
        max(places.route) FILTER (WHERE places.place = 1) AS route,
        max(places.errors) FILTER (WHERE places.place = 1) AS route_errors,
        max(asked.requests) FILTER (WHERE places.place = 1) AS route_requests,
        max(asked.successes) FILTER (WHERE places.place = 1) AS route_successes,
        max(ever.last_success) FILTER (WHERE places.place = 1) AS route_last_success,
        coalesce(bool_or(places.place = 1 AND ever.first_success < places.first_seen), false) AS has_worked_here,
        coalesce(max(route_successes.successes) FILTER (WHERE places.place = 1), 0) AS anybodys_successes,
        max(route_totals.requests - asked.requests) FILTER (WHERE places.place = 1) AS others_requests,
        max(route_errors.errors - places.errors) FILTER (WHERE places.place = 1) AS others_errors,
        max(route_errors.callers) FILTER (WHERE places.place = 1) AS route_callers
    FROM places
    INNER JOIN cells ON cells.cell = places.cell
    LEFT JOIN asked
        ON asked.org_id IS NOT DISTINCT FROM places.org_id
        AND asked.caller = places.caller
        AND asked.method IS NOT DISTINCT FROM places.method
        AND asked.route IS NOT DISTINCT FROM places.route
    LEFT JOIN ever
        ON ever.org_id IS NOT DISTINCT FROM places.org_id
        AND ever.caller = places.caller
        AND ever.method IS NOT DISTINCT FROM places.method
        AND ever.route IS NOT DISTINCT FROM places.route
    LEFT JOIN route_totals
        ON route_totals.method IS NOT DISTINCT FROM places.method
        AND route_totals.route IS NOT DISTINCT FROM places.route
    LEFT JOIN route_successes
        ON route_successes.method IS NOT DISTINCT FROM places.method
        AND route_successes.route IS NOT DISTINCT FROM places.route
    LEFT JOIN route_errors
        ON route_errors.answer = cells.answer
        AND route_errors.method IS NOT DISTINCT FROM places.method
        AND route_errors.route IS NOT DISTINCT FROM places.route
    GROUP BY places.cell
),
-- scope_misuse
siblings AS (
    SELECT cell, sibling_key
    FROM (
        SELECT
            places.cell,
            ever.caller AS sibling_key,
            row_number() OVER (PARTITION BY places.cell ORDER BY sum(ever.successes) DESC, ever.caller) AS sibling_rank
        FROM places
        INNER JOIN cells ON cells.cell = places.cell
        INNER JOIN ever
            ON ever.org_id = places.org_id
            AND ever.method IS NOT DISTINCT FROM places.method
            AND ever.route IS NOT DISTINCT FROM places.route
        WHERE cells.answer IN ('insufficient_scope', 'scope_invalid')
          AND places.place = 1
          AND ever.is_keyed
          AND ever.caller <> places.caller
        GROUP BY places.cell, ever.caller
    )
    WHERE sibling_rank = 1
),
refused_routes AS (
    SELECT caller, count(DISTINCT coalesce(method, '') || ' ' || coalesce(route, '')) AS routes
    FROM all_failures
    WHERE code IN ('insufficient_scope', 'scope_invalid')
    GROUP BY ALL
),
-- A route that is only for organization keys may answer with either code.
personal_keys AS (
    SELECT places.cell
    FROM places
    INNER JOIN all_failures
        ON all_failures.org_id IS NOT DISTINCT FROM places.org_id
        AND all_failures.caller = places.caller
        AND all_failures.method IS NOT DISTINCT FROM places.method
        AND all_failures.route IS NOT DISTINCT FROM places.route
    WHERE places.place = 1
      AND all_failures.code = 'scope_invalid'
    GROUP BY places.cell
),
-- rejected_keys
presented AS (
    SELECT
        failures.cell,
        count(*) FILTER (WHERE failures.org_id IS NULL
            AND (coalesce(failures.key_hash LIKE 'placeholder-%', false) OR quotes_placeholder(failures.message)))
            AS placeholders,
        count(DISTINCT masked_key_of(failures.message)) AS quoted_keys,
        count(*) FILTER (WHERE caller_successes.last_success IS NULL OR failures.ts > caller_successes.last_success)
            AS calls_since_success
    FROM failures
    LEFT JOIN caller_successes ON caller_successes.caller = failures.caller
    WHERE failures.code = 'invalid_api_key'
    GROUP BY ALL
),
naming AS (
    SELECT coalesce(bool_or(org_id IS NOT NULL), false) AS names_orgs
    FROM requests
    WHERE kind = 'error'
      AND key_id IS NOT NULL
      AND code IS DISTINCT FROM 'invalid_api_key'
),
-- enumeration: which ids had worked for the caller or its organisation, on the route with most errors. Of successes the
-- path is read only there.
sought_ids AS (
    SELECT failures.cell, failures.org_id, failures.caller, failures.method, failures.route, failures.path,
        max(failures.ts) AS last_not_found
    FROM failures
    INNER JOIN places
        ON places.cell = failures.cell
        AND places.place = 1
        AND places.method IS NOT DISTINCT FROM failures.method
        AND places.route = failures.route
    WHERE failures.code = 'not_found'
      AND places.errors >= 10
    GROUP BY ALL
),
reached_ids AS (
    SELECT method, route, path, org_id, caller, min(ts) AS first_success
    FROM requests_in_scope(NULL, until, NULL, NULL, NULL)
    WHERE NOT is_error
      AND (route IN (SELECT route FROM sought_ids WHERE names_object(route))) IS TRUE
      AND (path IN (SELECT path FROM sought_ids)) IS TRUE
    GROUP BY ALL
),
own_ids AS (
    SELECT cell, count(*) AS own_ids
    FROM (
        SELECT sought_ids.cell, sought_ids.path
        FROM sought_ids
        INNER JOIN reached_ids
            ON reached_ids.method IS NOT DISTINCT FROM sought_ids.method
            AND reached_ids.route = sought_ids.route
            AND reached_ids.path = sought_ids.path
        WHERE (reached_ids.org_id = sought_ids.org_id OR reached_ids.caller = sought_ids.caller)
          AND reached_ids.first_success < sought_ids.last_not_found
        GROUP BY ALL
    )
    GROUP BY ALL
),
ids AS (
    SELECT cell, count(*) AS ids
    FROM sought_ids
    GROUP BY ALL
),
-- validation_fields
field_counts AS (
    SELECT cell, field, count(*) AS errors
    FROM (
        SELECT cell, failure, folded_field_of(detail.field) AS field
        FROM (
            SELECT cell, failure, unnest(details) AS detail
            FROM (
                SELECT
                    cell, details,
                    row_number() OVER (PARTITION BY cell ORDER BY ts, request_id NULLS LAST) AS failure
                FROM failures
                WHERE code = 'validation_failed'
                  AND coalesce(array_length(details), 0) > 0
            )
        )
        WHERE detail.field IS NOT NULL
        GROUP BY ALL
    )
    GROUP BY ALL
),
fields AS (
    SELECT cell, count(*) AS fields, max(errors) AS field_errors,
        max_by(field, struct_pack(errors := errors, field := field)) AS field
    FROM field_counts
    GROUP BY ALL
),
-- rate_limit_causes: runs of refusals, here of one code; and refusals within the wait that the one before it on the
-- same method and route had asked for. What ran beside another had been told nothing.
limited AS (
    SELECT
        cell,
        start_us(ts, latency_ms) AS start_us,
        lag(start_us(ts, latency_ms)) OVER (
            PARTITION BY cell
            ORDER BY start_us(ts, latency_ms), request_id NULLS LAST
        ) AS last_start_us,
        start_us(ts, latency_ms) - lag(epoch_us(ts)) OVER (
            PARTITION BY cell, method, route
            ORDER BY start_us(ts, latency_ms), request_id NULLS LAST
        ) AS gap_us,
        lag(retry_after_s) OVER (
            PARTITION BY cell, method, route
            ORDER BY start_us(ts, latency_ms), request_id NULLS LAST
        ) AS wait_s,
        request_id
    FROM failures
    WHERE is_rate_limited(status, code)
),
limited_runs AS (
    SELECT cell, run, count(*) AS refused, max(start_us) - min(start_us) AS duration_us
    FROM (
        SELECT
            cell, start_us,
            sum(CASE WHEN start_us - last_start_us <= 60000000 THEN 0 ELSE 1 END) OVER (
                PARTITION BY cell
                ORDER BY start_us, request_id NULLS LAST
                ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
            ) AS run
        FROM limited
    )
    GROUP BY ALL
),
bursts AS (
    SELECT cell, count(*) AS runs, coalesce(sum(refused) FILTER (WHERE duration_us < 10000000), 0) AS burst_errors
    FROM limited_runs
    GROUP BY ALL
),
waits AS (
    SELECT
        cell,
        count(*) FILTER (WHERE wait_s > 0 AND gap_us + clock_error_us() >= 0) AS told,
        count(*) FILTER (
            WHERE wait_s > 0 AND gap_us + clock_error_us() >= 0 AND gap_us < (wait_s - 0.25) * 1e6
        ) AS early
    FROM limited
    GROUP BY ALL
),
-- blocked_resends: an address that the refusals of five organisations, and of more than half of all, name is a contact.
contacts AS (
    SELECT recipient_hash
    FROM all_failures
    WHERE code IN ('dnc_blocked', 'opted_out')
      AND recipient_hash IS NOT NULL
    GROUP BY recipient_hash
    HAVING count(DISTINCT coalesce('org ' || org_id, 'caller ' || caller)) >= 5
       AND 2 * count(DISTINCT coalesce('org ' || org_id, 'caller ' || caller)) > (
           SELECT count(DISTINCT coalesce('org ' || org_id, 'caller ' || caller))
           FROM all_failures
           WHERE code IN ('dnc_blocked', 'opted_out')
       )
),
recipients AS (
    SELECT failures.cell, count(*) AS known, count(DISTINCT failures.recipient_hash) AS recipients
    FROM failures
    LEFT JOIN contacts ON contacts.recipient_hash = failures.recipient_hash
    WHERE failures.code IN ('dnc_blocked', 'opted_out')
      AND failures.recipient_hash IS NOT NULL
      AND contacts.recipient_hash IS NULL
    GROUP BY ALL
),
-- Platform faults in minutes in which two other organisations, or callers without one, met the same on the route.
fault_minutes AS (
    SELECT answer, method, route, minute_of(ts) AS minute_number, count(DISTINCT coalesce(org_id, caller)) AS accounts
    FROM all_failures
    WHERE is_platform_fault(status, code)
    GROUP BY ALL
),
shared_faults AS (
    SELECT failures.cell, count(*) AS shared_errors, max(fault_minutes.accounts) AS accounts
    FROM failures
    INNER JOIN fault_minutes
        ON fault_minutes.answer = failures.answer
        AND fault_minutes.method IS NOT DISTINCT FROM failures.method
        AND fault_minutes.route IS NOT DISTINCT FROM failures.route
        AND fault_minutes.minute_number = minute_of(failures.ts)
    WHERE is_platform_fault(failures.status, failures.code)
      AND fault_minutes.accounts >= 3
    GROUP BY ALL
),
-- approval_dwell and credit_outages: did sends of the account pass before its first refusal, or after its last? Sends are
-- what goes to a method and route on which anybody is so refused.
account_refusals AS (
    SELECT
        code AS answer, org_id,
        CASE WHEN org_id IS NULL THEN caller END AS lone_caller,
        min(ts) AS first_refused_at,
        max(ts) AS last_refused_at
    FROM all_failures
    WHERE code IN ('approval_required', 'insufficient_credits')
    GROUP BY ALL
),
guarded_routes AS (
    SELECT DISTINCT code AS answer, method, route
    FROM all_failures
    WHERE code IN ('approval_required', 'insufficient_credits')
),
account_passes AS (
    SELECT
        guarded_routes.answer, ever.org_id,
        CASE WHEN ever.org_id IS NULL THEN ever.caller END AS lone_caller,
        min(ever.first_success) AS first_passed_at,
        max(ever.last_success) AS last_passed_at
    FROM ever
    INNER JOIN guarded_routes
        ON guarded_routes.method IS NOT DISTINCT FROM ever.method
        AND guarded_routes.route IS NOT DISTINCT FROM ever.route
    GROUP BY ALL
),
accounts AS (
    SELECT
        account_refusals.answer, account_refusals.org_id, account_refusals.lone_caller,
        account_refusals.first_refused_at, account_refusals.last_refused_at,
        coalesce(account_passes.first_passed_at < account_refusals.first_refused_at, false) AS has_passed_before,
        CASE WHEN account_passes.last_passed_at > account_refusals.last_refused_at
            THEN account_passes.last_passed_at
        END AS passed_at
    FROM account_refusals
    LEFT JOIN account_passes
        ON account_passes.answer = account_refusals.answer
        AND account_passes.org_id IS NOT DISTINCT FROM account_refusals.org_id
        AND account_passes.lone_caller IS NOT DISTINCT FROM account_refusals.lone_caller
)
SELECT
    cells.answer AS code,
    cells.org_id,
    cells.caller,
    cells.errors,
    coalesce(place_totals.requests, cells.errors)::BIGINT AS requests,
    cells.first_seen,
    cells.last_seen,
    place_totals.is_over,
    cells.status,
    cells.is_keyed,
    cells.idempotency_keys,
    cells.errors_with_key,
    catalogue.owner,
    catalogue.client_action,
    place_totals.routes,
    concat_ws(' ', place_totals.method, place_totals.route) AS route,
    names_object(place_totals.route) AS names_object,
    place_totals.route_errors,
    coalesce(ids.ids, 0) AS ids,
    coalesce(place_totals.route_requests, place_totals.route_errors)::BIGINT AS route_requests,
    coalesce(place_totals.route_successes, 0)::BIGINT AS route_successes,
    place_totals.route_last_success,
    place_totals.has_worked_here,
    place_totals.anybodys_successes::BIGINT AS anybodys_successes,
    coalesce(place_totals.others_requests, 0)::BIGINT AS others_requests,
    coalesce(place_totals.others_errors, 0)::BIGINT AS others_errors,
    place_totals.route_callers,
    caller_totals.requests::BIGINT AS caller_requests,
    caller_totals.successes::BIGINT AS caller_successes,
    caller_successes.last_success AS caller_last_success,
    personal_keys.cell IS NOT NULL AS is_personal_key,
    siblings.sibling_key,
    refused_routes.routes AS refused_routes,
    cells.org_id IS NOT NULL OR (cells.has_key_id AND NOT naming.names_orgs) AS is_known_key,
    coalesce(presented.placeholders, 0) AS placeholders,
    coalesce(presented.quoted_keys, 0) AS quoted_keys,
    coalesce(presented.calls_since_success, 0) AS calls_since_success,
    coalesce(own_ids.own_ids, 0) AS own_ids,
    fields.field,
    coalesce(fields.fields, 0) AS fields,
    coalesce(fields.field_errors, 0) AS field_errors,
    coalesce(bursts.runs, 0) AS runs,
    coalesce(bursts.burst_errors, 0)::BIGINT AS burst_errors,
    coalesce(waits.told, 0) AS told,
    coalesce(waits.early, 0) AS early,
    coalesce(recipients.known, 0) AS known,
    coalesce(recipients.recipients, 0) AS recipients,
    coalesce(shared_faults.shared_errors, 0) AS shared_errors,
    coalesce(shared_faults.accounts, 0) AS accounts_at_once,
    accounts.has_passed_before,
    accounts.passed_at,
    (epoch_us(accounts.last_refused_at) - epoch_us(accounts.first_refused_at)) / 1e6 AS refused_s,
    examples.example_request_ids
FROM cells
INNER JOIN place_totals ON place_totals.cell = cells.cell
INNER JOIN examples ON examples.cell = cells.cell
CROSS JOIN naming
LEFT JOIN catalogue ON catalogue.code = cells.answer
LEFT JOIN caller_totals ON caller_totals.caller = cells.caller
LEFT JOIN caller_successes ON caller_successes.caller = cells.caller
LEFT JOIN personal_keys ON personal_keys.cell = cells.cell
LEFT JOIN siblings ON siblings.cell = cells.cell
LEFT JOIN refused_routes ON refused_routes.caller = cells.caller
LEFT JOIN presented ON presented.cell = cells.cell
LEFT JOIN ids ON ids.cell = cells.cell
LEFT JOIN own_ids ON own_ids.cell = cells.cell
LEFT JOIN fields ON fields.cell = cells.cell
LEFT JOIN bursts ON bursts.cell = cells.cell
LEFT JOIN waits ON waits.cell = cells.cell
LEFT JOIN recipients ON recipients.cell = cells.cell
LEFT JOIN shared_faults ON shared_faults.cell = cells.cell
LEFT JOIN accounts
    ON accounts.answer = cells.answer
    AND accounts.org_id IS NOT DISTINCT FROM cells.org_id
    AND (cells.org_id IS NOT NULL OR accounts.lone_caller = cells.caller)
ORDER BY cells.errors DESC, cells.answer, cells.org_id NULLS LAST, cells.caller NULLS LAST;
