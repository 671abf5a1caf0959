"""Records out of what carried them, and what only looks like a wrapper."""

import base64
import gzip
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingest.documents import split
from ingest.unwrap import MOST_OPEN_BYTES, Inner, Joined, join, unwrap

SAMPLES: Final = Path(__file__).with_name("fixtures") / "wrappers"
US: Final = 1_724_241_600_123_456
"""2024-08-21T12:00:00.123456Z, which most of the wrappers below say."""


def compact(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogateescape")


def lines_of(name: str) -> list[bytes]:
    """The lines of a sample; of a sample of documents, the documents."""
    data = (SAMPLES / name).read_bytes()
    data = gzip.decompress(data) if name.endswith(".gz") else data
    if name.endswith(".json"):
        documents, _ = split(data, is_end=True)
        return [document.data for document in documents]
    return data.splitlines()


def innermost(record: bytes) -> list[bytes]:
    unwrapped = unwrap(record)
    return [record] if unwrapped is None else [found for inner in unwrapped[1] for found in innermost(inner.data)]


@pytest.mark.parametrize(
    ("name", "records"),
    [
        (
            "wrap_docker_json_file.log",
            [
                "kong_filelog_3x.jsonl:1",
                b"2024/08/21 12:00:02 [error] 29#0: *1 upstream timed out (110: Connection timed out) while connecting "
                b"to upstream",
            ],
        ),
        ("wrap_cri.log", ["kong_filelog_3x.jsonl:1", b"[warn] interleaved other stream"]),
        ("wrap_fluentbit_file.log", ["kong_filelog_3x.jsonl:1"]),
        ("wrap_fluentd_out_file.log", ["kong_filelog_3x.jsonl:1", "nginx_json.jsonl:0"]),
        ("wrap_vector.jsonl", ["nginx_json.jsonl:0"]),
        ("wrap_filebeat.jsonl", ["nginx_json.jsonl:0"]),
        ("wrap_journald.jsonl", ["istio_json.jsonl:0", "istio_json.jsonl:1", b""]),
        ("wrap_syslog_5424.log", ["nginx_json.jsonl:0"]),
        ("wrap_syslog_3164_nginx.log", ["nginx_json.jsonl:0"]),
        ("kong_syslog.log", ["kong_filelog_3x.jsonl:0"]),
        ("wrap_gcp_textpayload.jsonl", ["nginx_json.jsonl:0", "kong_filelog_3x.jsonl:1"]),
        ("wrap_datadog_archive.json.gz", ["nginx_json.jsonl:0"]),
        ("wrap_loki_logcli.jsonl", ["nginx_json.jsonl:0"]),
        ("wrap_loki_query_range.json", ["nginx_json.jsonl:1", "nginx_json.jsonl:0"]),
        ("azure_eventhub_records.json", ["azure_apim_gatewaylogs.jsonl:0", "azure_apim_gatewaylogs.jsonl:2"]),
        ("kong_httplog_batch.json", ["kong_filelog_3x.jsonl:0", "kong_filelog_3x.jsonl:1"]),
        ("apisix_http_logger_batch.json", ["apisix_file_logger.jsonl:0", "apisix_file_logger.jsonl:1"]),
        ("cloudwatch_subscription_decoded.json", [f"aws_apigw_rest.jsonl:{line}" for line in (0, 1, 2)]),
        ("cloudwatch_subscription_lambda_event.json", [f"aws_apigw_rest.jsonl:{line}" for line in (0, 1, 2)]),
        ("cloudwatch_s3_export_000000.gz", [f"aws_apigw_rest.jsonl:{line}" for line in (2, 0, 1)]),
        ("firehose_cwl_concatenated.json", [f"aws_apigw_rest.jsonl:{line}" for line in (0, 1, 2, 0, 1, 2)]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_sample_holds_the_very_records_that_were_wrapped(name: str, records: list[str | bytes]) -> None:
    joined = join(lines_of(name), is_end=True)

    found = [inner for record in joined.records for inner in innermost(record)]

    assert found == [record if isinstance(record, bytes) else sample(record) for record in records]


@pytest.mark.parametrize(
    ("name", "count"),
    [("envoy_als.json", 1), ("envoy_tap.json", 1), ("otlp_logs.jsonl", 2), ("haproxy_httplog.log", 4)],
)
def test_a_sample_of_a_batch_or_of_syslog_holds_as_many_records_as_it_has(name: str, count: int) -> None:
    unwrapped = [unwrap(line) for line in lines_of(name)]

    assert sum(len(found[1]) for found in unwrapped if found) == count


def sample(place: str) -> bytes:
    """A line of a sample that no wrapper is around, such as `nginx_json.jsonl:0`."""
    name, line = place.rsplit(":", 1)
    return (SAMPLES / name).read_bytes().splitlines()[int(line)]


ALS: Final = {
    "commonProperties": {"startTime": "2024-08-21T12:00:00.123Z", "responseFlags": {"rateLimited": True}},
    "response": {"responseCode": 429},
}
OTLP_LOG: Final = {
    "timeUnixNano": 1724241600122999808,
    "observedTimeUnixNano": "1724241600123456789",
    "severityText": "ERROR",
    "traceId": "5b8e",
    "spanId": "eee1",
    "body": {"kvlistValue": {"values": [{"key": "code", "value": {"stringValue": "invalid"}}]}},
    "attributes": [
        {"key": "status", "value": {"intValue": "422"}},
        {"key": "bytes", "value": {"intValue": 12}},
        {"key": "s", "value": {"doubleValue": 0.5}},
        {"key": "is_cached", "value": {"boolValue": False}},
        {"key": "tries", "value": {"arrayValue": {"values": [{"intValue": "1"}, {"stringValue": "b"}]}}},
        {"key": "nothing", "value": {}},
    ],
}


CASES: Final[list[tuple[bytes, tuple[str, list[Inner]]]]] = [
    (
        rb'{"log":"a \"b\" \\ \u00fc\n","stream":"stderr","attrs":{"tag":"x}"},'
        rb'"time":"2024-08-21T12:00:00.123456789Z"}',
        ("docker", [Inner('a "b" \\ ü'.encode(), US)]),
    ),
    (
        b'{"time": "2024-08-21T12:00:00.123456Z", "stream": "stdout", "log": "a"}\n',
        ("docker", [Inner(b"a", US)]),
    ),
    (b"2024-08-21T14:00:00.123456789+02:00 stdout F a  b\n", ("cri", [Inner(b"a  b", US)])),
    (b"2024-08-21T12:00:00.123456Z stderr P:x:y \x1f\x8b\xff", ("cri", [Inner(b"\x1f\x8b\xff", US)])),
    (b"2024-08-21T12:00:00.123456Z stdout F", ("cri", [Inner(b"", US)])),
    (b"<190>Aug  1 12:00:00 gw-1 nginx: {}", ("syslog_3164", [Inner(b"{}", None)])),
    (b"<134>Aug 21 12:00:00 haproxy[14389]: upstream: x", ("syslog_3164", [Inner(b"upstream: x", None)])),
    (b"<134>Aug 21 12:00:00 gw-1 {}", ("syslog_3164", [Inner(b"{}", None)])),
    (b"Nov 23 11:30:46 vm haproxy[3118]: 127.0.0.1:1 [x]", ("syslog_3164", [Inner(b"127.0.0.1:1 [x]", None)])),
    (b"2024-08-21T12:00:00.123456+00:00 vm nginx: {}", ("syslog_3164", [Inner(b"{}", US)])),
    (b"<14>2024-08-21T12:00:00.123456Z pump-1 tyk-pump[1]: map[a:b]", ("syslog_3164", [Inner(b"map[a:b]", US)])),
    (
        rb'<134>1 2024-08-21T12:00:00.123456Z gw nginx 2211 - [a@1 x="\"\]" y=""][b] ' + b"\xef\xbb\xbf{}",
        ("syslog_5424", [Inner(b"{}", US)]),
    ),
    (b"<0>1 - - - - - - a", ("syslog_5424", [Inner(b"a", None)])),
    (
        b'{"@timestamp":"2024-08-21T12:00:00.123456+00:00","host":"gw-1","severity":"info","facility":"local7",'
        b'"syslogtag":"nginx:","message":" {}"}',
        ("rsyslog", [Inner(b"{}", US)]),
    ),
    (
        b'{"msg":" {}","timereported":"2024-08-21T12:00:00.123456Z","hostname":"gw-1","syslogtag":"kong[1]:"}',
        ("rsyslog", [Inner(b"{}", US)]),
    ),
    (
        b'{"__REALTIME_TIMESTAMP":"1724241600123456","MESSAGE":[255,10]}',
        ("journald", [Inner(b"\xff", US)]),
    ),
    (
        b'{"__REALTIME_TIMESTAMP":"1724241600123456","MESSAGE":["a",[98],null]}',
        ("journald", [Inner(b"a", US), Inner(b"b", US), Inner(b"", US)]),
    ),
    (b'{"__REALTIME_TIMESTAMP":"1724241600123456","__CURSOR":"s"}', ("journald", [Inner(b"", US)])),
    (b'{"__REALTIME_TIMESTAMP":"1724241600123456","MESSAGE":[256]}', ("journald", [Inner(b"", US)])),
    (b'kong: [1724241600.123456000, {"a":1}]', ("fluent_bit", [Inner(b'{"a":1}', US)])),
    (b'kong: [[1724241600.123456000, {"m":1}], {"log":"a\\n"}]', ("fluent_bit", [Inner(b"a", US)])),
    (b'0.kong: [1724241600.123456, {"a":-}]', ("fluent_bit", [Inner(b'{"a":-}', US)])),
    (b'{"date":1724241600.123456,"log":"a"}', ("fluent", [Inner(b"a", US)])),
    (
        b'{"time":"2024-08-21T12:00:00.123456Z","stream":"stdout","_p":"F","message":"a"}',
        ("fluent", [Inner(b"a", US)]),
    ),
    (
        b'{"date":1.5,"stream":"stdout","logtag":"F","time":"2024-08-21T12:00:00.123456Z","log":"a","kubernetes":{}}',
        ("fluent", [Inner(b"a", US)]),
    ),
    (b'2024-08-21T12:00:00.123456+00:00\tkong\t{"a":1}', ("fluentd", [Inner(b'{"a":1}', US)])),
    (b'2024-08-21T12:00:00.123456+00:00\tkong\t{"message":"a"}', ("fluentd", [Inner(b"a", US)])),
    (
        b'{"@timestamp":"2024-08-21T12:00:00.123456Z","agent":{"type":"filebeat"},"message":"a"}',
        ("filebeat", [Inner(b"a", US)]),
    ),
    (
        b'{"@timestamp":"2024-08-21T12:00:00.123456Z","log":{"offset":0},"message":"a"}',
        ("filebeat", [Inner(b"a", US)]),
    ),
    (
        b'{"message":"a","source_type":"kubernetes_logs","timestamp":"2024-08-21T12:00:00.123456Z","pod":"b"}',
        ("vector", [Inner(b"a", US)]),
    ),
    (
        b'{"messageType":"DATA_MESSAGE","logGroup":"g","logEvents":[{"timestamp":1724241600123,"message":"a\\n"},{}]}',
        ("cloudwatch", [Inner(b"a", US - 456), Inner(b"", None)]),
    ),
    (
        b'{"messageType":"CONTROL_MESSAGE","logGroup":"","logEvents":[{"message":"checking health"}]}',
        ("cloudwatch", []),
    ),
    (b"2024-08-21T12:00:00.123Z 203.0.113.1 - - x", ("cloudwatch_export", [Inner(b"203.0.113.1 - - x", US - 456)])),
    (b"1724241600123 {}", ("cloudwatch_export", [Inner(b"{}", US - 456)])),
    (b'{"awslogs":{"data":"H4sI"}}', ("lambda_event", [Inner(b"", None)])),
    (b'{"awslogs":{"data":"not base64"}}', ("lambda_event", [Inner(b"", None)])),
    (
        b'{"insertId":"i","logName":"n","timestamp":"2024-08-21T12:00:00.123456Z","jsonPayload":{"a":1,"a":2}}',
        ("google", [Inner(b'{"a":1}', US)]),
    ),
    (
        b'{"_id":"i","date":"2024-08-21T12:00:00.123456Z","service":"s","status":"info","attributes":{"a":1}}',
        ("datadog", [Inner(b'{"a":1}', US)]),
    ),
    (
        b'{"labels":{},"line":"a","timestamp":"2024-08-21T12:00:00.123456789Z"}',
        ("loki", [Inner(b"a", US)]),
    ),
    (b'{"status":"success","data":{"resultType":"streams","result":[]}}', ("loki", [])),
    (b'{"events":[{"a":1},{"b":2}]}', ("events", [Inner(b'{"a":1}', None), Inner(b'{"b":2}', None)])),
    (b'{"Records":[{"a":"\\ud800"}]}', ("records", [Inner('{"a":"\ufffd"}'.encode(), None)])),
    (b' [ {"a":1} , {"b":[]} ] ', ("array", [Inner(b'{"a":1}', None), Inner(b'{"b":[]}', None)])),
    (b"[]", ("array", [])),
    (
        compact(
            {
                "resourceLogs": [
                    {
                        "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "gw"}}]},
                        "scopeLogs": [{"logRecords": [OTLP_LOG, {"body": {"stringValue": "a"}}]}],
                    }
                ]
            }
        ),
        (
            "otlp",
            [
                Inner(
                    compact(
                        {
                            "timeUnixNano": "1724241600122999808",
                            "observedTimeUnixNano": "1724241600123456789",
                            "traceId": "5b8e",
                            "spanId": "eee1",
                            "severityText": "ERROR",
                            "body": {"code": "invalid"},
                            "attributes": {
                                "status": 422,
                                "bytes": 12,
                                "s": 0.5,
                                "is_cached": False,
                                "tries": [1, "b"],
                                "nothing": None,
                            },
                            "resource": {"service.name": "gw"},
                        }
                    ),
                    US,
                ),
                Inner(b'{"body":"a","attributes":{},"resource":{"service.name":"gw"}}', None),
            ],
        ),
    ),
    (
        compact({"httpLogs": {"logEntry": [ALS, {"commonProperties": {"responseFlags": {"b": {}, "a": True}}}]}}),
        (
            "envoy_als",
            [
                Inner(
                    b'{"commonProperties":{"startTime":"2024-08-21T12:00:00.123Z","responseFlagNames":["rateLimited"]},'
                    b'"response":{"responseCode":429}}',
                    None,
                ),
                Inner(b'{"commonProperties":{"responseFlagNames":["a"]}}', None),
            ],
        ),
    ),
    (
        b'{"http_buffered_trace":{"request":{"headers":[{"key":":path","value":"/v1"}]},"response":{"headers":'
        b'[{"key":":status","value":"429"}],"body":{"truncated":false,"as_bytes":"e30="}}}}',
        (
            "envoy_tap",
            [
                Inner(
                    b'{"request":{"headers":{":path":"/v1"}},"response":{"headers":{":status":"429"},"body":"e30="}}',
                    None,
                )
            ],
        ),
    ),
]


@pytest.mark.parametrize(
    ("record", "unwrapped"),
    CASES,
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_wrapper_gives_what_it_holds_and_when_it_received_it(
    record: bytes, unwrapped: tuple[str, list[Inner]]
) -> None:
    assert unwrap(record) == unwrapped


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"null",
        b'{"log":"{\\"status\\":200}"}',
        b'{"log":"a","stream":"stdout"}',
        b'{"log":"a","stream":"stdin","time":"2024-08-21T12:00:00Z"}',
        b'{"log":"a","stream":["stdout"],"time":"2024-08-21T12:00:00Z"}',
        b'{"log":"a","status":500,"x":"","stream":"stdout","time":"2024-08-21T12:00:00Z"}',
        b'{"log":"a","stream":"stdout","time":"2024-08-21T12:00:00"}',
        b'{"log":"a","stream":"stdout","time":"2024-08-21T12:00:00Z"',
        b'{"date":"today","log":"a"}',
        b'{"date":1724241600.5,"message":"a"}',
        b'{"date":1724241600.5,"log":"a","status":200}',
        b'{"level":"info","time":"2024-08-21T12:00:00Z","message":"{\\"status\\":200}"}',
        b'{"@timestamp":"2024-08-21T12:00:00Z","message":"a","log.level":"INFO","service.name":"x"}',
        b'{"@timestamp":"2024-08-21T12:00:00Z","message":"a","log":{"level":"info"},"agent":{"name":"x"}}',
        b'{"message":"a","timestamp":"2024-08-21T12:00:00Z","source_type":"web"}',
        b'{"MESSAGE":"a","timestamp":"1724241600123456"}',
        b'{"facility":"local7","message":"a","host":"gw-1"}',
        b'{"insertId":"i","textPayload":"a"}',
        b'{"insertId":"i","logName":"n","httpRequest":{"status":200}}',
        b'{"_id":"i","date":"2024-08-21T12:00:00Z","message":"a"}',
        b'{"line":"a","labels":{},"timestamp":"2024-08-21T12:00:00Z","status":200}',
        b'{"status":"success","data":{"result":[{"values":[["1","a"]]}]}}',
        b'{"records":[{"a":1}],"status":200}',
        b'{"records":["a"]}',
        b'{"events":{"a":1}}',
        b'{"messageType":"OTHER","logGroup":"g","logEvents":[{"message":"a"}]}',
        b"[1,2]",
        b'["{}"]',
        b'[2024-08-21T12:00:00.123Z] "GET /v1/messages HTTP/1.1" 200',
        b"2024-08-21T12:00:00.123456Z stdout X a",
        b"2024-08-21T12:00:00.123456Z stdin F a",
        b"2024-08-21T12:00:00 stdout F a",
        b'2024-08-21T12:00:00Z INFO http: {"status":200}',
        b'Aug 21 12:00:00 ERROR handler: {"status":200}',
        b'Aug 21 12:00:00 nginx: {"status":200}',
        b"<192>Aug 21 12:00:00 gw-1 nginx: a",
        b'user said: [1724241600.5, {"log":"a"}]',
        b'203.0.113.1 - - [21/Aug/2024:12:00:00 +0000] "GET / HTTP/1.1" 200 1 "-" "x: [1.5, {}]"',
        b"2024/08/21 12:00:02 [error] 29#0: *1 upstream timed out",
        b'127.0.0.1 {"log":"a\\n","stream":"stdout","time":"2024-08-21T12:00:00Z"}',
    ],
    ids=bytes.decode,
)
def test_what_an_application_or_a_client_may_write_is_no_wrapper(record: bytes) -> None:
    assert unwrap(record) is None


def test_a_small_event_cannot_fill_the_memory() -> None:
    bomb = base64.b64encode(gzip.compress(bytes(64 << 20)))
    tracemalloc.start()

    unwrapped = unwrap(b'{"awslogs":{"data":"' + bomb + b'"}}')

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert unwrapped == ("lambda_event", [Inner(b"", None)])
    assert peak < 48 << 20


STAMP: Final = "2024-08-21T12:00:00.123456Z"
TEXT_WRAPPERS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "cri": lambda record: STAMP.encode() + b" stdout F " + record,
    "syslog_3164": lambda record: b"<190>Aug 21 12:00:00 gw-1 nginx[1]: " + record,
    "syslog_5424": lambda record: b'<134>1 2024-08-21T12:00:00Z gw nginx 1 - [a b="]"] ' + record,
}
JSON_WRAPPERS: Final[dict[str, Callable[[str], object]]] = {
    "docker": lambda text: {"log": text + "\n", "stream": "stdout", "time": STAMP},
    "fluent": lambda text: {"date": 1724241600.5, "log": text},
    "journald": lambda text: {"__CURSOR": "s", "__REALTIME_TIMESTAMP": "1724241600123456", "MESSAGE": text},
    "filebeat": lambda text: {"@timestamp": STAMP, "@metadata": {"beat": "filebeat"}, "message": text},
    "vector": lambda text: {"file": "a", "message": text, "source_type": "file", "timestamp": STAMP},
    "rsyslog": lambda text: {"msg": " " + text, "hostname": "gw", "syslogtag": "nginx:"},
    "cloudwatch": lambda text: {"messageType": "DATA_MESSAGE", "logGroup": "g", "logEvents": [{"message": text}]},
    "google": lambda text: {"insertId": "i", "logName": "n", "textPayload": text},
    "loki": lambda text: {"labels": {}, "line": text, "timestamp": STAMP},
}


def without_line_end(record: bytes) -> bytes:
    return record.removesuffix(b"\n")


@pytest.mark.parametrize("name", TEXT_WRAPPERS)
@given(record=st.binary())
@example(record=b"\x1f\x8b \n")
def test_bytes_come_out_of_a_line_as_they_went_in(name: str, record: bytes) -> None:
    unwrapped = unwrap(TEXT_WRAPPERS[name](record))

    assert unwrapped is not None
    # A byte order mark in front of the text belongs to syslog (RFC 5424, 6.4).
    held = record.removeprefix(b"\xef\xbb\xbf") if name == "syslog_5424" else record
    assert (unwrapped[0], [inner.data for inner in unwrapped[1]]) == (name, [without_line_end(held)])


@pytest.mark.parametrize("is_ascii", [True, False], ids=["escaped", "as it is"])
@pytest.mark.parametrize("name", JSON_WRAPPERS)
@given(record=st.binary() | st.text().map(str.encode))
@example(record=b"\xed\xb2\x80")
@example(record=b"\\n\n")
@example(record=b'{"a":"\\\\"}\n\n')
def test_bytes_come_out_of_json_as_they_went_in(name: str, is_ascii: bool, record: bytes) -> None:
    text = record.decode("utf-8", "surrogateescape")
    wrapped = json.dumps(JSON_WRAPPERS[name](text), ensure_ascii=is_ascii, separators=(",", ":"))

    unwrapped = unwrap(wrapped.encode("utf-8", "surrogateescape"))

    assert unwrapped is not None
    assert (unwrapped[0], [inner.data for inner in unwrapped[1]]) == (name, [held_by(name, record)])


def held_by(name: str, record: bytes) -> bytes:
    """What is left of `record`: one line end is the wrapper's own, and Docker adds one to each."""
    return record if name == "docker" else without_line_end(record)


def test_a_lone_surrogate_that_stands_for_no_byte_is_replaced() -> None:
    assert unwrap(rb'{"date":1.5,"log":"\ud800\udc80\ud800"}') == (
        "fluent",
        [Inner("\U00010080\ufffd".encode(), 1_500_000)],
    )


WRAPPERS: Final = [json.loads(record) for record, _ in CASES if record.lstrip()[:1] in (b"{", b"[")]
JUNK: Final[st.SearchStrategy[Any]] = st.recursive(
    st.sampled_from([None, True, -1, 0.5, 10**400, float("nan"), float("inf"), "", "1" * 5000, "-1", STAMP, [], {}])
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["key", "values", "a"]), inner),
    max_leaves=4,
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A record of a wrapper with one value in it that should not be there."""
    record = json.loads(json.dumps(draw(st.sampled_from([wrapper for wrapper in WRAPPERS if wrapper]))))
    place: Any = record
    while True:
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not (isinstance(place[key], dict | list) and place[key] and draw(st.booleans())):
            break
        place = place[key]
    place[key] = draw(JUNK)
    return json.dumps(record).encode()


@given(record=st.binary() | damaged())
@example(record=b'{"log":"' + b"[" * 100_000)
@example(record=b"[" * 100_000)
@example(record=b'{"resourceLogs":' + b"[" * 900 + b"]" * 900 + b"}")
@example(record=b'{"date":1e400,"log":"a"}')
@example(record=b'{"date":NaN,"log":"a"}')
@example(record=b'{"date":' + b"1" * 5000 + b',"log":"a"}')
@example(record=b'{"log":"a","stream":"stdout","time":"0001-01-01T00:00:00+23:59"}')
@example(record=b'{"log":"\\')
@example(record=b'kong: [999999999999.5, {"a":1}]')
def test_no_bytes_raise(record: bytes) -> None:
    unwrapped = unwrap(record)

    assert unwrapped is None or all(type(inner.data) is bytes for inner in unwrapped[1])


def cri(stream: str, tag: str, text: bytes) -> bytes:
    return f"{STAMP} {stream} {tag} ".encode() + text


def docker(stream: str, text: str) -> bytes:
    return compact({"log": text, "stream": stream, "time": STAMP})


@pytest.mark.parametrize(
    ("lines", "is_end", "joined"),
    [
        ([], True, Joined([], [], None)),
        ([b"a", cri("stdout", "F", b"b")], False, Joined([b"a", cri("stdout", "F", b"b")], [0, 1], None)),
        (
            [
                cri("stdout", "P", b"a"),
                b"x",
                cri("stderr", "F", b"c"),
                cri("stdout", "P", b""),
                cri("stdout", "F", b"b"),
            ],
            False,
            Joined([cri("stdout", "F", b"ab"), b"x", cri("stderr", "F", b"c")], [0, 1, 2], None),
        ),
        (
            [docker("stdout", "a"), docker("stderr", "b\n"), docker("stdout", "\\n"), docker("stdout", "c\n")],
            False,
            Joined([docker("stdout", "a\\nc\n"), docker("stderr", "b\n")], [0, 1], None),
        ),
        ([b"x", cri("stdout", "P", b"a"), b"y"], False, Joined([b"x"], [0], 1)),
        (
            [b"x", cri("stdout", "P", b"a"), b"y"],
            True,
            Joined([b"x", cri("stdout", "P", b"a"), b"y"], [0, 1, 2], None),
        ),
        ([docker("stdout", "a")], False, Joined([], [], 0)),
        ([docker("stdout", "a")], True, Joined([docker("stdout", "a")], [0], None)),
        (
            [b"x", cri("stdout", "P", b"a"), cri("stderr", "P", b"b"), cri("stdout", "F", b"c")],
            False,
            Joined([b"x"], [0], 1),
        ),
        (
            [b'{"log":"a","stream":"stdout"}', b'{"log":"a"}', b"2024-08-21 stdout P a"],
            False,
            Joined([b'{"log":"a","stream":"stdout"}', b'{"log":"a"}', b"2024-08-21 stdout P a"], [0, 1, 2], None),
        ),
    ],
    ids=[
        "nothing",
        "ordinary lines",
        "CRI with another stream and a stranger between",
        "Docker with another stream between",
        "an open record holds back what is behind it",
        "at the end an open record is given as it is",
        "a chunk of Docker without a line end",
        "a chunk of Docker without a line end at the end",
        "a whole record is given again with the open one that it reaches over",
        "what is no wrapper's is no chunk",
    ],
)
def test_the_chunks_of_a_record_are_put_together(lines: list[bytes], is_end: bool, joined: Joined) -> None:
    assert join(lines, is_end=is_end) == joined


def test_a_record_that_never_ends_does_not_hold_up_the_log() -> None:
    long = b"x" * (MOST_OPEN_BYTES // 2)
    lines = [cri("stderr", "P", b"a"), long, long, b"y", cri("stderr", "F", b"b")]

    assert join(lines, is_end=False) == Joined(lines, [0, 1, 2, 3, 4], None)


STREAMS: Final = ("stdout", "stderr")
LINE: Final = st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=12)


@st.composite
def container_log(draw: st.DrawFn) -> tuple[list[bytes], dict[str, list[str]]]:
    """The lines of a container's log, streams and strangers between one another, and the records of each stream."""
    as_chunks = draw(st.sampled_from([cri_chunks, docker_chunks]))
    records = {stream: draw(st.lists(LINE, max_size=4)) for stream in STREAMS}
    queues = {
        stream: [line for text in texts for line in as_chunks(stream, parts_of(draw, text))]
        for stream, texts in records.items()
    }
    queues["stranger"] = [b"a line of no container's"] * draw(st.integers(0, 2))
    lines = []
    while any(queues.values()):
        lines.append(queues[draw(st.sampled_from([name for name, queue in queues.items() if queue]))].pop(0))
    return lines, records


def parts_of(draw: st.DrawFn, text: str) -> list[str]:
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


def cri_chunks(stream: str, parts: list[str]) -> list[bytes]:
    tags = ["P"] * (len(parts) - 1) + ["F"]
    return [cri(stream, tag, part.encode()) for tag, part in zip(tags, parts, strict=True)]


def docker_chunks(stream: str, parts: list[str]) -> list[bytes]:
    return [docker(stream, part) for part in [*parts[:-1], parts[-1] + "\n"]]


def stream_of(record: bytes) -> str:
    return str(json.loads(record)["stream"]) if record.startswith(b"{") else record.split(b" ")[1].decode()


@given(log=container_log())
def test_each_stream_gives_its_records_however_they_were_split(log: tuple[list[bytes], dict[str, list[str]]]) -> None:
    lines, records = log

    joined = join(lines, is_end=True)

    found: dict[str, list[str]] = {stream: [] for stream in STREAMS}
    for record in joined.records:
        for inner in (unwrap(record) or ("", []))[1]:
            found[stream_of(record)].append(inner.data.decode())
    assert found == records
    assert joined.first == sorted(set(joined.first))


@given(log=container_log(), data=st.data())
def test_a_log_that_comes_in_parts_gives_what_it_gives_at_once(
    log: tuple[list[bytes], dict[str, list[str]]], data: st.DataObject
) -> None:
    lines, _ = log
    lines = lines[: data.draw(st.integers(0, len(lines)), label="lines before the log is cut")]
    records: list[bytes] = []
    first: list[int] = []
    given, start = 0, 0
    while given < len(lines):
        given = data.draw(st.integers(given + 1, len(lines)), label="lines given")
        part = join(lines[start:given], is_end=given == len(lines))
        records += part.records
        first += [start + index for index in part.first]
        start = given if part.open_from is None else start + part.open_from

    whole = join(lines, is_end=True)
    assert (records, first, start) == (whole.records, whole.first, len(lines))
