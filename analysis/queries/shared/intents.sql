-- When a request began, in microseconds since 1970: the lake's ts is the end of the response.
CREATE OR REPLACE MACRO start_us(ended, latency_ms) AS epoch_us(ended) - round(coalesce(latency_ms, 0) * 1000)::BIGINT;

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
