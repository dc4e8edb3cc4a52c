"""Evaluation datasets, scorers, issues, label schemas, review queues, jobs, demo data."""

import json
import secrets

from .server import Server, equal, unique

API = "/api/3.0/mlflow"


def checks(s: Server):
    e = s.experiment("genai")

    def datasets():
        body = {"name": unique("dataset"), "experiment_ids": [e], "tags": json.dumps({"a": "b"})}
        i = s.post(f"{API}/datasets/create", body)["dataset"]["dataset_id"]
        at = f"{API}/datasets/{i}"
        records = [{"inputs": {"q": n}, "expectations": {"a": n}} for n in range(3)]
        s.post(f"{at}/records", {"records": json.dumps(records)})
        found = json.loads(s.get(f"{at}/records")["records"])
        equal(sorted(x["inputs"]["q"] for x in found), [0, 1, 2])
        s.delete(f"{at}/records", {"dataset_record_ids": [found[0]["dataset_record_id"]]})
        s.patch(f"{at}/tags", {"tags": json.dumps({"c": "d"})})
        s.delete(f"{at}/tags/c")
        other = s.experiment("genai-other")
        s.post(f"{at}/add-experiments", {"experiment_ids": [other]})
        equal(sorted(s.get(f"{at}/experiment-ids")["experiment_ids"]), sorted([e, other]))
        s.post(f"{at}/remove-experiments", {"experiment_ids": [other]})
        equal(s.get(at)["dataset"]["dataset_id"], i)
        equal([d["dataset_id"] for d in s.post(f"{API}/datasets/search", {"experiment_ids": [e]})["datasets"]], [i])
        s.get(f"{API}/datasets/search", experiment_ids=e)
        s.delete(at)

    def scorers():
        serialized = json.dumps({
            "name": "judge", "aggregations": [], "mlflow_version": "3.0.0", "serialization_version": 1,
            "is_session_level_scorer": False, "instructions_judge_pydantic_data": {
                "instructions": "Is {{ outputs }} polite?", "model": "openai:/gpt-4o", "feedback_value_type": {"type": "string"}},
        })  # fmt: skip
        body = {"experiment_id": e, "name": "judge", "serialized_scorer": serialized}
        equal(s.post(f"{API}/scorers/register", body)["version"], 1)
        equal(len(s.get(f"{API}/scorers/list", experiment_id=e)["scorers"]), 1)
        equal(len(s.get(f"{API}/scorers/versions", experiment_id=e, name="judge")["scorers"]), 1)
        found = s.get(f"{API}/scorers/get", experiment_id=e, name="judge")["scorer"]
        s.get(f"{API}/scorers/online-configs", scorer_ids=found["scorer_id"])
        body = {"experiment_id": e, "name": "judge", "sample_rate": 0.0}
        s.put(f"{API}/scorers/online-config", body)
        s.delete(f"{API}/scorers/delete", {"experiment_id": e, "name": "judge"})

    def issues():
        body = {"experiment_id": e, "name": "slow", "description": "d", "status": "pending", "severity": "high"}
        i = s.post(f"{API}/issues", body)["issue"]["issue_id"]
        equal(s.get(f"{API}/issues/{i}")["issue"]["name"], "slow")
        s.patch(f"{API}/issues/{i}", {"issue_id": i, "description": "e"})
        equal([x["issue_id"] for x in s.post(f"{API}/issues/search", {"experiment_id": e})["issues"]], [i])

    def label_schemas_and_review_queues():
        body = {"experiment_id": e, "name": "ok", "type": "FEEDBACK", "input": {"pass_fail": {"positive_label": "y", "negative_label": "n"}}}
        schema = s.post(f"{API}/label-schemas/create", body)["label_schema"]["schema_id"]
        s.get(f"{API}/label-schemas/get", schema_id=schema)
        s.get(f"{API}/label-schemas/get-by-name", experiment_id=e, name="ok")
        s.patch(f"{API}/label-schemas/update", {"schema_id": schema, "instruction": "look"})
        assert schema in [x["schema_id"] for x in s.get(f"{API}/label-schemas/list", experiment_id=e)["label_schemas"]]

        body = {"experiment_id": e, "name": "queue", "queue_type": "CUSTOM", "users": ["ann"], "schema_ids": [schema]}
        q = s.post(f"{API}/review-queues/create", body)["review_queue"]["queue_id"]
        s.get(f"{API}/review-queues/get", queue_id=q)
        s.get(f"{API}/review-queues/get-by-name", experiment_id=e, name="queue")
        s.post(f"{API}/review-queues/get-or-create-user", {"experiment_id": e, "user": "ann"})
        assert s.get(f"{API}/review-queues/list", experiment_id=e)["review_queues"]
        s.post(f"{API}/review-queues/update", {"queue_id": q, "update_users": True, "users": ["ann", "bob"]})
        t = f"tr-{secrets.token_hex(16)}"
        location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": e}}
        info = {"trace_id": t, "trace_location": location, "request_time": "2026-01-01T00:00:00Z", "state": "OK"}
        s.post(f"{API}/traces", {"trace": {"trace_info": info}})
        s.post(f"{API}/review-queues/items/add", {"queue_id": q, "item_type": "TRACE", "item_ids": [t]})
        body = {"queue_id": q, "item_id": t, "status": "COMPLETE", "completed_by": "ann"}
        s.post(f"{API}/review-queues/items/set-status", body)
        equal([x["item_id"] for x in s.get(f"{API}/review-queues/items/list", queue_id=q)["items"]], [t])
        s.post(f"{API}/review-queues/items/remove", {"queue_id": q, "item_ids": [t]})
        s.post(f"{API}/review-queues/delete", {"queue_id": q})
        s.delete(f"{API}/label-schemas/delete", {"schema_id": schema})

    def demo_data():
        s.post("/ajax-api/3.0/mlflow/demo/generate", {"features": ["traces"]})
        s.post("/ajax-api/3.0/mlflow/demo/delete")

    def jobs_are_off_and_say_so():
        no = (400, 403, 404, 405, 422, 500, 501, 503)
        body = {"experiment_id": e, "source_prompt_uri": "prompts:/p/1", "config": {"optimizer_type": "OPTIMIZER_TYPE_GEPA"}}
        at = f"{API}/prompt-optimization/jobs"
        s.post(at, body, expect=no)
        s.get(f"{at}/search", experiment_id=e, expect=(200, *no))
        s.post(f"{at}/search", {"experiment_id": e}, expect=(200, *no))
        s.get(f"{at}/none", expect=no)
        s.post(f"{at}/none/cancel", expect=no)
        s.delete(f"{at}/none", expect=no)
        jobs = "/ajax-api/3.0/jobs"
        s.post(f"{jobs}/", {"job_name": "x", "params": {}}, expect=no)
        s.get(f"{jobs}/none", expect=no)
        s.patch(f"{jobs}/cancel/none", {}, expect=no)
        s.post(f"{jobs}/search", {}, expect=(200, *no))
        s.get("/ajax-api/3.0/mlflow/jobs/none", expect=no)
        s.patch("/ajax-api/3.0/mlflow/jobs/cancel/none", {}, expect=no)
        for path in ("scorer/invoke", "issues/invoke", "genai/evaluate/invoke"):
            s.post(f"/ajax-api/3.0/mlflow/{path}", {"experiment_id": e}, expect=no)

    def workspaces_are_off_and_say_so():
        no = (400, 404, 501, 503)
        at = f"{API}/workspaces"
        for method, path in (
            ("GET", at), ("POST", at), ("GET", f"{at}/team"), ("PATCH", f"{at}/team"), ("DELETE", f"{at}/team"),
        ):  # fmt: skip
            s.raw(method, path, json={"name": "team"}, expect=no)

    return [
        datasets, scorers, issues, label_schemas_and_review_queues, demo_data, jobs_are_off_and_say_so,
        workspaces_are_off_and_say_so,
    ]  # fmt: skip
