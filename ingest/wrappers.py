"""Records out of the JSON that log shippers and clouds put around them.

Each wrapper is told by marks of its own: what an application logs may well have a `log` or a `message` key, and whoever
calls an API decides what is in it. Knows no gateway's format, and no wrapper that is text around the record.
"""

import base64
import json
import math
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from ingest.json_text import JsonObject, first_wins

MOST_DECODED_BYTES: Final = 1 << 24

ZIPPED: Final = "lambda_event"
"""The wrapper that compresses what it holds."""


@dataclass(frozen=True, slots=True)
class Inner:
    """A record that a wrapper held: its bytes, and when the wrapper received it (UTC epoch microseconds), None where it
    does not say. No bytes: the wrapper lost the record, which is a reject.
    """

    data: bytes
    received_us: int | None


def from_object(record: JsonObject, *, is_unzipped: bool = False) -> tuple[str, list[Inner]] | None:
    """The wrapper's name and what it held; None where `record` is no wrapper's, or `ZIPPED` and `is_unzipped` already.

    Raises ValueError, RecursionError or OverflowError for values that JSON's reader lets pass and its writer does not.
    """
    for mark, name, held in _WRAPPERS:
        if mark in record and not (is_unzipped and name == ZIPPED):
            inner = held(record)
            if inner is not None:
                return name, inner
    return None


def from_array(values: list[Any]) -> tuple[str, list[Inner]] | None:
    """As `from_object`, of an array of records."""
    return ("array", _each(values)) if all(isinstance(value, dict) for value in values) else None


_NO_BYTES: Final = re.compile("[\ud800-\udc7f\udd00-\udfff]")


def text_bytes(text: str) -> bytes:
    """The bytes of a logged text without the line end that a wrapper kept; surrogate escapes are bytes again."""
    text = text.removesuffix("\n")
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return _NO_BYTES.sub("\ufffd", text).encode("utf-8", "surrogateescape")


