"""What a browser and a monitoring system see: pages, scripts, GraphQL, metrics, Host, CORS."""

import re

from .server import Server, equal

PROBE = "/api/2.0/mlflow/experiments/search"


def checks(s: Server):
    def page_and_every_file_it_names():
        page = s.raw("GET", "/")
        assert page.headers["Content-Type"].startswith("text/html"), page.headers
        files = set(re.findall(r"static-files/[^\"'>? ]+\.(?:json|js|css|ico|svg|png)(?=[\"'?> ])", page.text))
        assert any(file.endswith(".js") for file in files), page.text[:300]
        for file in files:
            assert s.raw("GET", f"/{file}").content, file

    def graphql():
        e = s.experiment("graphql")
        query = "query($i: MlflowGetExperimentInput!) { mlflowGetExperiment(input: $i) { experiment { name } } }"
        body = {"query": query, "variables": {"i": {"experimentId": e}}, "operationName": None}
        answer = s.post("/graphql", body)
        assert answer["data"]["mlflowGetExperiment"]["experiment"]["name"].startswith("walk-graphql"), answer

    def ui_telemetry():
        s.get("/ajax-api/3.0/mlflow/ui-telemetry")
        s.post("/ajax-api/3.0/mlflow/ui-telemetry", {"records": []})

    def prometheus():
        text = s.raw("GET", "/metrics").text
        assert "mlflow_http_request_total" in text or "flask_http_request" in text, text[:300]

    def hosts():
        s.raw("GET", PROBE, query={"max_results": 1}, headers={"Host": "localhost"})
        s.raw("GET", PROBE, query={"max_results": 1}, headers={"Host": "rebound.invalid"}, expect=403)
        s.raw("GET", "/health", headers={"Host": "rebound.invalid"})

    def cross_origin():
        own, other = {"Origin": "http://localhost:1"}, {"Origin": "https://other.invalid"}
        s.raw("POST", PROBE, json={"max_results": 1}, headers=own)
        s.raw("POST", PROBE, json={"max_results": 1}, headers=other, expect=403)
        preflight = {**own, "Access-Control-Request-Method": "POST"}
        answer = s.raw("OPTIONS", PROBE, headers=preflight, expect=(200, 204))
        equal(answer.headers["Access-Control-Allow-Origin"], own["Origin"])
        preflight = {**other, "Access-Control-Request-Method": "POST"}
        answer = s.raw("OPTIONS", PROBE, headers=preflight, expect=(200, 204, 400, 403))
        assert answer.headers.get("Access-Control-Allow-Origin") != other["Origin"]

    def security_headers():
        headers = s.raw("GET", PROBE, query={"max_results": 1}).headers
        equal(headers["X-Content-Type-Options"], "nosniff")
        equal(headers["X-Frame-Options"], "SAMEORIGIN")

    return [page_and_every_file_it_names, graphql, ui_telemetry, prometheus, hosts, cross_origin, security_headers]
