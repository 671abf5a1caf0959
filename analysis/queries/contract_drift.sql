-- title: Contract drift
-- asks: Where does the API not keep its own error contract, and since when?
-- chart: stacked(code, errors, drift)
-- param since: first moment, inclusive (UTC date or timestamp); all when NULL
-- param until: last moment, exclusive (UTC date or timestamp); all when NULL
-- param for_org: only errors of this org_id
-- param for_key: only errors of this caller (key_id, else key_hash, else client_ip)
-- param for_route: only this route
-- param min_share: what so great a part of a gateway's envelopes carries (request_id, docs_url) is expected of all
-- param min_details: with fewer errors no shape of details is new
-- param max_chance: new, over and for a while are claimed where chance would do it less often than this
-- param same_record_s: the same answer with the same request_id within so many seconds is one request, logged twice
-- columns:
--   drift: unknown code (not in the catalogue); status differs from the catalogue (not where the client hung up); error
--     without an envelope (an error status by the API itself, its whole body logged); envelope on a 2xx (or a 3xx; not
--     GraphQL, not 207); request_id missing (also from the header: the lake keeps one of the two, so that it cannot
--     tell whether they differ); request_id duplicated (in envelopes of different requests; not the replay of an
--     Idempotency-Key); docs_url missing; docs_url of another code (it names one, or is what that one has, or names
--     none where others of this code name it); rate_limited without Retry-After (from the first Retry-After that the
--     gateway's log holds on; one that is a date counts as none); new shape of details (their first entry has a shape
--     that this code did not have before)
--   code: error code; NULL where there is no envelope
--   status: HTTP status
--   method: HTTP method
--   route: path with its ids folded
--   gateway: log format
--   expected: what the contract or the other errors have
--   found: what these errors have
--   history: always (every error that could have it has it), new (began in the midst of the log and goes on), over
--     (was there from the start and ended), for a while (both), else now and then
--   errors: errors of the row
--   of_errors: errors of that code, method, route and gateway; of that method, route and gateway for an unknown code
--     and where there is no envelope
--   share: errors / of_errors
--   orgs: distinct organisations
--   first_seen: earliest error
--   last_seen: latest error
--   began_at: earliest such error in the lake, also before since and of others
--   errors_before: of_errors in the lake before began_at, all without this drift
--   example_request_id: of the latest error that has one
CREATE OR REPLACE MACRO contract_drift(
    since := NULL, until := NULL, for_org := NULL, for_key := NULL, for_route := NULL,
    min_share := 0.9, min_details := 3, max_chance := 0.001, same_record_s := 5
) AS TABLE
WITH cells AS (
    SELECT
        gateway, method, route, status, code, origin, body_state, docs_url, has_request_id, has_retry_after,
        has_upstream_ms, details_shape,
        count(*) AS errors,
        min(ts) AS first_ts,
        max(ts) AS last_ts
    FROM error_answers(since, until, for_org, for_key, for_route)
    GROUP BY ALL
),
-- What is learned of each gateway's log, of each code in it, and of each route for that code.
gateways AS (
    SELECT
        gateway,
        sum(CASE WHEN code IS NOT NULL AND body_state = 'whole' THEN errors END) AS envelopes,
        sum(CASE WHEN code IS NOT NULL AND body_state = 'whole' AND has_request_id THEN errors END) AS with_request_id,
        sum(CASE WHEN code IS NOT NULL AND body_state = 'whole' AND docs_url IS NOT NULL THEN errors END)
            AS with_docs_url,
        min(CASE WHEN has_retry_after THEN first_ts END) AS first_retry_after,
        bool_or(has_upstream_ms) AS tells_upstream_ms
    FROM cells
    GROUP BY ALL
),
routes AS (
    SELECT
        gateway, method, route, code,
        bool_or(has_request_id) AS has_request_ids,
        bool_or(docs_url IS NOT NULL) AS has_docs_urls
    FROM cells
    WHERE code IS NOT NULL
      AND body_state = 'whole'
    GROUP BY ALL
),
known_codes AS (
    SELECT code, plain_word_of(code) AS word
    FROM catalogue
    UNION
    SELECT code, plain_word_of(code) AS word
    FROM cells
    WHERE code IS NOT NULL
),
docs_urls AS (
    SELECT
        code, docs_url,
        row_number() OVER (PARTITION BY code ORDER BY sum(errors) DESC, docs_url) AS popularity
    FROM cells
    WHERE code IS NOT NULL
      AND docs_url IS NOT NULL
    GROUP BY code, docs_url
),
named_codes AS (
    SELECT code, docs_url, unnest(string_split_regex(lower(replace(docs_url, '-', '_')), '[^a-z0-9_]+')) AS word
    FROM docs_urls
),
-- docs_urls that name another code and not their own, or no code, where they are the usual one of another code and not
-- of their own, or their own has others that name it.
suspect_docs_urls AS (
    SELECT docs_urls.code, docs_urls.docs_url, min(strangers.code) AS other_code
    FROM docs_urls
    INNER JOIN named_codes
        ON named_codes.code = docs_urls.code
        AND named_codes.docs_url = docs_urls.docs_url
    INNER JOIN known_codes AS strangers
        ON strangers.word = named_codes.word
        AND strangers.word <> plain_word_of(docs_urls.code)
    LEFT JOIN named_codes AS own
        ON own.code = docs_urls.code
        AND own.docs_url = docs_urls.docs_url
        AND own.word = plain_word_of(docs_urls.code)
    WHERE own.code IS NULL
    GROUP BY ALL
    UNION ALL
    SELECT docs_urls.code, docs_urls.docs_url, min(strangers.code) AS other_code
    FROM docs_urls
    INNER JOIN docs_urls AS strangers
        ON strangers.docs_url = docs_urls.docs_url
        AND strangers.code <> docs_urls.code
        AND strangers.popularity = 1
    LEFT JOIN named_codes
        ON named_codes.code = docs_urls.code
        AND named_codes.docs_url = docs_urls.docs_url
        AND named_codes.word IN (SELECT word FROM known_codes)
    WHERE docs_urls.popularity > 1
      AND named_codes.code IS NULL
    GROUP BY ALL
    UNION ALL
    SELECT docs_urls.code, docs_urls.docs_url, 'no code' AS other_code
    FROM docs_urls
    INNER JOIN (
        SELECT DISTINCT code
        FROM named_codes
        WHERE word = plain_word_of(code)
    ) AS self_named ON self_named.code = docs_urls.code
    LEFT JOIN named_codes
        ON named_codes.code = docs_urls.code
        AND named_codes.docs_url = docs_urls.docs_url
        AND named_codes.word IN (SELECT word FROM known_codes)
    WHERE named_codes.code IS NULL
),
foreign_docs_urls AS (
    SELECT code, docs_url, min(other_code) AS other_code
    FROM suspect_docs_urls
    GROUP BY ALL
),
shapes AS (
    SELECT gateway, code, details_shape, sum(errors) AS errors, min(first_ts) AS first_ts
    FROM cells
    WHERE details_shape IS NOT NULL
    GROUP BY ALL
),
shape_histories AS (
    SELECT
        shapes.gateway, shapes.code, shapes.details_shape, shapes.errors,
        count(*) AS of_errors,
        count(*) FILTER (WHERE answers.ts < shapes.first_ts) AS errors_before
    FROM shapes
    INNER JOIN (SELECT gateway, code FROM shapes GROUP BY ALL HAVING count(*) > 1) AS changing
        ON changing.gateway IS NOT DISTINCT FROM shapes.gateway
        AND changing.code = shapes.code
    INNER JOIN error_answers(since, until, for_org, for_key, for_route) AS answers
        ON answers.gateway IS NOT DISTINCT FROM shapes.gateway
        AND answers.code = shapes.code
        AND answers.details_shape IS NOT NULL
    GROUP BY ALL
),
usual_shapes AS (
    SELECT
        gateway, code, details_shape,
        row_number() OVER (PARTITION BY gateway, code ORDER BY first_ts, errors DESC, details_shape) AS shape_rank
    FROM shapes
),
-- The kinds of drift, each told from a cell alone.
drifting_cells AS (
    SELECT
        'unknown code' AS drift, 'a code of the catalogue' AS expected, cells.code AS found, cells.gateway,
        cells.method, cells.route, cells.status, cells.code, cells.origin, cells.body_state, cells.docs_url,
        cells.has_request_id, cells.has_retry_after, cells.has_upstream_ms, cells.details_shape
    FROM cells
    WHERE cells.code IS NOT NULL
      AND cells.code NOT IN (SELECT code FROM catalogue)
    UNION ALL
    SELECT
        'status differs from the catalogue' AS drift, 'status ' || catalogue.http_status AS expected, 'status ' || cells.status AS found,
        cells.gateway, cells.method, cells.route, cells.status, cells.code, cells.origin, cells.body_state,
        cells.docs_url, cells.has_request_id, cells.has_retry_after, cells.has_upstream_ms, cells.details_shape
    FROM cells
    INNER JOIN catalogue ON catalogue.code = cells.code
    WHERE cells.status >= 400
      AND cells.status <> catalogue.http_status
      AND cells.status NOT IN (444, 460, 499)
    UNION ALL
    SELECT
        'error without an envelope' AS drift, 'an error envelope' AS expected,
        'status ' || cells.status || ' with another body' AS found,
        cells.gateway, cells.method, cells.route, cells.status, cells.code, cells.origin, cells.body_state,
        cells.docs_url, cells.has_request_id, cells.has_retry_after, cells.has_upstream_ms, cells.details_shape
    FROM cells
    INNER JOIN gateways ON gateways.gateway IS NOT DISTINCT FROM cells.gateway
    WHERE cells.code IS NULL
      AND cells.status >= 400
      AND cells.origin = 'upstream'
      AND cells.body_state = 'whole'
      AND cells.method IS DISTINCT FROM 'HEAD'
      AND (cells.has_upstream_ms OR (cells.has_request_id AND NOT gateways.tells_upstream_ms))
    UNION ALL
    SELECT
        'envelope on a 2xx' AS drift,
        coalesce('status ' || catalogue.http_status, 'an error status') AS expected,
        'status ' || cells.status AS found,
        cells.gateway, cells.method, cells.route, cells.status, cells.code, cells.origin, cells.body_state,
        cells.docs_url, cells.has_request_id, cells.has_retry_after, cells.has_upstream_ms, cells.details_shape
    FROM cells
    LEFT JOIN catalogue ON catalogue.code = cells.code
    WHERE cells.code IS NOT NULL
      AND cells.status < 400
      AND cells.status <> 207
      AND NOT coalesce(lower(cells.route) LIKE '%graphql%', false)
    UNION ALL
    SELECT
        'request_id missing' AS drift, 'a request_id in the envelope' AS expected, 'none' AS found,
        cells.gateway, cells.method, cells.route, cells.status, cells.code, cells.origin, cells.body_state,
        cells.docs_url, cells.has_request_id, cells.has_retry_after, cells.has_upstream_ms, cells.details_shape
    FROM cells
    INNER JOIN gateways ON gateways.gateway IS NOT DISTINCT FROM cells.gateway
    INNER JOIN routes
        ON routes.gateway IS NOT DISTINCT FROM cells.gateway
        AND routes.method IS NOT DISTINCT FROM cells.method
        AND routes.route IS NOT DISTINCT FROM cells.route
        AND routes.code = cells.code
    WHERE cells.body_state = 'whole'
      AND NOT cells.has_request_id
      AND (routes.has_request_ids OR gateways.with_request_id >= min_share * gateways.envelopes)
    UNION ALL
    SELECT
        'docs_url missing' AS drift, 'a docs_url in the envelope' AS expected, 'none' AS found,
        cells.gateway, cells.method, cells.route, cells.status, cells.code, cells.origin, cells.body_state,
        cells.docs_url, cells.has_request_id, cells.has_retry_after, cells.has_upstream_ms, cells.details_shape
    FROM cells
    INNER JOIN gateways ON gateways.gateway IS NOT DISTINCT FROM cells.gateway
    INNER JOIN routes
        ON routes.gateway IS NOT DISTINCT FROM cells.gateway
        AND routes.method IS NOT DISTINCT FROM cells.method
        AND routes.route IS NOT DISTINCT FROM cells.route
        AND routes.code = cells.code
    WHERE cells.body_state = 'whole'
      AND cells.docs_url IS NULL
      AND (routes.has_docs_urls OR gateways.with_docs_url >= min_share * gateways.envelopes)
    UNION ALL
    SELECT
        'docs_url of another code' AS drift, 'the docs_url of ' || cells.code AS expected,
        cells.docs_url || ' of ' || foreign_docs_urls.other_code AS found,
        cells.gateway, cells.method, cells.route, cells.status, cells.code, cells.origin, cells.body_state,
        cells.docs_url, cells.has_request_id, cells.has_retry_after, cells.has_upstream_ms, cells.details_shape
    FROM cells
    INNER JOIN foreign_docs_urls
        ON foreign_docs_urls.code = cells.code
        AND foreign_docs_urls.docs_url = cells.docs_url
    UNION ALL
    SELECT
        'rate_limited without Retry-After' AS drift, 'a Retry-After header' AS expected, 'none' AS found,
        cells.gateway, cells.method, cells.route, cells.status, cells.code, cells.origin, cells.body_state,
        cells.docs_url, cells.has_request_id, cells.has_retry_after, cells.has_upstream_ms, cells.details_shape
    FROM cells
    INNER JOIN gateways ON gateways.gateway IS NOT DISTINCT FROM cells.gateway
    WHERE cells.code = 'rate_limited'
      AND NOT cells.has_retry_after
      AND cells.last_ts >= gateways.first_retry_after
    UNION ALL
    SELECT
        'new shape of details' AS drift, usual_shapes.details_shape AS expected, cells.details_shape AS found,
        cells.gateway, cells.method, cells.route, cells.status, cells.code, cells.origin, cells.body_state,
        cells.docs_url, cells.has_request_id, cells.has_retry_after, cells.has_upstream_ms, cells.details_shape
    FROM cells
    INNER JOIN shape_histories
        ON shape_histories.gateway IS NOT DISTINCT FROM cells.gateway
        AND shape_histories.code = cells.code
        AND shape_histories.details_shape = cells.details_shape
    INNER JOIN usual_shapes
        ON usual_shapes.gateway IS NOT DISTINCT FROM cells.gateway
        AND usual_shapes.code = cells.code
        AND usual_shapes.shape_rank = 1
    WHERE shape_histories.errors >= min_details
      AND chance_of_gap(shape_histories.errors, shape_histories.of_errors, shape_histories.errors_before) < max_chance
),
repeated_ids AS (
    SELECT request_id
    FROM error_answers(since, until, for_org, for_key, for_route)
    WHERE code IS NOT NULL
      AND body_state IN ('whole', 'truncated')
    GROUP BY ALL
    HAVING count(*) > 1
),
-- Taken through one list, the few are known to be few: else all errors go into the hash table of a join.
few_repeated_ids AS (
    SELECT unnest((SELECT list(request_id) FROM repeated_ids)) AS request_id
),
repeats AS (
    SELECT
        answers.gateway, answers.method, answers.route, answers.path, answers.status, answers.code, answers.ts,
        answers.request_id, answers.org_id, answers.caller, answers.idempotency_hash, answers.is_in_scope
    FROM error_answers(since, until, for_org, for_key, for_route) AS answers
    INNER JOIN few_repeated_ids ON few_repeated_ids.request_id = answers.request_id
    WHERE answers.code IS NOT NULL
      AND answers.body_state IN ('whole', 'truncated')
),
duplicated_ids AS (
    SELECT gateway, request_id
    FROM repeats
    GROUP BY ALL
    HAVING count(*) > 1
       AND NOT (count(DISTINCT idempotency_hash) = 1 AND count(idempotency_hash) = count(*))
       AND (
           epoch_us(max(ts)) - epoch_us(min(ts)) > microseconds(same_record_s)
           OR min(coalesce(method, '')) <> max(coalesce(method, ''))
           OR min(coalesce(path, '')) <> max(coalesce(path, ''))
           OR min(coalesce(caller, '')) <> max(coalesce(caller, ''))
           OR min(code) <> max(code)
           OR min(status) <> max(status)
       )
),
few_drifting_cells AS (
    SELECT unnest((
        SELECT list(struct_pack(
            drift := drift, expected := expected, found := found, gateway := gateway, method := method, route := route,
            status := status, code := code, origin := origin, body_state := body_state, docs_url := docs_url,
            has_request_id := has_request_id, has_retry_after := has_retry_after, has_upstream_ms := has_upstream_ms,
            details_shape := details_shape
        ))
        FROM drifting_cells
    )) AS cell
),
drifting AS (
    SELECT
        few.cell.drift, few.cell.expected, few.cell.found,
        answers.gateway, answers.method, answers.route, answers.status, answers.code,
        answers.ts, answers.request_id, answers.org_id, answers.is_in_scope
    FROM error_answers(since, until, for_org, for_key, for_route) AS answers
    INNER JOIN few_drifting_cells AS few
        ON few.cell.gateway IS NOT DISTINCT FROM answers.gateway
        AND few.cell.method IS NOT DISTINCT FROM answers.method
        AND few.cell.route IS NOT DISTINCT FROM answers.route
        AND few.cell.status IS NOT DISTINCT FROM answers.status
        AND few.cell.code IS NOT DISTINCT FROM answers.code
        AND few.cell.origin IS NOT DISTINCT FROM answers.origin
        AND few.cell.body_state IS NOT DISTINCT FROM answers.body_state
        AND few.cell.docs_url IS NOT DISTINCT FROM answers.docs_url
        AND few.cell.has_request_id = answers.has_request_id
        AND few.cell.has_retry_after = answers.has_retry_after
        AND few.cell.has_upstream_ms = answers.has_upstream_ms
        AND few.cell.details_shape IS NOT DISTINCT FROM answers.details_shape
    INNER JOIN gateways ON gateways.gateway IS NOT DISTINCT FROM answers.gateway
    WHERE few.cell.drift <> 'rate_limited without Retry-After'
       OR answers.ts >= gateways.first_retry_after
    UNION ALL
    SELECT
        'request_id duplicated' AS drift,
        'a request_id of its own' AS expected,
        'that of another request' AS found,
        repeats.gateway, repeats.method, repeats.route, repeats.status, repeats.code,
        repeats.ts, repeats.request_id, repeats.org_id, repeats.is_in_scope
    FROM repeats
    INNER JOIN duplicated_ids
        ON duplicated_ids.gateway IS NOT DISTINCT FROM repeats.gateway
        AND duplicated_ids.request_id = repeats.request_id
),
ranked_drifting AS (
    SELECT
        drift, expected, found, gateway, method, route, status, code, ts, request_id, org_id, is_in_scope,
        row_number() OVER (
            PARTITION BY drift, expected, found, gateway, method, route, status, code
            ORDER BY is_in_scope DESC, request_id IS NULL, ts DESC, request_id
        ) AS recency
    FROM drifting
),
drifts AS (
    SELECT
        drift, expected, found, gateway, method, route, status, code,
        CASE WHEN drift IN ('unknown code', 'error without an envelope') THEN NULL ELSE code END AS code_compared,
        count(*) FILTER (WHERE is_in_scope) AS errors,
        count(DISTINCT org_id) FILTER (WHERE is_in_scope) AS orgs,
        min(ts) FILTER (WHERE is_in_scope) AS first_seen,
        max(ts) FILTER (WHERE is_in_scope) AS last_seen,
        max(request_id) FILTER (WHERE is_in_scope AND recency = 1) AS example_request_id,
        count(*) AS errors_ever,
        min(ts) AS began_at,
        max(ts) AS ended_at
    FROM ranked_drifting
    GROUP BY ALL
),
histories AS (
    SELECT
        drifts.drift, drifts.expected, drifts.found, drifts.gateway, drifts.method, drifts.route, drifts.status,
        drifts.code,
        count(*) FILTER (WHERE answers.is_in_scope) AS of_errors,
        count(*) AS of_errors_ever,
        count(*) FILTER (WHERE answers.ts < drifts.began_at) AS errors_before,
        count(*) FILTER (WHERE answers.ts > drifts.ended_at) AS errors_after
    FROM drifts
    INNER JOIN error_answers(since, until, for_org, for_key, for_route) AS answers
        ON answers.gateway IS NOT DISTINCT FROM drifts.gateway
        AND answers.method IS NOT DISTINCT FROM drifts.method
        AND answers.route IS NOT DISTINCT FROM drifts.route
        AND (drifts.code_compared IS NULL OR drifts.code_compared = answers.code)
    GROUP BY ALL
)
SELECT
    drifts.drift,
    drifts.code,
    drifts.status,
    drifts.method,
    drifts.route,
    drifts.gateway,
    drifts.expected,
    drifts.found,
    CASE
        WHEN drifts.errors_ever = histories.of_errors_ever THEN 'always'
        WHEN chance_of_gap(drifts.errors_ever, histories.of_errors_ever, histories.errors_before) < max_chance
            THEN CASE
                WHEN chance_of_gap(drifts.errors_ever, histories.of_errors_ever, histories.errors_after) < max_chance
                    THEN 'for a while'
                ELSE 'new'
            END
        WHEN chance_of_gap(drifts.errors_ever, histories.of_errors_ever, histories.errors_after) < max_chance
            THEN 'over'
        ELSE 'now and then'
    END AS history,
    drifts.errors,
    histories.of_errors,
    drifts.errors / nullif(histories.of_errors, 0) AS share,
    drifts.orgs,
    drifts.first_seen,
    drifts.last_seen,
    drifts.began_at,
    histories.errors_before,
    drifts.example_request_id
FROM drifts
INNER JOIN histories
    ON histories.drift = drifts.drift
    AND histories.expected = drifts.expected
    AND histories.found = drifts.found
    AND histories.gateway IS NOT DISTINCT FROM drifts.gateway
    AND histories.method IS NOT DISTINCT FROM drifts.method
    AND histories.route IS NOT DISTINCT FROM drifts.route
    AND histories.status IS NOT DISTINCT FROM drifts.status
    AND histories.code IS NOT DISTINCT FROM drifts.code
WHERE drifts.errors > 0
ORDER BY
    drifts.errors DESC, drifts.drift, drifts.code NULLS LAST, drifts.status, drifts.route NULLS LAST,
    drifts.method NULLS LAST, drifts.gateway NULLS LAST, drifts.found;
