"""The server under test, spoken to in plain HTTP; remembers which routes answered."""

import http.server
import json
import secrets
import threading
import urllib.parse

import requests


class Server:
    def __init__(self, url: str):
        self.url = url.rstrip("/")
        self.session = requests.Session()
        self.session.trust_env = False
        # (method, path) -> the best status it answered
        self.answered: dict[tuple[str, str], int] = {}

    def login(self, user: str, password: str) -> None:
        self.session.auth = (user, password)

    def raw(self, method: str, path: str, *, query=None, expect=200, auth=None, **options) -> requests.Response:
        """Sends a request and checks its status, `expect` being one or several."""
        answer = self.session.request(
            method, self.url + path, params=query, timeout=120, allow_redirects=False, auth=auth, **options
        )
        key = (method, urllib.parse.unquote(path))
        best = self.answered.get(key, 999)
        self.answered[key] = min(best, answer.status_code)
        expected = expect if isinstance(expect, tuple) else (expect,)
        if answer.status_code not in expected:
            raise AssertionError(f"{method} {path} answered {answer.status_code}: {answer.text[:300]}")
        return answer

    def __call__(self, method: str, path: str, body=None, *, query=None, expect=200, **options):
        """Sends JSON and reads JSON."""
        if body is not None:
            options["data"] = json.dumps(body)
            options.setdefault("headers", {})["Content-Type"] = "application/json"
        answer = self.raw(method, path, query=query, expect=expect, **options)
        return answer.json() if answer.content else None

    def get(self, path, /, expect=200, **query):
        return self("GET", path, query=query, expect=expect)

    def post(self, path, body=None, expect=200):
        return self("POST", path, body if body is not None else {}, expect=expect)

    def patch(self, path, body, expect=200):
        return self("PATCH", path, body, expect=expect)

    def put(self, path, body, expect=200):
        return self("PUT", path, body, expect=expect)

    def delete(self, path, /, body=None, expect=200):
        return self("DELETE", path, body, expect=expect)

    def listen(self, handler) -> str:
        """Starts a server that the server under test calls, and gives its address."""
        listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=listener.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{listener.server_port}"

    def experiment(self, purpose: str) -> str:
        return self.post("/api/2.0/mlflow/experiments/create", {"name": unique(purpose)})["experiment_id"]

    def run(self, experiment: str) -> dict:
        return self.post("/api/2.0/mlflow/runs/create", {"experiment_id": experiment, "start_time": 1})["run"]


def unique(purpose: str) -> str:
    return f"walk-{purpose}-{secrets.token_hex(6)}"


def equal(found, expected) -> None:
    assert found == expected, f"{found!r} where {expected!r} is expected"
