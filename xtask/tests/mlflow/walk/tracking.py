"""Experiments, runs, params, metrics, tags, inputs, logged models."""

import json

from .server import Server, equal, unique

API = "/api/2.0/mlflow"


def checks(s: Server):
    e = s.experiment("tracking")
    r = s.run(e)["info"]["run_id"]

    def server_info():
        equal(s.raw("GET", "/health").text, "OK")
        assert s.raw("GET", "/version").text[0].isdigit()
        s.get("/api/3.0/mlflow/server-info")

    def experiments():
        name = unique("experiment")
        i = s.post(f"{API}/experiments/create", {"name": name, "tags": [{"key": "a", "value": "b"}]})["experiment_id"]
        equal(s.get(f"{API}/experiments/get", experiment_id=i)["experiment"]["name"], name)
        equal(s.get(f"{API}/experiments/get-by-name", experiment_name=name)["experiment"]["experiment_id"], i)
        found = s.post(f"{API}/experiments/search", {"filter": f"name = '{name}'", "max_results": 5})
        equal([x["experiment_id"] for x in found["experiments"]], [i])
        assert s.get(f"{API}/experiments/search", max_results=1)["experiments"]
        s.post(f"{API}/experiments/update", {"experiment_id": i, "new_name": name + "2"})
        s.post(f"{API}/experiments/set-experiment-tag", {"experiment_id": i, "key": "k", "value": "v"})
        s.post(f"{API}/experiments/delete-experiment-tag", {"experiment_id": i, "key": "a"})
        found = s.get(f"{API}/experiments/get", experiment_id=i)["experiment"]
        equal([(t["key"], t["value"]) for t in found["tags"]], [("k", "v")])
        s.post(f"{API}/experiments/delete", {"experiment_id": i})
        s.post(f"{API}/experiments/restore", {"experiment_id": i})
        s.post(f"{API}/experiments/create", {"name": name + "2"}, expect=400)
        s.get(f"{API}/experiments/get", experiment_id="999999", expect=404)

    def runs():
        i = s.run(e)["info"]["run_id"]
        s.post(f"{API}/runs/update", {"run_id": i, "status": "FINISHED", "end_time": 5, "run_name": "named"})
        s.post(f"{API}/runs/set-tag", {"run_id": i, "key": "a", "value": "b"})
        s.post(f"{API}/runs/delete-tag", {"run_id": i, "key": "a"})
        s.post(f"{API}/runs/delete", {"run_id": i})
        s.post(f"{API}/runs/restore", {"run_id": i})
        info = s.get(f"{API}/runs/get", run_id=i)["run"]["info"]
        equal((info["status"], info["run_name"], info["lifecycle_stage"]), ("FINISHED", "named", "active"))

    def params_and_metrics():
        s.post(f"{API}/runs/log-parameter", {"run_id": r, "key": "lr", "value": "0.1"})
        for step, value in enumerate([3.0, 2.0, 1.0]):
            s.post(f"{API}/runs/log-metric", {"run_id": r, "key": "loss", "value": value, "timestamp": 1, "step": step})
        batch = [{"key": "acc", "value": x / 10, "timestamp": x, "step": x} for x in range(10)]
        s.post(f"{API}/runs/log-batch", {"run_id": r, "metrics": batch, "params": [{"key": "p", "value": "q"}]})
        data = s.get(f"{API}/runs/get", run_id=r)["run"]["data"]
        equal({m["key"]: m["value"] for m in data["metrics"]}, {"loss": 1.0, "acc": 0.9})
        s.post(f"{API}/runs/log-parameter", {"run_id": r, "key": "lr", "value": "0.2"}, expect=400)

    def metric_history():
        equal(len(s.get(f"{API}/metrics/get-history", run_id=r, metric_key="acc")["metrics"]), 10)
        ajax = "/ajax-api/2.0/mlflow/metrics"
        bulk = s.get(f"{ajax}/get-history-bulk", run_id=r, metric_key="acc")
        equal(len(bulk["metrics"]), 10)
        path = f"{API}/metrics/get-history-bulk-interval"
        assert s.get(path, run_ids=r, metric_key="acc", max_results=5)["metrics"]

    def search_with_filters():
        ask = lambda f, **o: [  # noqa: E731
            x["info"]["run_id"]
            for x in s.post(f"{API}/runs/search", {"experiment_ids": [e], "filter": f, **o}).get("runs", [])
        ]
        equal(ask("params.lr = '0.1' and metrics.loss < 2"), [r])
        equal(ask("metrics.acc > 0.95"), [])
        equal(ask("params.p LIKE 'q%'", order_by=["metrics.acc DESC"])[:1], [r])
        s.post(f"{API}/runs/search", {"experiment_ids": [e], "filter": "nonsense !!"}, expect=400)

    def run_inputs_and_outputs():
        dataset = {"name": "d", "digest": "1", "source_type": "local", "source": "{}", "schema": "{}"}
        s.post(f"{API}/runs/log-inputs", {"run_id": r, "datasets": [{"dataset": dataset, "tags": []}]})
        inputs = s.get(f"{API}/runs/get", run_id=r)["run"]["inputs"]["dataset_inputs"]
        equal(inputs[0]["dataset"]["name"], "d")
        found = s.post("/ajax-api/2.0/mlflow/experiments/search-datasets", {"experiment_ids": [e]})
        equal(found["dataset_summaries"][0]["name"], "d")
        model = {"run_id": r, "artifact_path": "m", "utc_time_created": "2026-01-01", "flavors": {}, "model_uuid": "1"}
        s.post(f"{API}/runs/log-model", {"run_id": r, "model_json": json.dumps(model)})

    def logged_models():
        body = {"experiment_id": e, "name": "lm", "source_run_id": r, "params": [{"key": "a", "value": "1"}]}
        i = s.post(f"{API}/logged-models", body)["model"]["info"]["model_id"]
        at = f"{API}/logged-models/{i}"
        s.post(f"{at}/params", {"model_id": i, "params": [{"key": "b", "value": "2"}]})
        s.patch(f"{at}/tags", {"model_id": i, "tags": [{"key": "t", "value": "v"}]})
        s.delete(f"{at}/tags/t")
        s.patch(at, {"model_id": i, "status": "LOGGED_MODEL_READY"})
        s.post(f"{API}/runs/outputs", {"run_id": r, "models": [{"model_id": i, "step": 1}]})
        equal(s.get(at)["model"]["info"]["status"], "LOGGED_MODEL_READY")
        found = s.post(f"{API}/logged-models/search", {"experiment_ids": [e], "filter": "params.a = '1'"})
        equal([m["info"]["model_id"] for m in found["models"]], [i])
        uri = s.get(at)["model"]["info"]["artifact_uri"].split(":", 1)[1].strip("/")
        s.raw("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{uri}/MLmodel", data=b"flavors: {}")
        files = s.get(f"{at}/artifacts/directories")["files"]
        equal([f["path"] for f in files], ["MLmodel"])
        answer = s.raw("GET", f"/ajax-api/2.0/mlflow/logged-models/{i}/artifacts/files", query={"artifact_file_path": "MLmodel"})
        equal(answer.content, b"flavors: {}")
        s.delete(at)

    def prompt_lab():
        s.post(
            "/ajax-api/2.0/mlflow/runs/create-promptlab-run",
            {
                "experiment_id": e, "prompt_template": "say {{x}}", "prompt_parameters": [{"key": "x", "value": "y"}],
                "model_route": "m", "model_input": "say y", "model_output": "y", "mlflow_version": "3.0.0",
                "model_parameters": [{"key": "temperature", "value": "0.1"}],
            },
        )  # fmt: skip
        equal(s.get("/ajax-api/2.0/mlflow/gateway-proxy"), {"endpoints": []})
        equal(s.post("/ajax-api/2.0/mlflow/gateway-proxy"), {"endpoints": []})

    return [
        server_info, experiments, runs, params_and_metrics, metric_history, search_with_filters,
        run_inputs_and_outputs, logged_models, prompt_lab,
    ]  # fmt: skip
