-- title: Rejected keys
-- asks: Which keys does the API not accept, did they ever work, and is somebody guessing?
-- codes: invalid_api_key
-- chart: stacked(caller, calls, verdict)
-- param since: first moment, inclusive (UTC date or timestamp); all when NULL
-- param until: last moment, exclusive (UTC date or timestamp); all when NULL
-- param for_org: only this org_id
-- param for_key: only this caller (key_id, else key_hash, else client_ip)
-- param for_route: only calls of this route; a success on any other still counts
-- param min_calls: fewer rejected calls since the last success are not enough data
-- param min_guessed_keys: so many keys from one address, hardly tried each, are guessing
-- param max_tries_per_key: a key that an address tries more often was not guessed
-- columns:
--   caller: key_id, else key_hash; client_ip where the log has neither, and for keys that are guessed
--   org_id: organisation of the key, where the API names it in spite of the rejection
--   verdict: guessing (min_guessed_keys from the address, and more than succeed there; each tried at most
--     max_tries_per_key times and none known to the API), else placeholder (a name or an example of a key such as
--     YOUR_API_KEY or undefined: its fingerprint is marked so, or the message quotes it; it never succeeded), else works
--     again (the key succeeded after its last rejection), else not enough data (fewer than min_calls; or the log has no
--     key, and another one may work at the address), else retired (it succeeded before, or the API knows whose it is,
--     and it still calls), else never worked (no success in the lake)
--   told_apart_by: how one key is told from another: key_id, key_hash or message (it quotes the key, masked); NULL where
--     nothing tells, and they may be one or many
--   distinct_keys: different keys of the row; at least so many where told apart by message, NULL where by nothing
--   calls: rejected calls
--   routes: distinct methods and routes of the calls
--   client_ip: address of the latest call
--   client_ips: distinct addresses of the calls
--   last_success: latest success with the key, also from before since; where the log has no key, at its address
--   first_seen: earliest rejection
--   last_seen: latest rejection
--   days: UTC days with rejections
--   example_request_ids: the three latest rejections
CREATE OR REPLACE MACRO rejected_keys(
    since := NULL, until := NULL, for_org := NULL, for_key := NULL, for_route := NULL,
    min_calls := 3, min_guessed_keys := 5, max_tries_per_key := 3
) AS TABLE
WITH rejections AS (
    SELECT
        caller, key_id, key_hash, org_id, client_ip, method, route, day, ts, request_id,
        coalesce(key_id, key_hash, masked_key_of(message)) AS presented_key,
        CASE
            WHEN key_id IS NOT NULL THEN 'key_id'
            WHEN key_hash IS NOT NULL THEN 'key_hash'
            WHEN masked_key_of(message) IS NOT NULL THEN 'message'
        END AS told_apart_by,
        org_id IS NULL AND (coalesce(key_hash LIKE 'placeholder-%', false) OR quotes_placeholder(message))
            AS is_placeholder
    FROM requests
    WHERE kind = 'error'
      AND code = 'invalid_api_key'
      AND (since IS NULL OR (day >= since::TIMESTAMP::DATE AND ts >= utc_moment(since)))
      AND (until IS NULL OR (day <= until::TIMESTAMP::DATE AND ts < utc_moment(until)))
      AND (for_org IS NULL OR org_id = for_org)
      AND (for_key IS NULL OR caller = for_key)
      AND (for_route IS NULL OR route = for_route)
),
-- Where the log names the organisations of good keys, a key_id without one was taken from the key itself.
naming AS (
    SELECT coalesce(bool_or(org_id IS NOT NULL), false) AS names_orgs
    FROM requests
    WHERE kind = 'error'
      AND key_id IS NOT NULL
      AND code IS DISTINCT FROM 'invalid_api_key'
),
key_id_successes AS (
    SELECT key_id, max(last_ts) AS last_success
    FROM request_counts(NULL, until, NULL, NULL, NULL)
    WHERE NOT is_error
      AND (key_id IN (SELECT key_id FROM rejections)) IS TRUE
    GROUP BY ALL
),
key_hash_successes AS (
    SELECT key_hash, max(last_ts) AS last_success
    FROM request_counts(NULL, until, NULL, NULL, NULL)
    WHERE NOT is_error
      AND (key_hash IN (SELECT key_hash FROM rejections)) IS TRUE
    GROUP BY ALL
),
address_successes AS (
    SELECT client_ip, count(DISTINCT coalesce(key_id, key_hash)) AS working_keys, max(last_ts) AS last_success
    FROM request_counts(NULL, until, NULL, NULL, NULL)
    WHERE NOT is_error
      AND (client_ip IN (SELECT client_ip FROM rejections)) IS TRUE
    GROUP BY ALL
),
calls AS (
    SELECT
        rejections.caller, rejections.key_id, rejections.key_hash, rejections.org_id, rejections.client_ip,
        rejections.method, rejections.route, rejections.day, rejections.ts, rejections.request_id,
        rejections.presented_key, rejections.told_apart_by, rejections.is_placeholder,
        greatest(key_id_successes.last_success, key_hash_successes.last_success) AS last_success,
        address_successes.last_success AS last_success_at_address,
        coalesce(address_successes.working_keys, 0) AS working_keys
    FROM rejections
    LEFT JOIN key_id_successes ON key_id_successes.key_id = rejections.key_id
    LEFT JOIN key_hash_successes ON key_hash_successes.key_hash = rejections.key_hash
    LEFT JOIN address_successes ON address_successes.client_ip = rejections.client_ip
),
hardly_tried_keys AS (
    SELECT client_ip, presented_key, working_keys
    FROM calls
    WHERE org_id IS NULL
      AND NOT is_placeholder
      AND last_success IS NULL
      AND client_ip IS NOT NULL
      AND presented_key IS NOT NULL
    GROUP BY ALL
    HAVING count(*) <= max_tries_per_key
),
guessing_addresses AS (
    SELECT client_ip
    FROM hardly_tried_keys
    GROUP BY client_ip, working_keys
    HAVING count(*) >= min_guessed_keys
       AND count(*) > working_keys
),
sorted_calls AS (
    SELECT
        CASE WHEN guessing_addresses.client_ip IS NOT NULL THEN calls.client_ip ELSE calls.caller END AS caller,
        CASE
            WHEN guessing_addresses.client_ip IS NOT NULL THEN 'guessed'
            WHEN calls.is_placeholder AND calls.last_success IS NULL THEN 'placeholder'
            WHEN calls.told_apart_by IN ('key_id', 'key_hash') THEN 'key'
            ELSE 'address'
        END AS kind_of_key,
        calls.key_id, calls.org_id, calls.client_ip, calls.method, calls.route, calls.day, calls.ts, calls.request_id,
        calls.presented_key, calls.told_apart_by,
        CASE
            WHEN calls.told_apart_by IN ('key_id', 'key_hash') THEN calls.last_success
            WHEN guessing_addresses.client_ip IS NULL AND NOT calls.is_placeholder THEN calls.last_success_at_address
        END AS last_success
    FROM calls
    LEFT JOIN hardly_tried_keys
        ON hardly_tried_keys.client_ip = calls.client_ip
        AND hardly_tried_keys.presented_key = calls.presented_key
        AND calls.org_id IS NULL
        AND NOT calls.is_placeholder
    LEFT JOIN guessing_addresses ON guessing_addresses.client_ip = hardly_tried_keys.client_ip
),
recent_first AS (
    SELECT
        caller, kind_of_key, key_id, org_id, client_ip, method, route, day, ts, request_id, presented_key,
        told_apart_by, last_success,
        row_number() OVER (
            PARTITION BY caller, org_id, kind_of_key
            ORDER BY ts DESC, request_id NULLS LAST, client_ip NULLS LAST
        ) AS recency
    FROM sorted_calls
),
rejected AS (
    SELECT
        caller,
        org_id,
        kind_of_key,
        org_id IS NOT NULL OR (bool_or(key_id IS NOT NULL) AND NOT bool_or(names_orgs)) AS is_known_key,
        min(told_apart_by) AS told_apart_by,
        nullif(count(DISTINCT presented_key), 0) AS distinct_keys,
        count(*) AS calls,
        count(*) FILTER (WHERE last_success IS NULL OR ts > last_success) AS calls_since_success,
        count(DISTINCT coalesce(method, '') || ' ' || coalesce(route, '')) AS routes,
        max(client_ip) FILTER (WHERE recency = 1) AS client_ip,
        count(DISTINCT client_ip) AS client_ips,
        max(last_success) AS last_success,
        min(ts) AS first_seen,
        max(ts) AS last_seen,
        count(DISTINCT day) AS days,
        list(request_id ORDER BY recency) FILTER (WHERE recency <= 3 AND request_id IS NOT NULL) AS example_request_ids
    FROM recent_first
    CROSS JOIN naming
    GROUP BY caller, org_id, kind_of_key
)
SELECT
    caller,
    org_id,
    CASE
        WHEN kind_of_key = 'guessed' THEN 'guessing'
        WHEN kind_of_key = 'placeholder' THEN 'placeholder'
        WHEN kind_of_key = 'key' AND last_success > last_seen THEN 'works again'
        WHEN calls_since_success < min_calls THEN 'not enough data'
        WHEN kind_of_key = 'address' AND last_success >= first_seen THEN 'not enough data'
        WHEN last_success IS NOT NULL OR is_known_key THEN 'retired'
        ELSE 'never worked'
    END AS verdict,
    told_apart_by,
    distinct_keys,
    calls,
    routes,
    client_ip,
    client_ips,
    last_success,
    first_seen,
    last_seen,
    days,
    example_request_ids
FROM rejected
ORDER BY calls DESC, caller NULLS LAST, org_id NULLS LAST, verdict;
