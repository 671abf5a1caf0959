-- Are `errors` in so many requests at least `factor` times as many as the others in theirs? Yes where the others are not
-- known (NULL requests); nothing is not more than nothing.
CREATE OR REPLACE MACRO is_more(errors, requests, other_errors, other_requests, factor) AS
    other_requests IS NULL
    OR requests IS NULL
    OR (errors > 0 AND errors * other_requests >= factor * other_errors * requests);
