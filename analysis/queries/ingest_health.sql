-- title: Ingest health
-- asks: Was every line read, what does the log hold of its errors, and did it fall silent?
-- chart: none
-- param for_source: only this source_id
-- param silence_floor_s: a time without a request of up to this long, or of up to 60 s, is no silence
-- param silence_factor: a silence is longer than this many times the source's median gap
-- columns:
--   source_id: the source
--   name: path it was read from
--   gateway: log format it was read with
--   lines: lines read
--   requests: rows added to requests
--   rejects: lines that are no readable request
--   skipped: blank lines, comments, control messages and the further lines of a record
--   duplicates: requests left out because the lake holds the same one, as their request_id proves
--   removed: rows that a retention or an erasure took away
--   is_conserved: lines = requests + rejects + skipped + duplicates + removed; false is a fault of the ingest
--   is_cut: its compressed stream ended before its end marker
--   reject_reasons: why and how often, the most frequent first
--   rejected_codes: error codes of the rejects whose time or status is unusable, the most frequent first
--   errors: requests that are errors
--   whole_bodies: errors whose body the log holds
--   truncated_bodies: errors whose body the log cut
--   absent_bodies: errors without a body in the log
--   undecodable_bodies: errors whose body cannot be read
--   first_ts: earliest request
--   last_ts: latest request
--   silences: times without a request, longer than silence_floor_s and than silence_factor times the median gap
--   longest_silence_s: length of the longest
--   longest_silence_from: the last request before it
--   late_requests: requests dated after the moment they were ingested, a sign of a wrong clock or zone
--   data_through: latest request of all sources
CREATE OR REPLACE MACRO ingest_health(for_source := NULL, silence_floor_s := 300, silence_factor := 5) AS TABLE
WITH ledger AS (
    SELECT
        source_id,
        max_by(name, struct_pack(ingested_at := ingested_at, first_line := first_line)) AS name,
        max_by(gateway, struct_pack(ingested_at := ingested_at, first_line := first_line)) AS gateway,
        max_by(is_cut, struct_pack(ingested_at := ingested_at, first_line := first_line)) AS is_cut,
        sum(lines) AS lines,
        sum(requests) AS requests,
        sum(rejects) AS rejects,
        sum(skipped) AS skipped,
        coalesce(sum(duplicates), 0) AS duplicates,
        coalesce(sum(removed), 0) AS removed,
        min(first_ts) AS first_ts,
        max(last_ts) AS last_ts
    FROM sources
    WHERE for_source IS NULL OR source_id = for_source
    GROUP BY ALL
),
reject_counts AS (
    SELECT source_id, reason, count(*) AS rejected
    FROM rejects
    WHERE for_source IS NULL OR source_id = for_source
    GROUP BY ALL
),
rejected_code_counts AS (
    SELECT source_id, code, count(*) AS rejected
    FROM rejects
    WHERE code IS NOT NULL
      AND (for_source IS NULL OR source_id = for_source)
    GROUP BY ALL
),
rejected_code_texts AS (
    SELECT
        source_id,
        array_to_string(list(code || ' ' || rejected ORDER BY -rejected, code), ', ') AS rejected_codes
    FROM rejected_code_counts
    GROUP BY ALL
),
reject_texts AS (
    SELECT
        source_id,
        array_to_string(list(reason || ' ' || rejected ORDER BY -rejected, reason), ', ') AS reject_reasons
    FROM reject_counts
    GROUP BY ALL
),
bodies AS (
    SELECT
        source_id,
        count(*) AS errors,
        count(*) FILTER (WHERE body_state = 'whole') AS whole_bodies,
        count(*) FILTER (WHERE body_state = 'truncated') AS truncated_bodies,
        count(*) FILTER (WHERE body_state = 'absent') AS absent_bodies,
        count(*) FILTER (WHERE body_state = 'undecodable') AS undecodable_bodies
    FROM requests
    WHERE kind = 'error'
      AND (for_source IS NULL OR source_id = for_source)
    GROUP BY ALL
),
-- A silence of more than a minute leaves its minute of the clock, so the first and last request of every minute tell
-- it.
busy_minutes AS (
    SELECT source_id, minute_of(ts) AS minute_number, count(*) AS requests, min(ts) AS first_ts, max(ts) AS last_ts
    FROM requests
    WHERE for_source IS NULL OR source_id = for_source
    GROUP BY ALL
),
gaps AS (
    SELECT
        source_id,
        last_ts AS silent_from,
        (
            epoch_us(lead(first_ts) OVER (PARTITION BY source_id ORDER BY minute_number)) - epoch_us(last_ts)
        ) / 1e6 AS gap_s
    FROM busy_minutes
),
-- Half of all gaps are at least the median, so it is at most twice the mean: only in a source of few requests can it
-- make a silence longer than the floor, and only there is it computed.
sparse_sources AS (
    SELECT source_id
    FROM busy_minutes
    GROUP BY ALL
    HAVING 2 * silence_factor * (epoch_us(max(last_ts)) - epoch_us(min(first_ts))) / 1e6
        >= greatest(silence_floor_s, 60) * (sum(requests) - 1)
),
sparse_gaps AS (
    SELECT
        requests.source_id,
        (epoch_us(requests.ts) - epoch_us(lag(requests.ts) OVER (
            PARTITION BY requests.source_id
            ORDER BY requests.ts, requests.line
        ))) / 1e6 AS gap_s
    FROM requests
    INNER JOIN sparse_sources ON sparse_sources.source_id = requests.source_id
),
median_gaps AS (
    SELECT source_id, quantile_cont(gap_s, 0.5) AS median_gap_s
    FROM sparse_gaps
    GROUP BY ALL
),
silences AS (
    SELECT
        gaps.source_id,
        count(*) AS silences,
        max(gaps.gap_s) AS longest_silence_s,
        max_by(
            gaps.silent_from, struct_pack(gap_s := gaps.gap_s, silent_from := gaps.silent_from)
        ) AS longest_silence_from
    FROM gaps
    LEFT JOIN median_gaps ON median_gaps.source_id = gaps.source_id
    WHERE gaps.gap_s > greatest(silence_floor_s, 60, silence_factor * coalesce(median_gaps.median_gap_s, 0))
    GROUP BY ALL
),
ahead_steps AS (
    SELECT source_id, first_line, to_line, ingested_at
    FROM sources
    WHERE last_ts > ingested_at
),
late AS (
    SELECT requests.source_id, count(*) AS late_requests
    FROM requests
    INNER JOIN ahead_steps
        ON ahead_steps.source_id = requests.source_id
        AND requests.line >= ahead_steps.first_line
        AND requests.line < ahead_steps.to_line
        AND requests.ts > ahead_steps.ingested_at
    GROUP BY ALL
)
SELECT
    ledger.source_id,
    ledger.name,
    ledger.gateway,
    ledger.lines::BIGINT AS lines,
    ledger.requests::BIGINT AS requests,
    ledger.rejects::BIGINT AS rejects,
    ledger.skipped::BIGINT AS skipped,
    ledger.duplicates::BIGINT AS duplicates,
    ledger.removed::BIGINT AS removed,
    ledger.lines
        = ledger.requests + ledger.rejects + ledger.skipped + ledger.duplicates + ledger.removed AS is_conserved,
    ledger.is_cut,
    reject_texts.reject_reasons,
    rejected_code_texts.rejected_codes,
    coalesce(bodies.errors, 0) AS errors,
    coalesce(bodies.whole_bodies, 0) AS whole_bodies,
    coalesce(bodies.truncated_bodies, 0) AS truncated_bodies,
    coalesce(bodies.absent_bodies, 0) AS absent_bodies,
    coalesce(bodies.undecodable_bodies, 0) AS undecodable_bodies,
    ledger.first_ts,
    ledger.last_ts,
    coalesce(silences.silences, 0) AS silences,
    silences.longest_silence_s,
    silences.longest_silence_from,
    coalesce(late.late_requests, 0) AS late_requests,
    data_through() AS data_through
FROM ledger
LEFT JOIN reject_texts ON reject_texts.source_id = ledger.source_id
LEFT JOIN rejected_code_texts ON rejected_code_texts.source_id = ledger.source_id
LEFT JOIN bodies ON bodies.source_id = ledger.source_id
LEFT JOIN silences ON silences.source_id = ledger.source_id
LEFT JOIN late ON late.source_id = ledger.source_id
ORDER BY ledger.first_ts NULLS LAST, ledger.source_id;
