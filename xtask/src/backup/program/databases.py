"""The databases of an MLflow server, and PostgreSQL's own programs.

The first part of a program that is run where the server runs, as `python -c TEXT`: the files of this folder,
one after another (`program.rs`). Where the databases are, and with which password, is in the environment, as
for the server. It prints one line of JSON behind MARK: a pod's log holds all that its container prints.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
import sqlalchemy
from psycopg2 import sql
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2

MARK = "mlflow-server-backup"

# Whoever changes the schema, or all of the data, holds this lock.
LOCK = "mlflow-on-kubernetes"

# Seconds: for one attempt to connect, for a database that is just being restarted, for LOCK, and for tables
# that a server still uses.
CONNECT = 10
PATIENCE = 30
LOCKED = 120
IN_USE = 30

# Where alembic notes the revision of each store.
VERSION_TABLES = {"alembic_version": "tracking", "alembic_version_auth": "login"}


class Failure(Exception):
    """What ends the program: a code, words, and what helps."""

    def __init__(self, code: str, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.code, self.hint = code, hint


class Database:
    """A database, with the server's own login."""

    def __init__(self, uri: str) -> None:
        try:
            self.url = sqlalchemy.make_url(uri)
        except sqlalchemy.exc.ArgumentError:
            raise Failure("database", "the server's database has an address that is none") from None
        if self.url.get_backend_name() != "postgresql":
            raise Failure("database", f"only PostgreSQL is dumped, and this is {self.url.get_backend_name()}")
        self.settings = PGDialect_psycopg2().create_connect_args(self.url)[1]

    def connect(self):
        """A connection, tried again while the database may be on its way back."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                connection = psycopg2.connect(**self.settings, connect_timeout=CONNECT, application_name=MARK)
            except psycopg2.OperationalError as error:
                if time.monotonic() >= end or "does not exist" in str(error):
                    raise
                say(f"the database does not answer yet: {first_line(error)}")
                time.sleep(2)
            else:
                with connection.cursor() as cursor:
                    for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
                        cursor.execute(f"SET {setting} = 0")
                connection.commit()
                return connection

    def named(self, name: str) -> "Database":
        """Another database of the same server."""
        return Database(self.url.set(database=name).render_as_string(hide_password=False))

    def program(self, name: str, *options: str) -> tuple[list[str], dict[str, str]]:
        """A program of PostgreSQL's that connects to it, and its environment: passwords are in no argument."""
        secret = {"password": "PGPASSWORD", "sslpassword": "PGSSLPASSWORD"}
        dsn = psycopg2.extensions.make_dsn(**{key: value for key, value in self.settings.items() if key not in secret})
        given = {secret[key]: str(value) for key, value in self.settings.items() if key in secret}
        return [tool(name), *options, "--no-password", f"--dbname={dsn}"], os.environ | given


def databases() -> list[Database]:
    """The databases that this server has: the one of its runs, and that of its users if it is another."""
    found = [Database(os.environ["MLFLOW_BACKEND_STORE_URI"])]
    # The server reads where its users are from the file that this variable names.
    if os.environ.get("MLFLOW_AUTH_CONFIG_PATH"):
        from mlflow.server.auth.config import read_auth_config

        users = Database(read_auth_config().database_uri)
        if identity(users) != identity(found[0]):
            found.append(users)
    return found


def identity(database: Database) -> tuple:
    """Tells a database from another one, whatever the address."""
    with closing(database.connect()) as connection:
        return ask(
            connection, "SELECT oid, pg_postmaster_start_time() FROM pg_database WHERE datname = current_database()"
        )[0]


def ask(connection, question, values: tuple = ()) -> list[tuple]:
    with connection.cursor() as cursor:
        cursor.execute(question, values or None)
        return cursor.fetchall()


def schema_of(connection) -> str:
    """Where MLflow's tables are: where it would make them."""
    [(name,)] = ask(connection, "SELECT current_schema()")
    if name is None:
        raise Failure("database", "the server's database user may see no schema of its database")
    return name


def count(connection, schema: str) -> dict[str, int]:
    """Rows of each table, those of extensions left out."""
    tables = ask(
        connection,
        "SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind IN ('r', 'p') AND NOT EXISTS "
        "(SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e') "
        "ORDER BY relname",
        (sql.Identifier(schema).as_string(connection),),
    )
    question = sql.SQL("SELECT count(*) FROM {}")
    return {name: ask(connection, question.format(sql.Identifier(schema, name)))[0][0] for (name,) in tables}


def revisions(connection, schema: str, tables: dict[str, int]) -> dict[str, str]:
    """The revision of each store that this database holds."""
    found = {}
    for table, store in VERSION_TABLES.items():
        if table in tables:
            question = sql.SQL("SELECT version_num FROM {}").format(sql.Identifier(schema, table))
            found[store] = " ".join(sorted(revision for (revision,) in ask(connection, question)))
    return found


def server_version(connection) -> int:
    """PostgreSQL's major version."""
    return connection.server_version // 10_000


@contextmanager
def lock(database: Database):
    """Holds LOCK, waiting for whoever has it."""
    with closing(database.connect()) as connection:
        connection.autocommit = True
        end = time.monotonic() + LOCKED
        while not ask(connection, "SELECT pg_try_advisory_lock(hashtext(%s))", (LOCK,))[0][0]:
            if time.monotonic() >= end:
                raise Failure(
                    "locked",
                    f"someone else migrates or restores this database, for longer than {LOCKED} s",
                    "wait for the other run to end, then run the same command again",
                )
            time.sleep(1)
        yield


def tool(name: str) -> str:
    """A program of PostgreSQL's. Debian keeps those of each version in a folder of its own."""
    folders = Path("/usr/lib/postgresql").glob(f"*/bin/{name}")
    found = sorted(folders, key=lambda path: int(path.parts[-3]) if path.parts[-3].isdigit() else 0)
    given = os.environ.get("MLFLOW_BACKUP_PROGRAMS")
    path = shutil.which(name, path=given) if given else (str(found[-1]) if found else shutil.which(name))
    if path is None:
        raise Failure("image", f"the server's image has no {name}", "deploy this version's image first: cargo xtask deploy")
    return path


def tool_version(name: str) -> tuple[str, int]:
    """What a program says of itself, and its major version."""
    words = subprocess.run([tool(name), "--version"], capture_output=True, text=True, check=True).stdout.strip()
    found = re.search(r"\b(\d+)(\.|devel|beta|rc|\b)", words.partition(")")[2])
    return words, int(found[1]) if found else 0


def first_line(error: BaseException) -> str:
    """The driver's own words, without the URI, which holds a password."""
    return str(getattr(error, "orig", None) or error).strip().partition("\n")[0]


def say(text: str) -> None:
    """For people, who read the log."""
    print(text, file=sys.stderr, flush=True)


def answer(what: dict[str, object]) -> None:
    print(MARK, json.dumps(what), flush=True)