def _json_bytes(value: object) -> bytes:
    return text_bytes(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_LATEST_US: Final = 253_402_300_800_000_000  # the year 10000


def iso_us(stamp: object) -> int | None:
    """UTC epoch microseconds of an ISO 8601 time that names its zone; None for anything else."""
    try:
        return (datetime.fromisoformat(stamp) - _EPOCH) // _MICROSECOND if isinstance(stamp, str) else None
    except (ValueError, TypeError, OverflowError):  # TypeError: a time without a zone
        return None


def epoch_us(value: object, per_second: int) -> int | None:
    """UTC epoch microseconds of a number, or a text of one, that counts `per_second` from 1970; None for others."""
    try:
        if isinstance(value, float):
            us = round(value * (1_000_000 / per_second)) if math.isfinite(value) else -1
        elif isinstance(value, str | int) and not isinstance(value, bool):
            us = int(value) * 1_000_000 // per_second
        else:
            return None
    except ValueError:
        return None
    return us if 0 <= us < _LATEST_US else None


def _text(record: JsonObject, key: str, received_us: int | None) -> list[Inner] | None:
    value = record.get(key)
    return [Inner(text_bytes(value), received_us)] if isinstance(value, str) else None


def _each(values: Iterable[object]) -> list[Inner]:
    return [Inner(_json_bytes(value), None) for value in values]


def _objects(value: object) -> list[JsonObject]:
    """The objects in `value`, none where it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _object(value: object) -> JsonObject:
    return value if isinstance(value, dict) else {}


_STREAMS: Final = ("stdout", "stderr")
_DOCKER_KEYS: Final = frozenset({"log", "stream", "time", "attrs"})


def _docker(record: JsonObject) -> list[Inner] | None:
    received_us = iso_us(record.get("time"))
    if received_us is None or record.get("stream") not in _STREAMS or not record.keys() <= _DOCKER_KEYS:
        return None
    return _text(record, "log", received_us)


_FLUENT_KEYS: Final = _DOCKER_KEYS | {
    *("message", "date", "@timestamp", "timestamp", "_p", "logtag", "kubernetes", "docker", "log_processed"),
    *("container_id", "container_name", "source", "file", "path", "filename", "tag", "hostname", "host"),
}


def fluent_text(record: JsonObject) -> str | None:
    """The line that a record of Fluent Bit or Fluentd stands for; None where it has fields of its own."""
    value = record.get("log", record.get("message"))
    return value if isinstance(value, str) and record.keys() <= _FLUENT_KEYS else None


def _fluent(record: JsonObject) -> list[Inner] | None:
    text = fluent_text(record)
    date = record.get("date")
    is_dated = "log" in record and isinstance(date, int | float) and not isinstance(date, bool)
    is_container = record.get("stream") in _STREAMS and (
        record.get("_p", record.get("logtag")) in ("F", "P")
        or isinstance(record.get("kubernetes"), dict)
        or isinstance(record.get("container_id"), str)
    )
    if text is None or not (is_dated or is_container):
        return None
    stamps = (record.get("time"), record.get("@timestamp"), date)
    received_us = next((us for us in map(iso_us, stamps) if us is not None), None)
    return [Inner(text_bytes(text), epoch_us(date, 1) if received_us is None else received_us)]


def _journald(record: JsonObject) -> list[Inner] | None:
    stamp = record["__REALTIME_TIMESTAMP"]
    if not isinstance(stamp, str) or not ("MESSAGE" in record or "__CURSOR" in record):
        return None
    received_us = epoch_us(stamp, 1_000_000)
    message = record.get("MESSAGE")
    # A field that was given more than once is an array too: of texts, or of arrays of bytes.
    if isinstance(message, list) and any(isinstance(item, str | list) for item in message):
        return [Inner(_journal_bytes(item), received_us) for item in message]
    return [Inner(_journal_bytes(message), received_us)]


def _journal_bytes(value: object) -> bytes:
    if isinstance(value, str):
        return text_bytes(value)
    try:
        # systemd writes null for a field over its limit: then nothing of the record is left.
        return bytes(value).removesuffix(b"\n") if isinstance(value, list) else b""
    except (ValueError, TypeError):
        return b""


def _filebeat(record: JsonObject) -> list[Inner] | None:
    is_beat = (
        isinstance(_object(record.get("@metadata")).get("beat"), str)
        or _object(record.get("agent")).get("type") == "filebeat"
        or isinstance(_object(record.get("log")).get("offset"), int)
    )
    return _text(record, "message", iso_us(record["@timestamp"])) if is_beat else None


_VECTOR_SOURCES: Final = (
    *("aws_kinesis_firehose", "aws_s3", "aws_sqs", "amqp", "datadog_agent", "docker_logs", "exec", "file"),
    *("file_descriptor", "fluent", "gcp_pubsub", "heroku_logs", "http", "http_client", "http_server", "journald"),
    *("kafka", "kubernetes_logs", "logstash", "mqtt", "nats", "opentelemetry", "pulsar", "redis", "socket"),
    *("splunk_hec", "stdin", "syslog", "vector", "websocket"),
)


def _vector(record: JsonObject) -> list[Inner] | None:
    is_vector = record["source_type"] in _VECTOR_SOURCES and "timestamp" in record
    return _text(record, "message", iso_us(record["timestamp"])) if is_vector else None


def _rsyslog(record: JsonObject) -> list[Inner] | None:
    tag = next((record[key] for key in ("syslogtag", "programname", "tag") if key in record), None)
    host = next((record[key] for key in ("hostname", "fromhost", "host") if key in record), None)
    has_priority = "severity" in record and "facility" in record
    if not isinstance(tag, str) or not isinstance(host, str) or not ("syslogtag" in record or has_priority):
        return None
    text = record.get("message", record.get("msg"))
    stamps = (record.get(key) for key in ("@timestamp", "timereported", "timestamp", "timegenerated"))
    received_us = next((us for us in map(iso_us, stamps) if us is not None), None)
    # What follows the colon of the tag is the message, its blank included (rsyslog manual, "msg").
    return [Inner(text_bytes(text.removeprefix(" ")), received_us)] if isinstance(text, str) else None


def _cloudwatch(record: JsonObject) -> list[Inner] | None:
    if not isinstance(record["logEvents"], list) or "logGroup" not in record:
        return None
    match record.get("messageType"):
        case "CONTROL_MESSAGE":
            return []
        case "DATA_MESSAGE":
            return [
                Inner(_text_or_nothing(event.get("message")), epoch_us(event.get("timestamp"), 1000))
                for event in map(_object, record["logEvents"])
            ]
        case _:
            return None


def _text_or_nothing(value: object) -> bytes:
    return text_bytes(value) if isinstance(value, str) else b""


def _lambda_event(record: JsonObject) -> list[Inner] | None:
    data = _object(record["awslogs"]).get("data")
    return [Inner(_gunzipped(data), None)] if len(record) == 1 and isinstance(data, str) else None


def _gunzipped(data: str) -> bytes:
    """What base64 of gzip holds; nothing where it is damaged, or too much to hold."""
    member = zlib.decompressobj(31)
    try:
        found = member.decompress(base64.b64decode(data), MOST_DECODED_BYTES)
    except (ValueError, zlib.error):
        return b""
    return found if member.eof else b""


def _google(record: JsonObject) -> list[Inner] | None:
    if not isinstance(record["insertId"], str) or not isinstance(record.get("logName"), str):
        return None
    received_us = iso_us(record.get("timestamp", record.get("receiveTimestamp")))
    if isinstance(record.get("jsonPayload"), dict):
        return [Inner(_json_bytes(record["jsonPayload"]), received_us)]
    return _text(record, "textPayload", received_us)


def _datadog(record: JsonObject) -> list[Inner] | None:
    received_us = iso_us(record.get("date"))
    if not isinstance(record["_id"], str) or received_us is None or not record.keys() & {"service", "source", "tags"}:
        return None
    if record.get("message") or not isinstance(record.get("attributes"), dict):
        return _text(record, "message", received_us)
    return [Inner(_json_bytes(record["attributes"]), received_us)]


_LOGCLI_KEYS: Final = frozenset({"labels", "line", "timestamp", "structuredMetadata", "parsed"})


def _logcli(record: JsonObject) -> list[Inner] | None:
    is_logcli = isinstance(record.get("labels"), dict) and record.keys() <= _LOGCLI_KEYS
    received_us = iso_us(record.get("timestamp"))
    return _text(record, "line", received_us) if is_logcli and received_us is not None else None


def _loki_answer(record: JsonObject) -> list[Inner] | None:
    data = _object(record["data"])
    if record.get("status") != "success" or data.get("resultType") != "streams":
        return None
    entries = (entry for stream in _objects(data.get("result")) for entry in _lists(stream.get("values")))
    return [
        Inner(_text_or_nothing(entry[1]), epoch_us(entry[0], 1_000_000_000)) for entry in entries if len(entry) >= 2
    ]


def _lists(value: object) -> list[list[Any]]:
    return [item for item in value if isinstance(item, list)] if isinstance(value, list) else []


def _batch(key: str) -> Callable[[JsonObject], list[Inner] | None]:
    """Reads a wrapper that is nothing but a list of objects below `key`."""

    def held(record: JsonObject) -> list[Inner] | None:
        values = record[key]
        is_batch = len(record) == 1 and isinstance(values, list) and all(isinstance(value, dict) for value in values)
        return _each(values) if is_batch else None

    return held


def _otlp(record: JsonObject) -> list[Inner] | None:
    if len(record) != 1 or not isinstance(record["resourceLogs"], list):
        return None
    return [
        Inner(_json_bytes(_flat(log, resource)), _otlp_received_us(log))
        for group in _objects(record["resourceLogs"])
        for resource in [_attributes(_object(group.get("resource")).get("attributes"))]
        for scope in _objects(group.get("scopeLogs"))
        for log in _objects(scope.get("logRecords"))
    ]


def _otlp_received_us(log: JsonObject) -> int | None:
    return epoch_us(log.get("observedTimeUnixNano", log.get("timeUnixNano")), 1_000_000_000)


def _flat(log: JsonObject, resource: JsonObject) -> JsonObject:
    # Protobuf's JSON has 64-bit numbers as text, and OpenTelemetry's own example has them as numbers.
    times: JsonObject = {key: str(log[key]) for key in ("timeUnixNano", "observedTimeUnixNano") if key in log}
    ids: JsonObject = {key: log[key] for key in ("traceId", "spanId", "severityText") if key in log}
    body = {"body": _plain(log["body"])} if "body" in log else {}
    return {**times, **ids, **body, "attributes": _attributes(log.get("attributes")), "resource": resource}


def _attributes(value: object) -> JsonObject:
    return first_wins([(str(item.get("key")), _plain(item.get("value"))) for item in _objects(value)])


def _plain(value: object) -> object:
    """An OTLP AnyValue as the plain JSON value that it stands for."""
    if not isinstance(value, dict) or not value:
        return None
    kind, held = next(iter(value.items()))
    match kind:
        case "intValue":
            return int(held) if isinstance(held, str) else held
        case "arrayValue":
            values = _object(held).get("values")
            return [_plain(item) for item in values] if isinstance(values, list) else []
        case "kvlistValue":
            return _attributes(_object(held).get("values"))
        case _:
            return held


def _envoy_als(record: JsonObject) -> list[Inner] | None:
    logs = record["httpLogs"]
    if not isinstance(logs, dict) or not isinstance(logs.get("logEntry"), list):
        return None
    return _each(_with_flag_names(entry) for entry in _objects(logs["logEntry"]))


def _with_flag_names(entry: JsonObject) -> JsonObject:
    common = dict(_object(entry.get("commonProperties")))
    flags = _object(common.pop("responseFlags", None))
    names = sorted(name for name, is_set in flags.items() if is_set)
    return {**entry, "commonProperties": {**common, "responseFlagNames": names}}


def _envoy_tap(record: JsonObject) -> list[Inner] | None:
    trace = record["http_buffered_trace"]
    if not isinstance(trace, dict):
        return None
    request, response = _object(trace.get("request")), _object(trace.get("response"))
    body = _object(response.get("body"))
    held = {"body": body.get("as_string", body.get("as_bytes"))} if body else {}
    return _each([{"request": {"headers": _headers(request)}, "response": {"headers": _headers(response), **held}}])


def _headers(message: JsonObject) -> JsonObject:
    return first_wins([(str(item.get("key")), item.get("value")) for item in _objects(message.get("headers"))])


# By a key that the wrapper cannot be without.
_WRAPPERS: Final[tuple[tuple[str, str, Callable[[JsonObject], list[Inner] | None]], ...]] = (
    ("log", "docker", _docker),
    ("log", "fluent", _fluent),
    ("_p", "fluent", _fluent),
    ("logtag", "fluent", _fluent),
    ("__REALTIME_TIMESTAMP", "journald", _journald),
    ("@timestamp", "filebeat", _filebeat),
    ("source_type", "vector", _vector),
    ("syslogtag", "rsyslog", _rsyslog),
    ("facility", "rsyslog", _rsyslog),
    ("logEvents", "cloudwatch", _cloudwatch),
    ("awslogs", ZIPPED, _lambda_event),
    ("insertId", "google", _google),
    ("_id", "datadog", _datadog),
    ("line", "loki", _logcli),
    ("data", "loki", _loki_answer),
    ("records", "azure", _batch("records")),
    ("events", "events", _batch("events")),
    ("Records", "records", _batch("Records")),
    ("resourceLogs", "otlp", _otlp),
    ("httpLogs", "envoy_als", _envoy_als),
    ("http_buffered_trace", "envoy_tap", _envoy_tap),
)
