"""Waits until the databases have the schema that this image's MLflow works with.

The init container of every server's pod, as `python -c TEXT`. MLflow would migrate some of them by itself
when it starts, each pod for itself, and refuse others. Nothing is written here: `deploy` and `db upgrade`
change a schema, once, after a backup. It ends when the server may start, and never gives up: the
database may be restarting, and a migration takes the time that it takes.
"""

import ast
import configparser
import os
import re
import signal
import sys
import time
from importlib.util import find_spec
from pathlib import Path

try:
    import psycopg as driver
except ImportError:
    import psycopg2 as driver

# Seconds.
PAUSE = 2
CONNECT = 10

# Each store's migrations, below the package, and the table in which its revision is noted.
TRACKING = ("tracking", "store/db_migrations/versions", "alembic_version")
LOGIN = ("login", "server/auth/db/migrations/versions", "alembic_version_auth")


def head(folder: Path) -> str:
    """The newest migration: the one that no other follows. MLflow itself would take seconds to say so."""
    found = [names(file.read_text()) for file in sorted(folder.glob("*.py")) if file.name != "__init__.py"]
    follows = {parent for _, parents in found for parent in parents}
    heads = [revision for revision, _ in found if revision not in follows]
    if len(heads) != 1:
        raise SystemExit(f"{folder}: the migrations lead to {heads}, and not to one revision")
    return heads[0]


def names(source: str) -> tuple[str, tuple[str, ...]]:
    """A migration's revision, and those that it follows."""
    values = {}
    for line in ast.parse(source).body:
        targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name) and target.id in ("revision", "down_revision"):
                values[target.id] = ast.literal_eval(line.value)
    parents = values["down_revision"] or ()
    return values["revision"], (parents,) if isinstance(parents, str) else tuple(parents)


def databases() -> list[tuple[tuple[str, str, str], str]]:
    """The stores that this server has, and where they are."""
    tracking = os.environ["MLFLOW_BACKEND_STORE_URI"]
    found = [(TRACKING, tracking)]
    if config := os.environ.get("MLFLOW_AUTH_CONFIG_PATH"):
        parser = configparser.ConfigParser()
        parser.read(config)
        found.append((LOGIN, parser["mlflow"]["database_uri"]))
    elif os.environ.get("MLFLOW_AUTH_ADMIN_PASSWORD"):
        # `mlflow_server_login` keeps the users where the runs are.
        found.append((LOGIN, tracking))
    return [(store, libpq(uri)) for store, uri in found]


def libpq(uri: str) -> str:
    """The URI without the name of SQLAlchemy's driver."""
    return re.sub(r"^postgres(ql)?(\+\w+)?:", "postgresql:", uri)


def revision(uri: str, table: str) -> str | None:
    """The revision that is noted in a database."""
    connection = driver.connect(uri, connect_timeout=CONNECT)
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (table,))
        if not cursor.fetchone()[0]:
            return None
        cursor.execute(f"SELECT version_num FROM {table}")
        return " ".join(sorted(row[0] for row in cursor.fetchall())) or None
    finally:
        connection.close()


def waits(stores: list[tuple[str, str, str, str]]) -> str | None:
    """What there is to wait for; `None`: nothing."""
    try:
        for name, uri, table, wanted in stores:
            found = revision(uri, table)
            if found != wanted:
                has = "has no schema yet" if found is None else f"has schema {found}"
                return f"schema gate: the {name} database {has}, and this MLflow works with {wanted}"
    except driver.Error as error:
        # As SQLAlchemy would say it: whoever reads logs knows it from the server.
        kind = "OperationalError" if isinstance(error, driver.OperationalError) else type(error).__name__
        line = str(error).strip().partition("\n")[0]
        return f"schema gate: ({driver.__name__}.{kind}) {line}"
    return None


def main() -> None:
    # The first process of a container is not ended by a signal that it does not ask for.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    package = Path(find_spec("mlflow").submodule_search_locations[0])
    found = [(name, uri, table, package / folder) for (name, folder, table), uri in databases()]
    # An MLflow of before 3.6 does not migrate the login.
    stores = [(name, uri, table, head(folder)) for name, uri, table, folder in found if folder.is_dir()]
    told = None
    while text := waits(stores):
        if text != told:
            print(text, flush=True)
        told = text
        time.sleep(PAUSE)
    print("schema gate: the databases have the schema that this MLflow works with", flush=True)


if __name__ == "__main__":
    main()
