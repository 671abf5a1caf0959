-- Wilson's score interval for a proportion (Wilson 1927): what a rate of `hits` in `trials` may be in truth, with
-- `z` = 1.96 for 95 %, 2.58 for 99 %. NULL without trials.
CREATE OR REPLACE MACRO wilson_low(hits, trials, z) AS greatest(0.0, (
    hits + z * z / 2 - z * sqrt(greatest(0.0, hits * (trials - hits) / nullif(trials, 0) + z * z / 4))
) / nullif(trials + z * z, 0) * CASE WHEN trials > 0 THEN 1.0 END);

CREATE OR REPLACE MACRO wilson_high(hits, trials, z) AS least(1.0, (
    hits + z * z / 2 + z * sqrt(greatest(0.0, hits * (trials - hits) / nullif(trials, 0) + z * z / 4))
) / nullif(trials + z * z, 0) * CASE WHEN trials > 0 THEN 1.0 END);
