"""The registry of MCP servers."""

from .server import Server, equal, unique

API = "/api/3.0/mlflow/mcp-servers"


def checks(s: Server):
    name = f"com.example/{unique('mcp')}"
    at = f"{API}/{name}"

    def servers():
        s.post(API, {"name": name, "description": "d"})
        equal(s.get(at)["name"], name)
        s.patch(at, {"description": "e"})
        assert s.get(API)
        s.post(f"{at}/tags", {"key": "a", "value": "b"})
        s.delete(f"{at}/tags/a")

    def versions():
        remote = {"type": "streamable-http", "url": "https://mcp.invalid/x"}
        body = {"server_json": {"name": name, "version": "1.0.0", "description": "d", "remotes": [remote]}}
        s.post(f"{at}/versions", body)
        equal(s.get(f"{at}/versions/1.0.0")["version"], "1.0.0")
        s.patch(f"{at}/versions/1.0.0", {"status": "active"})
        assert s.get(f"{at}/versions")
        s.post(f"{at}/versions/1.0.0/tags", {"key": "a", "value": "b"})
        s.delete(f"{at}/versions/1.0.0/tags/a")
        s.post(f"{at}/aliases", {"alias": "live", "version": "1.0.0"})
        equal(s.get(f"{at}/aliases/live")["version"], "1.0.0")
        s.delete(f"{at}/aliases/live")

    def endpoints():
        body = {"url": "https://mcp.invalid/x", "transport_type": "streamable-http", "server_version": "1.0.0"}
        i = s.post(f"{at}/endpoints", body)["id"]
        s.get(f"{at}/endpoints/{i}")
        s.patch(f"{at}/endpoints/{i}", {"url": "https://mcp.invalid/y"})
        s.get(f"{at}/endpoints")
        s.get(f"{API}/endpoints")
        s.delete(f"{at}/endpoints/{i}")

    def deleting():
        s.patch(f"{at}/versions/1.0.0", {"status": "deprecated"})
        s.delete(f"{at}/versions/1.0.0")
        s.delete(at)
        s.get(at, expect=404)

    return [servers, versions, endpoints, deleting]
