"""Every format reads the lines that its file shows, and logs of many gateways are told apart file by file."""

from contextlib import closing
from datetime import UTC
from pathlib import Path
from typing import Any, Final

import pytest

from ingest import identify
from ingest.detect import detect
from ingest.formats import Format, formats
from ingest.parse import Lanes, Progress, parse
from ingest.schema import BadInput
from ingest.source import Reader, Source
from tests.ingest.logs import Row, combined_line, json_line, log

LOGS: Final = Path(__file__).parent / "fixtures" / "format-samples"


def samples(*without: str) -> list[Any]:
    """The parameters of a test of every sample line, but for those of the layouts `without`."""
    return [
        pytest.param(layout, sample, id=f"{layout.name}-{number}")
        for layout in formats().values()
        if layout.layout not in without
        for number, sample in enumerate(layout.samples, 1)
    ]


def read(path: Path, lanes: Lanes, given: Format | None = None) -> tuple[str, list[Row], dict[str, int]]:
    """The format of the log at `path`, its rows, and how many records were rejected for each reason."""
    with closing(Reader(Source(path.name, path))) as reader:
        detection = detect(path.name, reader.head, given, "given")
        progress = Progress(0, 1)
        batches = list(parse(reader, lanes, detection, "source", progress))
    rows = [row for batch in batches for part in batch.requests for row in part.rows.to_pylist()]
    assert progress.lines == progress.requests + progress.rejected + progress.skipped
    return detection.layout.name, rows, progress.rejects


