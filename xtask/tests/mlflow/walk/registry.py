"""Registered models, versions, aliases, stages, prompts, webhooks."""

import http.server

from .server import Server, equal, unique

API = "/api/2.0/mlflow"


def checks(s: Server):
    run = s.run(s.experiment("registry"))["info"]
    name = unique("model")

    def version(of: str, tags=()) -> str:
        body = {"name": of, "source": f"{run['artifact_uri']}/model", "run_id": run["run_id"], "tags": list(tags)}
        return s.post(f"{API}/model-versions/create", body)["model_version"]["version"]

    def registered_models():
        s.post(f"{API}/registered-models/create", {"name": name, "description": "d"})
        s.post(f"{API}/registered-models/create", {"name": name}, expect=400)
        equal(s.get(f"{API}/registered-models/get", name=name)["registered_model"]["description"], "d")
        s.patch(f"{API}/registered-models/update", {"name": name, "description": "e"})
        s.post(f"{API}/registered-models/set-tag", {"name": name, "key": "a", "value": "b"})
        found = s.get(f"{API}/registered-models/search", filter="tags.a = 'b'")["registered_models"]
        assert name in [m["name"] for m in found]
        s.delete(f"{API}/registered-models/delete-tag", {"name": name, "key": "a"})

    def model_versions():
        v = version(name)
        s.patch(f"{API}/model-versions/update", {"name": name, "version": v, "description": "d"})
        s.post(f"{API}/model-versions/set-tag", {"name": name, "version": v, "key": "a", "value": "b"})
        s.delete(f"{API}/model-versions/delete-tag", {"name": name, "version": v, "key": "a"})
        equal(s.get(f"{API}/model-versions/get", name=name, version=v)["model_version"]["description"], "d")
        found = s.get(f"{API}/model-versions/search", filter=f"name='{name}'")["model_versions"]
        equal([m["version"] for m in found], [v])
        uri = s.get(f"{API}/model-versions/get-download-uri", name=name, version=v)["artifact_uri"]
        assert uri.endswith("/model"), uri

    def stages():
        v = version(name)
        body = {"name": name, "version": v, "stage": "Production", "archive_existing_versions": True}
        s.post(f"{API}/model-versions/transition-stage", body)
        latest = s.get(f"{API}/registered-models/get-latest-versions", name=name)["model_versions"]
        assert v in [m["version"] for m in latest]
        latest = s.post(f"{API}/registered-models/get-latest-versions", {"name": name, "stages": ["Production"]})
        equal([m["version"] for m in latest["model_versions"]], [v])

    def aliases():
        v = version(name)
        s.post(f"{API}/registered-models/alias", {"name": name, "alias": "champion", "version": v})
        found = s.get(f"{API}/registered-models/alias", name=name, alias="champion")["model_version"]
        equal(found["version"], v)
        s.delete(f"{API}/registered-models/alias", {"name": name, "alias": "champion"})
        s.get(f"{API}/registered-models/alias", name=name, alias="champion", expect=(400, 404))

    def model_artifact():
        v = version(name)
        root = run["artifact_uri"].split(":", 1)[1].strip("/")
        s.raw("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{root}/model/MLmodel", data=b"x: 1")
        query = {"name": name, "version": v, "path": "MLmodel"}
        equal(s.raw("GET", "/model-versions/get-artifact", query=query).content, b"x: 1")

    def renaming_and_deleting():
        v = version(name)
        s.delete(f"{API}/model-versions/delete", {"name": name, "version": v})
        s.post(f"{API}/registered-models/rename", {"name": name, "new_name": name + "-new"})
        s.delete(f"{API}/registered-models/delete", {"name": name + "-new"})
        s.get(f"{API}/registered-models/get", name=name + "-new", expect=404)

    def prompts():
        prompt = unique("prompt")
        tag = {"key": "mlflow.prompt.is_prompt", "value": "true"}
        s.post(f"{API}/registered-models/create", {"name": prompt, "tags": [tag]})
        body = {"name": prompt, "source": "dummy-source", "tags": [tag, {"key": "mlflow.prompt.text", "value": "Hi {{x}}"}]}
        v = s.post(f"{API}/model-versions/create", body)["model_version"]["version"]
        s.post(f"{API}/registered-models/alias", {"name": prompt, "alias": "live", "version": v})
        found = s.get(f"{API}/registered-models/alias", name=prompt, alias="live")["model_version"]
        assert {"key": "mlflow.prompt.text", "value": "Hi {{x}}"} in found["tags"], found
        found = s.get(f"{API}/registered-models/search", filter="tags.`mlflow.prompt.is_prompt` = 'true'")
        assert prompt in [m["name"] for m in found["registered_models"]]
        s.delete(f"{API}/registered-models/delete", {"name": prompt})

    def webhooks():
        event = {"entity": "REGISTERED_MODEL", "action": "CREATED"}
        received = []

        class Receiver(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                received.append((self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        url = f"{s.listen(Receiver)}/x"
        body = {"name": unique("hook"), "url": url, "events": [event], "secret": "s"}
        i = s.post(f"{API}/webhooks", body)["webhook"]["webhook_id"]
        assert i in [w["webhook_id"] for w in s.get(f"{API}/webhooks")["webhooks"]]
        equal(s.get(f"{API}/webhooks/{i}")["webhook"]["url"], url)
        equal(s.post(f"{API}/webhooks/{i}/test", {"event": event})["result"]["success"], True)
        [(headers, _)] = received
        assert headers["X-MLflow-Signature"].startswith("v1,"), dict(headers)
        equal(s.patch(f"{API}/webhooks/{i}", {"status": "DISABLED"})["webhook"]["status"], "DISABLED")
        s.delete(f"{API}/webhooks/{i}")

    return [
        registered_models, model_versions, stages, aliases, model_artifact, renaming_and_deleting, prompts, webhooks,
    ]  # fmt: skip
