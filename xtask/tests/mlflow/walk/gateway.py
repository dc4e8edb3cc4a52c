"""The AI gateway: secrets, models, endpoints, budgets, guardrails, and a call to a provider."""

import http.server
import json

from .server import Server, equal, unique

API = "/api/3.0/mlflow/gateway"


class Provider(http.server.BaseHTTPRequestHandler):
    """Speaks as much of OpenAI's API as the gateway needs."""

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("/embeddings"):
            answer = {
                "object": "list", "model": "m", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
                "usage": {"prompt_tokens": 1, "total_tokens": 1},
            }  # fmt: skip
        else:
            text = f"echo {request['messages'][-1]['content']}"
            message = {"role": "assistant", "content": text}
            answer = {
                "id": "1", "object": "chat.completion", "created": 1, "model": "m",
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }  # fmt: skip
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def checks(s: Server):
    e = s.experiment("gateway")
    made: dict[str, str] = {}
    provider = s.listen(Provider)

    def providers_and_models():
        ajax = "/ajax-api/3.0/mlflow/gateway"
        assert "openai" in s.get(f"{ajax}/supported-providers")["providers"]
        assert s.get(f"{ajax}/supported-models", provider="openai")["models"]
        s.get(f"{ajax}/provider-config", provider="openai")
        s.get(f"{ajax}/secrets/config")

    def secrets():
        key = {"api_key": "not-a-real-key-1234"}
        base = {"api_base": f"{provider}/v1"}
        body = {"secret_name": unique("secret"), "secret_value": key, "provider": "openai", "auth_config": base}
        made["secret"] = s.post(f"{API}/secrets/create", body)["secret"]["secret_id"]
        found = json.dumps(s.get(f"{API}/secrets/get", secret_id=made["secret"]))
        assert "not-a-real-key" not in found, "the secret is shown"
        assert s.get(f"{API}/secrets/list")["secrets"]
        s.post(f"{API}/secrets/update", {"secret_id": made["secret"], "secret_value": key, "auth_config": base})

    def models_and_endpoints():
        body = {"name": unique("definition"), "secret_id": made["secret"], "provider": "openai", "model_name": "m"}
        made["model"] = s.post(f"{API}/model-definitions/create", body)["model_definition"]["model_definition_id"]
        s.get(f"{API}/model-definitions/get", model_definition_id=made["model"])
        s.get(f"{API}/model-definitions/list")
        s.post(f"{API}/model-definitions/update", {"model_definition_id": made["model"], "model_name": "m2"})
        config = {"model_definition_id": made["model"], "linkage_type": "PRIMARY", "weight": 1.0}
        made["name"] = unique("endpoint")
        body = {"name": made["name"], "model_configs": [config], "experiment_id": e}
        made["endpoint"] = i = s.post(f"{API}/endpoints/create", body)["endpoint"]["endpoint_id"]
        equal(s.get(f"{API}/endpoints/get", endpoint_id=i)["endpoint"]["name"], made["name"])
        s.get(f"{API}/endpoints/list")
        s.post(f"{API}/endpoints/update", {"endpoint_id": i, "usage_tracking": True})
        s.post(f"{API}/endpoints/set-tag", {"endpoint_id": i, "key": "a", "value": "b"})
        s.delete(f"{API}/endpoints/delete-tag", {"endpoint_id": i, "key": "a"})

    def attaching_and_binding():
        i = made["endpoint"]
        body = {"name": unique("definition"), "secret_id": made["secret"], "provider": "openai", "model_name": "n"}
        other = s.post(f"{API}/model-definitions/create", body)["model_definition"]["model_definition_id"]
        config = {"model_definition_id": other, "linkage_type": "FALLBACK", "fallback_order": 1, "weight": 1.0}
        s.post(f"{API}/endpoints/models/attach", {"endpoint_id": i, "model_config": config})
        s.post(f"{API}/endpoints/models/detach", {"endpoint_id": i, "model_definition_id": other})
        s.delete(f"{API}/model-definitions/delete", {"model_definition_id": other})
        body = {"endpoint_id": i, "resource_type": "scorer", "resource_id": "r"}
        s.post(f"{API}/endpoints/bindings/create", body)
        equal(len(s.get(f"{API}/endpoints/bindings/list", endpoint_id=i)["bindings"]), 1)
        s.delete(f"{API}/endpoints/bindings/delete", body)

    def chat():
        messages = [{"role": "user", "content": "hello"}]
        answer = s.post(f"/gateway/{made['name']}/mlflow/invocations", {"messages": messages})
        equal(answer["choices"][0]["message"]["content"], "echo hello")
        body = {"model": made["name"], "messages": messages}
        for path in ("/gateway/mlflow/v1/chat/completions", "/gateway/openai/v1/chat/completions"):
            equal(s.post(path, body)["choices"][0]["message"]["content"], "echo hello")
        s.get("/gateway/mlflow/v1/models")

    def embeddings():
        answer = s.post("/gateway/openai/v1/embeddings", {"model": made["name"], "input": "x"})
        equal(answer["data"][0]["embedding"], [0.5])

    def budgets():
        body = {
            "budget_unit": "USD", "budget_amount": 10.0, "duration": {"unit": "DAYS", "value": 1},
            "target_scope": "GLOBAL", "budget_action": "ALERT",
        }  # fmt: skip
        i = s.post(f"{API}/budgets/create", body)["budget_policy"]["budget_policy_id"]
        s.get(f"{API}/budgets/get", budget_policy_id=i)
        s.get(f"{API}/budgets/list")
        s.get(f"{API}/budgets/windows")
        s.post(f"{API}/budgets/update", {"budget_policy_id": i, "budget_amount": 20.0})
        s.delete(f"{API}/budgets/delete", {"budget_policy_id": i})

    def guardrails():
        serialized = json.dumps({
            "name": "guard", "aggregations": [], "mlflow_version": "3.0.0", "serialization_version": 1,
            "is_session_level_scorer": False, "instructions_judge_pydantic_data": {
                "instructions": "Is {{ inputs }} safe?", "model": f"gateway:/{made['name']}", "feedback_value_type": {"type": "string"}},
        })  # fmt: skip
        body = {"experiment_id": e, "name": "guard", "serialized_scorer": serialized}
        scorer = s.post("/api/3.0/mlflow/scorers/register", body)
        body = {
            "name": "g", "scorer_id": scorer["scorer_id"], "scorer_version": scorer["version"], "stage": "BEFORE",
            "action": "VALIDATION", "action_endpoint_id": made["endpoint"],
        }  # fmt: skip
        i = s.post(f"{API}/guardrails/create", body)["guardrail"]["guardrail_id"]
        pair = {"endpoint_id": made["endpoint"], "guardrail_id": i}
        s.get(f"{API}/guardrails/get", guardrail_id=i)
        s.get(f"{API}/guardrails/list")
        s.post(f"{API}/guardrails/add-to-endpoint", {**pair, "execution_order": 1})
        s.get(f"{API}/guardrails/list-for-endpoint", endpoint_id=made["endpoint"])
        s.patch(f"{API}/guardrails/update-config", {**pair, "execution_order": 2})
        s.delete(f"{API}/guardrails/remove-from-endpoint", pair)
        s.delete(f"{API}/guardrails/delete", {"guardrail_id": i})

    def deleting():
        s.delete(f"{API}/endpoints/delete", {"endpoint_id": made["endpoint"]})
        s.delete(f"{API}/model-definitions/delete", {"model_definition_id": made["model"]})
        s.delete(f"{API}/secrets/delete", {"secret_id": made["secret"]})

    return [
        providers_and_models, secrets, models_and_endpoints, attaching_and_binding, chat, embeddings, budgets,
        guardrails, deleting,
    ]  # fmt: skip