def told(row: Row) -> Row:
    """`row` with its time as samples write it."""
    return row | {"ts": row["ts"].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")}


def check(sample: Row, rows: list[Row], rejects: dict[str, int]) -> None:
    """That a sample line gave the row that stands below it, or was rejected for the reason there."""
    stated = [about(sample["row"])] if "row" in sample else []
    assert [{name: row[name] for name in sample["row"]} for row in map(told, rows)] == stated
    assert rejects == ({sample["reject"]: 1} if "reject" in sample else {})


def about(row: Row) -> Row:
    """`row` with its numbers as near as a unit's conversion gets."""
    return {name: pytest.approx(value) if isinstance(value, float) else value for name, value in row.items()}


@pytest.mark.parametrize(("layout", "sample"), samples())
def test_a_sample_line_is_detected_and_read(layout: Format, sample: Row, tmp_path: Path, lanes: Lanes) -> None:
    path = tmp_path / "sample.log"
    path.write_bytes(log([sample["line"].encode()]))

    name, rows, rejects = read(path, lanes)

    assert name == layout.name
    assert [row["gateway"] for row in rows] == [layout.name] * len(rows)
    check(sample, rows, rejects)


@pytest.mark.parametrize(("layout", "sample"), samples())
def test_a_sample_line_is_read_in_the_format_that_was_given(
    layout: Format, sample: Row, tmp_path: Path, lanes: Lanes
) -> None:
    path = tmp_path / "sample.log"
    path.write_bytes(log([sample["line"].encode()]))

    _, rows, rejects = read(path, lanes, layout)

    check(sample, rows, rejects)


@pytest.mark.parametrize(("layout", "sample"), samples("w3c"))
def test_a_sample_line_in_a_log_of_another_format_is_read_all_the_same(
    layout: Format, sample: Row, tmp_path: Path, lanes: Lanes
) -> None:
    others = [combined_line() if layout.layout == "json" else json_line()] * 3
    path = tmp_path / "mixed.log"
    path.write_bytes(log([*others, sample["line"].encode()]))

    name, rows, rejects = read(path, lanes)

    assert name != layout.name
    check(sample, [row for row in rows if row["line"] == 4], rejects)


@pytest.mark.parametrize("layout", formats().values(), ids=formats())
def test_a_format_shows_a_line_and_says_what_it_gives(layout: Format) -> None:
    assert layout.samples
    assert layout.docs["notes"].strip()
    assert ("configure" in layout.docs) == ("language" in layout.docs)


@pytest.mark.parametrize(
    ("record", "name"),
    [
        ({"latencies": {}, "started_at": 1, "upstream_status": "502", "status": 502, "request_time": 1}, "kong"),
        ({"prefix": "access-log", "status": 429, "response_code": 429, "response_code_details": "rate"}, "tyk-access"),
        ({"response_code": 200, "response_flags": "-", "start_time": "", ":authority": "api"}, "envoy-gateway"),
        ({"status": 200, "request_time": 1, "route_id": "a", "@timestamp": "", "client_ip": ""}, "apisix-log-format"),
        ({"status": 200, "request_time": 1, "requestId": "a", "apiId": "b"}, "aws-api-gateway"),
        ({"status": 200, "upstream_status": "200", "time": 1, "method": "GET", "path": "/"}, "nginx-json"),
        ({"time": 1, "level": "info", "status": "started", "msg": "worker"}, None),
        ({"timestamp": 1, "status": "info", "message": '{"DownstreamStatus":200,"RequestMethod":"GET"}'}, None),
        ({"duration": 0.1, "status": "ok", "request": {"uri": "/"}}, None),
        ({"request": {"method": "GET"}, "response": {"status": 200}, "latency": 4}, None),
        ({"insertId": "a", "logName": "b", "jsonPayload": {"message": "started"}}, None),
        ({"attributes": {"http.route": "/"}, "timeUnixNano": "1"}, None),
    ],
    ids=[
        "Kong, whose upstream_status nginx has too",
        "Tyk, whose response_code_details Envoy has too",
        "Envoy Gateway, whose flags Envoy has too",
        "APISIX, whose variables are nginx's",
        "AWS, with an nginx key",
        "nginx, with usual names",
        "an application that started",
        "a record quoted in a message",
        "a state that is no status",
        "an application's own nesting",
        "a cloud's log of an application",
        "a span without a status",
    ],
)
def test_a_record_with_marks_of_several_formats_is_in_the_surest(record: Row, name: str | None) -> None:
    found = identify.of_object(record)

    assert (found and found.name) == name


READ: Final = {
    "akamai_datastream2.jsonl": ("akamai", 1, {}),
    "apache_combined_D.log": ("apache-combined-d", 2, {}),
    "apigee_messagelogging.jsonl": ("apigee", 2, {}),
    "apisix_custom_log_format.jsonl": ("apisix-log-format", 0, {"no_status": 1}),
    "apisix_file_logger.jsonl": ("apisix", 3, {}),
    "apisix_http_logger_batch.json": ("apisix", 2, {}),
    "aws_alb.log": ("aws-alb", 2, {}),
    "aws_apigw_broken.jsonl": ("aws-api-gateway", 0, {"no_timestamp": 2}),
    "aws_apigw_clf.log": ("aws-api-gateway-clf", 1, {}),
    "aws_apigw_csv.csv": ("aws-api-gateway-csv", 1, {}),
    "aws_apigw_http.jsonl": ("aws-api-gateway", 2, {}),
    "aws_apigw_rest.jsonl": ("aws-api-gateway", 3, {}),
    "aws_apigw_xml.log": ("aws-api-gateway-xml", 1, {}),
    "azure_apim_gatewaylogs.jsonl": ("azure-apim", 4, {}),
    "azure_apim_legacy_string_properties.jsonl": ("azure-apim-legacy", 1, {}),
    "azure_apim_loganalytics_export.jsonl": ("azure-apim-log-analytics", 1, {}),
    "azure_eventhub_records.json": ("azure-apim", 2, {}),
    "caddy.jsonl": ("caddy", 3, {}),
    "cloudflare_logpush.jsonl": ("cloudflare", 2, {}),
    "cloudfront_standard.log": ("cloudfront", 2, {}),
    "cloudwatch_s3_export_000000.gz": ("aws-api-gateway", 3, {}),
    "cloudwatch_subscription_decoded.json": ("aws-api-gateway", 3, {}),
    "cloudwatch_subscription_lambda_event.json": ("aws-api-gateway", 3, {}),
    "envoy_als.json": ("envoy-als", 1, {}),
    "envoy_default.log": ("envoy-text", 3, {}),
    "envoy_gateway.jsonl": ("envoy-gateway", 1, {}),
    "envoy_tap.json": ("envoy-tap", 0, {"no_timestamp": 1}),
    "express_gateway.log": ("express-gateway", 0, {"no_status": 1}),
    "fastly.jsonl": ("fastly", 1, {}),
    "firehose_cwl_concatenated.json": ("aws-api-gateway", 6, {}),
    "gcp_endpoints_esp.jsonl": ("gcp-endpoints", 1, {}),
    "gcp_lb.jsonl": ("gcp-load-balancer", 2, {}),
    "gravitee_v2_metrics.jsonl": ("gravitee-v2", 1, {}),
    "gravitee_v4_log.jsonl": ("gravitee-v4-log", 1, {}),
    "gravitee_v4_metrics.jsonl": ("gravitee-v4-metrics", 2, {}),
    "haproxy_httplog.log": ("haproxy-http", 3, {"not_this_format": 1}),
    "haproxy_json.jsonl": ("haproxy-json-accept", 1, {}),
    "istio_json.jsonl": ("envoy-json", 3, {}),
    "istio_text.log": ("istio-text", 2, {}),
    "kong_filelog_2x.jsonl": ("kong", 2, {}),
    "kong_filelog_3x.jsonl": ("kong", 3, {}),
    "kong_httplog_batch.json": ("kong", 2, {}),
    "kong_proxy_access.log": ("kong-combined", 1, {}),
    "kong_syslog.log": ("kong", 1, {}),
    "krakend_gin.log": ("krakend", 3, {}),
    "mixed_stream.log": ("nginx-json", 3, {"not_json": 1}),
    "nginx_access_gzip_multimember.gz": ("nginx-json", 2, {}),
    "nginx_combined.log": ("combined", 4, {}),
    "nginx_json.jsonl": ("nginx-json", 3, {}),
    "nginx_json_broken_default_escape.jsonl": ("nginx-json", 3, {}),
    "nginx_json_embedded_object.jsonl": ("nginx-json", 0, {"no_timestamp": 2}),
    "nginx_njs_multiline.log": ("combined", 1, {"not_this_format": 4}),
    "nginx_openresty_bodylog.log": ("nginx-bodylog", 3, {}),
    "otlp_logs.jsonl": ("otlp", 2, {}),
    "traefik.jsonl": ("traefik-json", 2, {}),
    "traefik_clf.log": ("traefik-clf", 1, {}),
    "truncated_gzip.gz": ("nginx-json", 48, {}),
    "tyk_access_log.jsonl": ("tyk-access", 1, {}),
    "tyk_pump_decoded_flattened.jsonl": ("tyk", 1, {}),
    "tyk_pump_stdout.jsonl": ("tyk", 3, {}),
    "tyk_pump_syslog_gomap.log": ("tyk-gomap", 1, {}),
    "wrap_cri.log": ("kong", 1, {"not_json": 1}),
    "wrap_datadog_archive.json.gz": ("nginx-json", 1, {}),
    "wrap_docker_json_file.log": ("kong", 1, {"not_json": 1}),
    "wrap_filebeat.jsonl": ("nginx-json", 1, {}),
    "wrap_fluentbit_file.log": ("kong", 1, {}),
    "wrap_fluentd_out_file.log": ("kong", 2, {}),
    "wrap_gcp_textpayload.jsonl": ("nginx-json", 2, {}),
    "wrap_journald.jsonl": ("envoy-json", 2, {"left_out_by_journald": 1}),
    "wrap_loki_logcli.jsonl": ("nginx-json", 1, {}),
    "wrap_loki_query_range.json": ("nginx-json", 2, {}),
    "wrap_syslog_3164_nginx.log": ("nginx-json", 1, {}),
    "wrap_syslog_5424.log": ("nginx-json", 1, {}),
    "wrap_vector.jsonl": ("nginx-json", 1, {}),
    "zuplo_accesslog.jsonl": ("zuplo", 1, {}),
}
"""By file: its format, how many requests it holds, and how many records of it are none, for which reason.

Of two formats with as many records the first of the file gives the name; each record is read in its own.
"""

UNREADABLE: Final = {
    "cloudflare_logpush_headerless.csv": "its columns have no names",
    "kong_stdout_interleaved.log": "each line holds parts of two records",
}
"""By file: why no record of it can be read without more configuration, or at all."""


@pytest.mark.parametrize("name", READ)
def test_a_log_is_told_by_its_records_and_every_one_is_counted(name: str, lanes: Lanes) -> None:
    found, rows, rejects = read(LOGS / name, lanes)

    assert (found, len(rows), rejects) == READ[name]


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_log_that_cannot_be_read_is_refused_with_what_to_do(name: str, lanes: Lanes) -> None:
    with pytest.raises(BadInput, match=f"{name}: none of the first [0-9]+ records is in a known format"):
        read(LOGS / name, lanes)


def test_every_sample_log_is_in_a_table() -> None:
    assert {path.name for path in LOGS.iterdir()} == READ.keys() | UNREADABLE.keys()
