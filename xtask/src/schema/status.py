"""What schema the databases of an MLflow server have.

Run where the server runs, as `python -c TEXT`. Prints a line of JSON for each store, behind MARK: a
pod's log holds all that its container prints. Nothing is written to a database. Where the databases
are, and with which password, is in the environment, as for the server.
"""

import json
import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import sqlalchemy
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

MARK = "mlflow-server-schema"

# Seconds: for one attempt to connect, and for a database that is just being restarted.
CONNECT = 10
PATIENCE = 30


class Store:
    """A store: its migrations, where alembic notes its revision, and tables that it has always had."""

    def __init__(self, name: str, migrations: str, version_table: str, tables: set[str]) -> None:
        self.name = name
        self.migrations = migrations
        self.version_table = version_table
        self.tables = tables

    def head(self) -> str:
        """The revision that this MLflow works with."""
        package = Path(find_spec("mlflow").submodule_search_locations[0])
        return ScriptDirectory(str(package / self.migrations)).get_current_head()

    def status(self, uri: str) -> dict[str, object]:
        """What the store's database holds."""
        engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.pool.NullPool, connect_args=patient(uri))
        with connect(engine) as connection:
            options = {"version_table": self.version_table}
            revisions = MigrationContext.configure(connection, opts=options).get_current_heads()
            tables = set(sqlalchemy.inspect(connection).get_table_names())
            return {
                "store": self.name,
                "revisions": sorted(revisions),
                "tables": bool(tables & self.tables),
                "head": self.head(),
                "server": server(connection),
                "bytes": size(connection),
            }


TRACKING = Store("tracking", "store/db_migrations", "alembic_version", {"experiments", "runs", "metrics"})
LOGIN = Store("login", "server/auth/db/migrations", "alembic_version_auth", {"users", "experiment_permissions"})


def databases() -> list[tuple[Store, str]]:
    """The stores that this server has, and where they are."""
    found = [(TRACKING, os.environ["MLFLOW_BACKEND_STORE_URI"])]
    # The server reads the login's database from the file that this variable names.
    if os.environ.get("MLFLOW_AUTH_CONFIG_PATH"):
        from mlflow.server.auth.config import read_auth_config

        found.append((LOGIN, read_auth_config().database_uri))
    return found


def patient(uri: str) -> dict[str, object]:
    """How long the driver waits for a connection, where it is known how to say so."""
    return {"connect_timeout": CONNECT} if sqlalchemy.make_url(uri).get_backend_name() == "postgresql" else {}


def connect(engine: sqlalchemy.Engine) -> sqlalchemy.Connection:
    """A connection, tried again while the database may be on its way back."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return engine.connect()
        except sqlalchemy.exc.OperationalError as error:
            if time.monotonic() >= end:
                raise
            say(f"the database does not answer yet: {first_line(error)}")
        time.sleep(2)


def server(connection: sqlalchemy.Connection) -> str:
    """The database's kind and version."""
    version = ".".join(str(part) for part in connection.dialect.server_version_info or ())
    return f"{connection.dialect.name} {version}".strip()


def size(connection: sqlalchemy.Connection) -> int | None:
    """Bytes of the whole database, where it tells."""
    questions = {
        "postgresql": "SELECT pg_database_size(current_database())",
        "sqlite": "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()",
    }
    question = questions.get(connection.dialect.name)
    return connection.execute(sqlalchemy.text(question)).scalar_one() if question else None


def first_line(error: Exception) -> str:
    """The driver's own words, without the URI, which holds a password."""
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]


def say(text: str) -> None:
    """For people, who read the log."""
    print(text, file=sys.stderr, flush=True)


def status() -> None:
    """All stores, or none."""
    answers = [store.status(uri) for store, uri in databases()]
    for answer in answers:
        print(MARK, json.dumps(answer), flush=True)


def main() -> int:
    try:
        status()
    except sqlalchemy.exc.SQLAlchemyError as error:
        say(f"{type(error).__name__}: {first_line(error)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
