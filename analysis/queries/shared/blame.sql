-- Whose problem an error is: the category of its code in the catalogue, else what its status says.
CREATE OR REPLACE MACRO blame_of(category, status, code) AS CASE
    WHEN is_platform_fault(status, code) THEN 'platform'
    WHEN category IS NOT NULL THEN category
    WHEN status IN (401, 403) THEN 'authorization'
    WHEN status = 429 THEN 'pacing'
    ELSE 'client'
END;
