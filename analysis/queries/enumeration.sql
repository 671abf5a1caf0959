-- title: Enumeration
-- asks: Who asks for what does not exist: a probe of ids, an integration with stale references, or a misspelt route?
-- codes: not_found
-- chart: stacked(caller, not_found, verdict)
-- param since: first moment, inclusive (UTC date or timestamp); all when NULL
-- param until: last moment, exclusive (UTC date or timestamp); all when NULL
-- param for_org: only this org_id
-- param for_key: only this caller (key_id, else key_hash, else client_ip)
-- param for_route: only this route; the verdict still weighs all routes
-- param min_not_found: fewer of them on a method and route are not enough data
-- param min_run: so many ids, near to one another, are counted up
-- param max_gap: ids that differ by no more are near
-- param min_other_tenants: so many ids of other organisations are probed
-- param max_probe_success: a caller of which a greater part of the requests succeeds is not called a probe for the
--   breadth of its ids alone
-- columns:
--   caller: key_id, else key_hash, else client_ip
--   org_id: organisation of the caller
--   method: HTTP method
--   route: path with its ids folded
--   verdict: probe (min_other_tenants ids that only other organisations reach; or ids counted up: at least min_run and
--     a quarter of the ids in one run, half of the requests not_found and half of those for new ids, less than half of
--     them ever reached by the caller; or breadth: at least 20 ids, nine in ten requests not_found and nine in ten of
--     those for new ids, none ever reached by the caller, which succeeds with no more than max_probe_success of all its
--     requests, on a route that others use or seek. Then also what else the caller does not find on routes that exist),
--     else crawler (without a key on three or more routes on which nobody ever succeeded), else not enough data (below
--     min_not_found), else typo'd route (nobody ever succeeded there, at most two callers ask, and the caller has no
--     third route like it; else not enough data), else stale references (half of the ids worked for the caller or its organisation before; or
--     each is asked for twice or more on average; or at most half of the caller's requests there are not_found, and ten
--     succeed), else not enough data (nothing tells stale ids from foreign ones)
--   not_found: requests of the caller answered with not_found
--   distinct_ids: distinct paths of them; on a route that names no object there is one
--   distinct_share: distinct_ids / not_found
--   longest_run: most ids of them, in the order of their numbers, of which each is at most max_gap from the next; NULL
--     below min_not_found
--   own_ids: distinct_ids that had worked for the caller or its organisation before; NULL below min_not_found
--   other_tenants_ids: distinct_ids that worked for other organisations alone; NULL below min_not_found
--   requests: requests of the caller on this method and route, whatever their answer
--   not_found_share: not_found / requests
--   caller_success_rate: part of all requests of the caller in scope that succeeded
--   callers: callers that were answered with not_found on this method and route
--   route_successes: successes of anybody on this method and route, also from before since
--   first_seen: earliest not_found
--   last_seen: latest not_found
--   example_request_ids: the three latest not_found
CREATE OR REPLACE MACRO enumeration(
    since := NULL, until := NULL, for_org := NULL, for_key := NULL, for_route := NULL,
    min_not_found := 10, min_run := 8, max_gap := 5, min_other_tenants := 5, max_probe_success := 0.1
) AS TABLE
WITH not_founds AS (
    SELECT
        caller, org_id, method, route, path, key_id, ts, request_id,
        key_id IS NOT NULL OR key_hash IS NOT NULL AS is_keyed,
        row_number() OVER (
            PARTITION BY caller, org_id, method, route
            ORDER BY ts DESC, request_id NULLS LAST
        ) AS recency
    FROM requests_in_scope(since, until, for_org, for_key, NULL)
    WHERE is_error
      AND code = 'not_found'
      AND caller IS NOT NULL
),
cells AS (
    SELECT
        caller,
        org_id,
        method,
        route,
        bool_or(is_keyed) AS is_keyed,
        count(*) AS not_found,
        count(DISTINCT path) AS distinct_ids,
        min(ts) AS first_seen,
        max(ts) AS last_seen,
        list(request_id ORDER BY recency) FILTER (WHERE recency <= 3 AND request_id IS NOT NULL) AS example_request_ids
    FROM not_founds
    GROUP BY ALL
),
-- What the callers did besides.
traffic AS (
    SELECT caller, org_id, method, route, is_error, sum(requests)::BIGINT AS requests
    FROM request_counts(since, until, for_org, for_key, NULL)
    WHERE (caller IN (SELECT caller FROM cells)) IS TRUE
    GROUP BY ALL
),
callers AS (
    SELECT caller, coalesce(sum(requests) FILTER (WHERE NOT is_error), 0) / sum(requests) AS success_rate
    FROM traffic
    GROUP BY ALL
),
own_traffic AS (
    SELECT
        caller, org_id, method, route,
        sum(requests) AS requests,
        coalesce(sum(requests) FILTER (WHERE NOT is_error), 0) AS successes
    FROM traffic
    GROUP BY ALL
),
route_seekers AS (
    SELECT method, route, count(DISTINCT caller) AS callers
    FROM requests_in_scope(since, until, NULL, NULL, NULL)
    WHERE is_error
      AND code = 'not_found'
    GROUP BY ALL
),
route_successes AS (
    SELECT method, route, sum(requests)::BIGINT AS successes
    FROM request_counts(NULL, until, NULL, NULL, NULL)
    WHERE NOT is_error
      AND (route IN (SELECT route FROM cells)) IS TRUE
    GROUP BY ALL
),
sought_ids AS (
    SELECT
        not_founds.caller, not_founds.org_id, not_founds.method, not_founds.route, not_founds.path,
        number_in(not_founds.path) AS id_number,
        around_number_in(not_founds.path) AS around_number,
        max(not_founds.ts) AS last_not_found
    FROM not_founds
    INNER JOIN cells
        ON cells.caller = not_founds.caller
        AND cells.org_id IS NOT DISTINCT FROM not_founds.org_id
        AND cells.method IS NOT DISTINCT FROM not_founds.method
        AND cells.route = not_founds.route
    WHERE cells.not_found >= min_not_found
      AND names_object(not_founds.route)
    GROUP BY not_founds.caller, not_founds.org_id, not_founds.method, not_founds.route, not_founds.path
),
-- In its own paths an organisation's id is folded away; others write it out.
id_successes AS (
    SELECT method, route, path, org_id, caller, min(ts) AS first_success
    FROM (
        SELECT
            method, route, org_id, caller, ts,
            CASE WHEN contains(path, '{org_id}') THEN replace(path, '{org_id}', org_id) ELSE path END AS path
        FROM requests_in_scope(NULL, until, NULL, NULL, NULL)
        WHERE NOT is_error
          AND (route IN (SELECT route FROM sought_ids)) IS TRUE
    )
    WHERE (path IN (SELECT path FROM sought_ids)) IS TRUE
    GROUP BY ALL
),
judged_ids AS (
    SELECT
        sought_ids.caller, sought_ids.org_id, sought_ids.method, sought_ids.route, sought_ids.path,
        coalesce(bool_or(id_successes.org_id = sought_ids.org_id OR id_successes.caller = sought_ids.caller), false)
            AS is_own,
        coalesce(
            bool_or(id_successes.org_id = sought_ids.org_id OR id_successes.caller = sought_ids.caller)
                FILTER (WHERE id_successes.first_success < sought_ids.last_not_found),
            false
        ) AS has_worked,
        coalesce(bool_or(id_successes.org_id <> sought_ids.org_id), false) AS is_known_to_others
    FROM sought_ids
    LEFT JOIN id_successes
        ON id_successes.method IS NOT DISTINCT FROM sought_ids.method
        AND id_successes.route = sought_ids.route
        AND id_successes.path = sought_ids.path
    GROUP BY sought_ids.caller, sought_ids.org_id, sought_ids.method, sought_ids.route, sought_ids.path
),
id_counts AS (
    SELECT
        caller, org_id, method, route,
        count(*) FILTER (WHERE is_own) AS reachable_ids,
        count(*) FILTER (WHERE has_worked) AS own_ids,
        count(*) FILTER (WHERE is_known_to_others AND NOT is_own) AS other_tenants_ids
    FROM judged_ids
    GROUP BY ALL
),
numbered_ids AS (
    SELECT
        caller, org_id, method, route, around_number, id_number,
        CASE
            WHEN id_number - lag(id_number) OVER (
                PARTITION BY caller, org_id, method, route, around_number
                ORDER BY id_number
            ) <= max_gap THEN 0
            ELSE 1
        END AS begins_run
    FROM (
        SELECT DISTINCT caller, org_id, method, route, around_number, id_number
        FROM sought_ids
        WHERE id_number IS NOT NULL
    )
),
numbered_runs AS (
    SELECT
        caller, org_id, method, route, around_number, id_number,
        sum(begins_run) OVER (
            PARTITION BY caller, org_id, method, route, around_number
            ORDER BY id_number
            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS run
    FROM numbered_ids
),
longest_runs AS (
    SELECT caller, org_id, method, route, max(run_length) AS longest_run
    FROM (
        SELECT caller, org_id, method, route, around_number, run, count(*) AS run_length
        FROM numbered_runs
        GROUP BY ALL
    )
    GROUP BY ALL
),
evidence AS (
    SELECT
        cells.caller, cells.org_id, cells.method, cells.route, cells.is_keyed, cells.not_found, cells.distinct_ids,
        cells.first_seen, cells.last_seen, cells.example_request_ids,
        CASE WHEN cells.not_found >= min_not_found THEN coalesce(longest_runs.longest_run, 0) END AS longest_run,
        CASE WHEN cells.not_found >= min_not_found THEN coalesce(id_counts.reachable_ids, 0) END AS reachable_ids,
        CASE WHEN cells.not_found >= min_not_found THEN coalesce(id_counts.own_ids, 0) END AS own_ids,
        CASE WHEN cells.not_found >= min_not_found THEN coalesce(id_counts.other_tenants_ids, 0) END
            AS other_tenants_ids,
        own_traffic.requests,
        own_traffic.successes,
        callers.success_rate,
        route_seekers.callers,
        coalesce(route_successes.successes, 0) AS route_successes
    FROM cells
    INNER JOIN callers ON callers.caller = cells.caller
    INNER JOIN own_traffic
        ON own_traffic.caller = cells.caller
        AND own_traffic.org_id IS NOT DISTINCT FROM cells.org_id
        AND own_traffic.method IS NOT DISTINCT FROM cells.method
        AND own_traffic.route IS NOT DISTINCT FROM cells.route
    INNER JOIN route_seekers
        ON route_seekers.method IS NOT DISTINCT FROM cells.method
        AND route_seekers.route IS NOT DISTINCT FROM cells.route
    LEFT JOIN route_successes
        ON route_successes.method IS NOT DISTINCT FROM cells.method
        AND route_successes.route = cells.route
    LEFT JOIN id_counts
        ON id_counts.caller = cells.caller
        AND id_counts.org_id IS NOT DISTINCT FROM cells.org_id
        AND id_counts.method IS NOT DISTINCT FROM cells.method
        AND id_counts.route = cells.route
    LEFT JOIN longest_runs
        ON longest_runs.caller = cells.caller
        AND longest_runs.org_id IS NOT DISTINCT FROM cells.org_id
        AND longest_runs.method IS NOT DISTINCT FROM cells.method
        AND longest_runs.route = cells.route
),
signs AS (
    SELECT
        caller, org_id, method, route, is_keyed, not_found, distinct_ids, first_seen, last_seen, example_request_ids,
        longest_run, reachable_ids, own_ids, other_tenants_ids, requests, successes, success_rate, callers,
        route_successes,
        route_successes = 0 AND (callers <= 2 OR NOT is_keyed) AS is_unknown_route,
        coalesce(other_tenants_ids >= min_other_tenants, false) AS reaches_for_others,
        coalesce(
            longest_run >= greatest(min_run, distinct_ids / 4)
            AND 2 * distinct_ids >= not_found
            AND 2 * not_found >= requests
            AND 2 * reachable_ids < distinct_ids
            AND (route_successes > 0 OR success_rate <= 0.5),
            false
        ) AS counts_up,
        coalesce(
            distinct_ids >= 20
            AND 10 * distinct_ids >= 9 * not_found
            AND 10 * not_found >= 9 * requests
            AND reachable_ids = 0
            AND success_rate <= max_probe_success
            AND (route_successes > 0 OR callers > 2),
            false
        ) AS is_broad
    FROM evidence
),
caller_signs AS (
    SELECT
        caller,
        bool_or(reaches_for_others OR counts_up OR is_broad) AS is_probing,
        count(*) FILTER (WHERE is_unknown_route) AS unknown_routes,
        bool_or(is_keyed) AS is_keyed
    FROM signs
    GROUP BY ALL
)
SELECT
    signs.caller,
    signs.org_id,
    signs.method,
    signs.route,
    CASE
        WHEN signs.reaches_for_others OR signs.counts_up OR signs.is_broad THEN 'probe'
        WHEN caller_signs.is_probing AND NOT signs.is_unknown_route THEN 'probe'
        WHEN signs.is_unknown_route AND NOT caller_signs.is_keyed AND caller_signs.unknown_routes >= 3 THEN 'crawler'
        WHEN signs.not_found < min_not_found THEN 'not enough data'
        WHEN signs.is_unknown_route AND caller_signs.unknown_routes < 3 THEN 'typo''d route'
        WHEN signs.is_unknown_route THEN 'not enough data'
        WHEN names_object(signs.route) AND 2 * signs.own_ids >= signs.distinct_ids THEN 'stale references'
        WHEN names_object(signs.route) AND 2 * signs.reachable_ids >= signs.distinct_ids THEN 'not enough data'
        WHEN names_object(signs.route) AND signs.not_found >= 2 * signs.distinct_ids THEN 'stale references'
        WHEN 2 * signs.not_found <= signs.requests AND signs.successes >= 10 THEN 'stale references'
        ELSE 'not enough data'
    END AS verdict,
    signs.not_found,
    signs.distinct_ids,
    signs.distinct_ids / signs.not_found AS distinct_share,
    signs.longest_run,
    signs.own_ids,
    signs.other_tenants_ids,
    signs.requests::BIGINT AS requests,
    signs.not_found / signs.requests AS not_found_share,
    signs.success_rate AS caller_success_rate,
    signs.callers,
    signs.route_successes,
    signs.first_seen,
    signs.last_seen,
    signs.example_request_ids
FROM signs
INNER JOIN caller_signs ON caller_signs.caller = signs.caller
WHERE for_route IS NULL OR signs.route = for_route
ORDER BY
    signs.not_found DESC, signs.caller, signs.org_id NULLS LAST, signs.route NULLS LAST, signs.method NULLS LAST;
