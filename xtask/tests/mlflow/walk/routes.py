"""Which routes the installed MLflow has, and which of them were called."""

import os
import re

# Routes that are not called, each with the reason.
EXCUSED = {
    r"/api/2.0/mlflow/(get-online-trace-details|unified-traces)": "not implemented outside Databricks",
    r"/api/2.0mlflow/experiments/search-datasets": "not implemented: a misspelt path of MLflow's own",
    r"/graphql": "GET without a body answers 500 in MLflow itself; POST is called",
    r"/build/<path:filename>": "Flask's own static route; the UI asks /static-files",
    r"/ajax-api/3.0/mlflow/assistant/.*": "starts a coding assistant's program on the server's host",
    r"/gateway/(typesafe|anthropic|gemini|openai/v1/responses).*": "other dialects of the gateway's one invocation path",
    r"/gateway/proxy/.*": "passes through to a provider on the internet",
}

# Routes that must refuse, because the default server runs without them.
REFUSING = {
    r".*/jobs(/.*)?": "job execution is off",
    r".*/prompt-optimization/jobs.*": "job execution is off",
    r".*/(issues|genai/evaluate|scorer)/invoke": "job execution is off",
    r".*/workspaces.*": "workspaces are off",
    r".*presigned.*": "local artifact stores sign nothing",
    r".*/mpu/.*": "local artifact stores have no multipart upload",
    r".*/traces/<request_id>.*|/api/2.0/mlflow/traces": "the trace API of MLflow 2, removed in favour of 3.0",
}


def coverage(answered: dict[tuple[str, str], int], login: bool) -> dict:
    every = login_routes() if login else server_routes()
    served, refused, excused, uncovered = [], {}, {}, []
    for method, template in every:
        pattern = re.compile(to_regex(template))
        statuses = [
            status for (verb, path), status in answered.items() if verb == method and pattern.fullmatch(canonical(path))
        ]
        name = f"{method} {template}"
        if any(status < 400 for status in statuses):
            served.append(name)
        elif statuses and (reason := reason_for(REFUSING, template)):
            refused[name] = reason
        elif reason := reason_for(EXCUSED, template):
            excused[name] = reason
        else:
            uncovered.append(f"{name}{f' (only {min(statuses)})' if statuses else ''}")
    return {
        "all": len(every),
        "served": len(served),
        "refused": refused,
        "excused": excused,
        "uncovered": uncovered,
    }


def canonical(path: str) -> str:
    """/ajax-api and /api are two names of the same handlers."""
    return re.sub(r"^/ajax-api/", "/api/", path)


def reason_for(table: dict[str, str], template: str) -> str | None:
    return next(
        (
            reason
            for pattern, reason in table.items()
            if re.fullmatch(canonical(pattern), template) or re.fullmatch(pattern, template)
        ),
        None,
    )


def to_regex(template: str) -> str:
    """Flask's <path:x> and Starlette's {x:path} match anything, <x> and {x} one segment."""
    parts = re.split(r"(<[^>]+>|\{[^}]+\})", template)
    return "".join(
        (".+" if "path" in part.split(":") or ":path" in part or "path:" in part else "[^/]+")
        if part[:1] in "<{" and part
        else re.escape(part)
        for part in parts
    )


def server_routes() -> list[tuple[str, str]]:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow.server import app as flask_app
    from mlflow.server.fastapi_app import app as fastapi_app

    found = set()
    for rule in flask_app.url_map.iter_rules():
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            found.add((method, canonical(rule.rule)))
    for method, path in native_routes(fastapi_app.routes):
        found.add((method, canonical(path)))
    # The same artifact route is native in FastAPI and, as a fallback, in Flask.
    found -= {(method, path) for method, path in found if path.endswith("{artifact_path:path}")}
    found.add(("GET", "/metrics"))
    return sorted(found)


def native_routes(routes):
    for route in routes:
        # FastAPI keeps included routers as nodes of a tree (0.16x) or flattened (before).
        if nested := getattr(route, "effective_candidates", None):
            yield from native_routes(nested())
        else:
            for method in getattr(route, "methods", None) or []:
                if method not in {"HEAD", "OPTIONS"}:
                    yield method, route.path


def login_routes() -> list[tuple[str, str]]:
    """The constants of mlflow.server.auth.routes name paths, not methods: one method each here."""
    from . import login

    return sorted({(method, canonical(path)) for method, path in login.ROUTES})
