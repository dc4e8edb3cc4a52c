"""The login of `mlflow server --app-name basic-auth`: users, roles, grants, and what they forbid."""

import secrets

from .server import Server, equal, unique

USERS = "/api/2.0/mlflow/users"
GRANTS = "/api/3.0/mlflow/users/permissions"
ROLES = "/api/3.0/mlflow/roles"
EXPERIMENTS = "/api/2.0/mlflow/experiments"

ROUTES = [
    ("GET", "/signup"),
    ("POST", f"{USERS}/create"),
    ("GET", f"{USERS}/get"),
    ("GET", f"{USERS}/list"),
    ("GET", f"{USERS}/current"),
    ("PATCH", f"{USERS}/update-password"),
    ("PATCH", f"{USERS}/update-admin"),
    ("DELETE", f"{USERS}/delete"),
    ("GET", "/api/3.0/mlflow/users/current/permissions"),
    ("GET", f"{GRANTS}/list"),
    ("POST", f"{GRANTS}/grant"),
    ("GET", f"{GRANTS}/get"),
    ("POST", f"{ROLES}/create"),
    ("GET", f"{ROLES}/list"),
    ("DELETE", f"{ROLES}/delete"),
]


def checks(s: Server):
    user, password = unique("user"), secrets.token_urlsafe(16)

    def without_a_login_nothing_is_served():
        for path in (f"{EXPERIMENTS}/search?max_results=1", "/"):
            s.raw("GET", path, auth=("nobody", "wrong"), expect=401)
        s.raw("GET", "/health", auth=("nobody", "wrong"))

    def signup_page():
        assert "csrf" in s.raw("GET", "/signup").text.lower()

    def users():
        s.post(f"{USERS}/create", {"username": user, "password": password})
        equal(s.get(f"{USERS}/get", username=user)["user"]["username"], user)
        assert user in [x["username"] for x in s.get(f"{USERS}/list")["users"]]
        s.get(f"{USERS}/current")
        s.get("/api/3.0/mlflow/users/current/permissions")

    def grants():
        e = s.experiment("login")
        own = (user, password)
        s.raw("POST", f"{EXPERIMENTS}/delete", json={"experiment_id": e}, auth=own, expect=403)
        grant = {"username": user, "resource_type": "experiment", "resource_id": e, "permission": "MANAGE"}
        s.post(f"{GRANTS}/grant", grant)
        s.get(f"{GRANTS}/get", username=user, resource_type="experiment", resource_id=e)
        s.get(f"{GRANTS}/list", username=user)
        s.raw("POST", f"{EXPERIMENTS}/delete", json={"experiment_id": e}, auth=own)

    def roles():
        role = s.post(f"{ROLES}/create", {"name": unique("role"), "workspace": "default"})["role"]
        s.get(f"{ROLES}/list", workspace="default")
        s.delete(f"{ROLES}/delete", {"role_id": role["id"]})

    def passwords_and_deleting():
        s.patch(f"{USERS}/update-password", {"username": user, "password": password + "x"})
        s.raw("GET", f"{EXPERIMENTS}/search", query={"max_results": 1}, auth=(user, password), expect=401)
        s.raw("GET", f"{EXPERIMENTS}/search", query={"max_results": 1}, auth=(user, password + "x"))
        s.patch(f"{USERS}/update-admin", {"username": user, "is_admin": True})
        s.delete(f"{USERS}/delete", {"username": user})
        s.get(f"{USERS}/get", username=user, expect=404)

    return [without_a_login_nothing_is_served, signup_page, users, grants, roles, passwords_and_deleting]
