-- When a request began, in microseconds since 1970: the lake's ts is the end of the response. A log may hold any number
-- for a latency: more than three years count as three.
CREATE OR REPLACE MACRO start_us(ended, latency_ms) AS
    epoch_us(ended) - round(least(coalesce(latency_ms, 0), 1e11) * 1000)::BIGINT;

-- Does the route stand for many objects, one a path? /v1/messages/{id} does, /v1/messages does not.
CREATE OR REPLACE MACRO names_object(route) AS coalesce(route LIKE '%{%', false);

-- What attempts at the same thing have in common besides caller, method and idempotency key.
CREATE OR REPLACE MACRO intent_path_of(route, path) AS CASE WHEN names_object(route) THEN path ELSE route END;

-- How surely two attempts that agree in all of that want the same thing: high with an idempotency key, medium on a path
-- that names one object, low on a path that any object is sent to.
CREATE OR REPLACE MACRO intent_confidence_of(idempotency_hash, route) AS CASE
    WHEN idempotency_hash IS NOT NULL THEN 'high'
    WHEN names_object(route) THEN 'medium'
    ELSE 'low'
END;

-- Gateways log milliseconds: a retry at once may seem to begin this much before the failure ended.
CREATE OR REPLACE MACRO clock_error_us() AS 1000;

-- Seconds as whole microseconds.
CREATE OR REPLACE MACRO microseconds(seconds) AS round(seconds * 1e6)::BIGINT;

-- Was the caller told to slow down, by the API or by the gateway before it? Of an error's status and code.
CREATE OR REPLACE MACRO is_rate_limited(status, code) AS status = 429 OR coalesce(code = 'rate_limited', false);

-- Did the platform fail, or the gateway before it? Of an error's status and code.
CREATE OR REPLACE MACRO is_platform_fault(status, code) AS status >= 500 OR coalesce(code = 'internal_error', false);

-- Who is at fault for an error: rate_limited (status 429, or a code that comes with it), platform (a code that the
-- platform owns, or without a known code a status of 500 and above), client (every other). Of its status, and of what
-- the catalogue says of its code: status and owner, NULL where it does not know the code.
CREATE OR REPLACE MACRO fault_of(status, catalogue_status, catalogue_owner) AS CASE
    WHEN 429 IN (status, catalogue_status) THEN 'rate_limited'
    WHEN catalogue_owner = 'platform' THEN 'platform'
    WHEN catalogue_owner IS NULL AND status >= 500 THEN 'platform'
    ELSE 'client'
END;
