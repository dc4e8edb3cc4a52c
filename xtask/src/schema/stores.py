"""The stores of an MLflow server, and where their databases are.

What stands here is put before each program that asks or changes them; it runs where the server runs, as
`python -c TEXT`. Where the databases are, and with which password, is in the environment, as for the
server.
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

# Seconds: for one attempt to connect, and for a database that is just being restarted.
CONNECT = 10
PATIENCE = 30

# Milliseconds after which a database looks whether the client of a statement is still there.
NOTICE = 5000


class Store:
    """A store: its migrations, where alembic notes its revision, and tables that it has always had."""

    def __init__(self, name: str, migrations: str, version_table: str, tables: set[str]) -> None:
        self.name = name
        self.migrations = migrations
        self.version_table = version_table
        self.tables = tables

    def scripts(self) -> ScriptDirectory:
        """The migrations that this MLflow knows."""
        package = Path(find_spec("mlflow").submodule_search_locations[0])
        return ScriptDirectory(str(package / self.migrations))

    def head(self) -> str:
        """The revision that this MLflow works with."""
        return self.scripts().get_current_head()

    def revisions(self, connection: sqlalchemy.Connection) -> list[str]:
        """What alembic has noted."""
        options = {"version_table": self.version_table}
        return sorted(MigrationContext.configure(connection, opts=options).get_current_heads())

    def holds(self, connection: sqlalchemy.Connection) -> bool:
        """Whether there is anything in it. The tables alone are what a start leaves that was cut short."""
        found = set(sqlalchemy.inspect(connection).get_table_names()) & self.tables
        questions = [sqlalchemy.select(sqlalchemy.exists().select_from(sqlalchemy.table(name))) for name in found]
        return any(connection.execute(question).scalar_one() for question in questions)

    def status(self, uri: str) -> dict[str, object]:
        """What the store's database holds."""
        with connect(engine(uri)) as connection:
            return {
                "store": self.name,
                "revisions": self.revisions(connection),
                "holds": self.holds(connection),
                "head": self.head(),
                "server": server(connection),
                "bytes": size(connection),
            }


TRACKING = Store("tracking", "store/db_migrations", "alembic_version", {"experiments", "runs", "metrics"})
LOGIN = Store("login", "server/auth/db/migrations", "alembic_version_auth", {"users", "experiment_permissions"})


def databases() -> list[tuple[Store, str]]:
    """The stores that this server has, and where they are."""
    found = [(TRACKING, os.environ["MLFLOW_BACKEND_STORE_URI"])]
    if login := login_uri():
        found.append((LOGIN, login))
    return found


def login_uri() -> str | None:
    """The login's database, where there is a login."""
    # The server reads it from the file that this variable names.
    if os.environ.get("MLFLOW_AUTH_CONFIG_PATH"):
        from mlflow.server.auth.config import read_auth_config

        return read_auth_config().database_uri
    # Otherwise `mlflow_server_login` keeps the users where the runs are.
    return os.environ["MLFLOW_BACKEND_STORE_URI"] if os.environ.get("MLFLOW_AUTH_ADMIN_PASSWORD") else None


def engine(uri: str) -> sqlalchemy.Engine:
    """Connections that are made when they are needed and closed after use."""
    made = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.pool.NullPool, connect_args=patient(uri))
    if is_postgresql(uri):
        sqlalchemy.event.listen(made, "connect", watch)
    return made


def watch(connection: object, _: object) -> None:
    """Lets PostgreSQL (14 and later) notice that this pod is gone, also while a statement waits for a lock:
    whoever comes after it would wait behind it."""
    question = f"SELECT set_config(name, '{NOTICE}', false) FROM pg_settings WHERE name = 'client_connection_check_interval'"
    connection.cursor().execute(question)
    connection.commit()


def is_postgresql(uri: str) -> bool:
    return sqlalchemy.make_url(uri).get_backend_name() == "postgresql"


def patient(uri: str) -> dict[str, object]:
    """How long the driver waits for a connection, where it is known how to say so."""
    return {"connect_timeout": CONNECT} if is_postgresql(uri) else {}


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
