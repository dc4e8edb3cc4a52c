"""Traces: the REST API, OTLP in protobuf and JSON, search, tags, assessments, metrics."""

import gzip
import json
import secrets
import time

from .server import Server, equal

API = "/api/3.0/mlflow/traces"


def checks(s: Server):
    e = s.experiment("traces")
    location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": e}}

    def new(**fields) -> str:
        i = f"tr-{secrets.token_hex(16)}"
        info = {
            "trace_id": i, "trace_location": location, "request_time": "2026-01-01T00:00:00Z",
            "execution_duration": "0.5s", "state": "OK", **fields,
        }  # fmt: skip
        s.post(API, {"trace": {"trace_info": info}})
        return i

    def otlp(name: str, encoding=None, protobuf=True) -> str:
        i, now = secrets.token_hex(16), time.time_ns()
        if protobuf:
            from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

            request = ExportTraceServiceRequest()
            span = request.resource_spans.add().scope_spans.add().spans.add()
            span.trace_id, span.span_id, span.name = bytes.fromhex(i), secrets.token_bytes(8), name
            span.start_time_unix_nano, span.end_time_unix_nano = now - 10**8, now
            body, kind = request.SerializeToString(), "application/x-protobuf"
        else:
            span = {
                "traceId": i, "spanId": secrets.token_hex(8), "name": name,
                "startTimeUnixNano": str(now - 10**8), "endTimeUnixNano": str(now),
            }  # fmt: skip
            body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode()
            kind = "application/json"
        headers = {"Content-Type": kind, "x-mlflow-experiment-id": e}
        if encoding == "gzip":
            body, headers["Content-Encoding"] = gzip.compress(body), "gzip"
        s.raw("POST", "/v1/traces", data=body, headers=headers)
        return f"tr-{i}"

    def traces():
        i = new(tags={"a": "b"})
        equal(s.get(f"{API}/{i}")["trace"]["trace_info"]["state"], "OK")
        found = s.post(f"{API}/search", {"locations": [location], "filter": "tags.a = 'b'", "max_results": 5})
        equal([t["trace_id"] for t in found["traces"]], [i])
        equal(len(s.post(f"{API}/batchGetInfos", {"trace_ids": [i]})["trace_infos"]), 1)

    def otlp_in_every_encoding():
        for options in ({}, {"encoding": "gzip"}, {"protobuf": False}):
            i = otlp("span", **options)
            spans = s.get(f"{API}/get", trace_id=i, allow_partial="true")["trace"]["spans"]
            equal([span["name"] for span in spans], ["span"])
            equal(len(s.get(f"{API}/batchGet", trace_ids=i)["traces"]), 1)
        headers = {"Content-Type": "application/x-protobuf", "x-mlflow-experiment-id": e}
        s.raw("POST", "/v1/traces", data=b"\xff\xff", headers=headers, expect=400)

    def trace_tags():
        i = new()
        s.patch(f"{API}/{i}/tags", {"key": "k", "value": "v"})
        equal(s.get(f"{API}/{i}")["trace"]["trace_info"]["tags"]["k"], "v")
        s.delete(f"{API}/{i}/tags", {"key": "k"})
        s.patch(f"/api/2.0/mlflow/traces/{i}/tags", {"key": "k2", "value": "v"})
        s.delete(f"/api/2.0/mlflow/traces/{i}/tags", {"key": "k2"})

    def assessments():
        i = new()
        source = {"source_type": "HUMAN", "source_id": "ann"}
        body = {"assessment_name": "good", "trace_id": i, "source": source, "feedback": {"value": True}}
        a = s.post(f"{API}/{i}/assessments", {"assessment": body})["assessment"]["assessment_id"]
        at = f"{API}/{i}/assessments/{a}"
        equal(s.get(at)["assessment"]["feedback"]["value"], True)
        body = {"assessment_id": a, "trace_id": i, "feedback": {"value": False}}
        s.patch(at, {"assessment": body, "update_mask": "feedback"})
        equal(s.get(at)["assessment"]["feedback"]["value"], False)
        s.delete(at)

    def trace_metrics_and_correlation():
        body = {
            "experiment_ids": [e], "view_type": "TRACES", "metric_name": "trace_count",
            "aggregations": [{"aggregation_type": "COUNT"}],
        }  # fmt: skip
        assert s.post(f"{API}/metrics", body)["data_points"]
        body = {"experiment_ids": [e], "filter_string1": "tags.a = 'b'", "filter_string2": "attributes.status = 'OK'"}
        s.post(f"{API}/calculate-filter-correlation", body)

    def links_to_runs_and_prompts():
        i, run = new(), s.run(e)["info"]["run_id"]
        s.post("/api/2.0/mlflow/traces/link-to-run", {"trace_ids": [i], "run_id": run})
        found = s.post(f"{API}/search", {"locations": [location], "filter": f"attributes.run_id = '{run}'"})
        equal([t["trace_id"] for t in found["traces"]], [i])
        body = {"trace_id": i, "prompt_versions": [{"name": "p", "version": "1"}]}
        s.post("/api/2.0/mlflow/traces/link-prompts", body)

    def trace_artifact_for_the_ui():
        i = otlp("shown")
        for version in ("2.0", "3.0"):
            found = s.get(f"/ajax-api/{version}/mlflow/get-trace-artifact", request_id=i)
            equal([span["name"] for span in found["spans"]], ["shown"])

    def api_of_mlflow_2():
        either = (200, 400, 404, 501)
        i = new()
        s.post("/api/2.0/mlflow/traces", {"experiment_id": e, "timestamp_ms": 1}, expect=either)
        s.get("/api/2.0/mlflow/traces", experiment_ids=e, expect=either)
        s.get(f"/api/2.0/mlflow/traces/{i}/info", expect=either)
        s.patch(f"/api/2.0/mlflow/traces/{i}", {"request_id": i, "status": "OK", "timestamp_ms": 2}, expect=either)

    def deleting():
        i, j = new(), new()
        equal(s.post(f"{API}/delete-traces", {"experiment_id": e, "request_ids": [i]})["traces_deleted"], 1)
        body = {"experiment_id": e, "request_ids": [j]}
        equal(s.post("/api/2.0/mlflow/traces/delete-traces", body)["traces_deleted"], 1)
        s.get(f"{API}/{i}", expect=404)

    return [
        traces, otlp_in_every_encoding, trace_tags, assessments, trace_metrics_and_correlation,
        links_to_runs_and_prompts, trace_artifact_for_the_ui, api_of_mlflow_2, deleting,
    ]  # fmt: skip
