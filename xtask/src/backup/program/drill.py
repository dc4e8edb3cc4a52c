"""The restore drill: a backup is loaded beside the live database, and a server is started with it.

The server listens on the loopback only, where a port-forward reaches it, and has artifacts of its own: what it
is asked to delete or overwrite must not be the live server's. Whoever asked for the drill looks how far it is,
and ends it, at CONTROL. Its databases go with it; those of a drill that was killed go with the next one.
"""

import configparser
import secrets
import signal
import urllib.error
import urllib.request
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec

from alembic.script import ScriptDirectory

# Ports: as the server has it in every pod, and beside it.
SERVER = 5000
CONTROL = 5001

# Seconds: for the server's start; and for its end, within what a pod gets for its own.
START = 300
STOP = 5

DRILL = "mlflow-on-kubernetes drill"


class Control:
    """How far the drill is, for whoever asks."""

    def __init__(self) -> None:
        self.state, self.ended = {"phase": "begins"}, threading.Event()
        control = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(200 if self.path == "/state" else 404)

            def do_POST(self) -> None:
                if self.path == "/end":
                    control.ended.set()
                self.answer(200 if self.path == "/end" else 404)

            def answer(self, status: int) -> None:
                body = json.dumps(control.state).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", CONTROL), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def phase(self, name: str) -> None:
        say(f"drill: {name}")
        self.state = {"phase": name}


@contextmanager
def alone(database: Database):
    """Only one drill of a database at a time; what an earlier one left is removed."""
    with closing(database.connect()) as connection:
        connection.autocommit = True
        if not ask(connection, "SELECT pg_try_advisory_lock(hashtext(%s))", (DRILL,))[0][0]:
            raise Failure("locked", "there is a drill of this database under way", "wait until it has ended")
        # Of the same server may be other environments' databases, which have drills too.
        [(oid,)] = ask(connection, "SELECT oid FROM pg_database WHERE datname = current_database()")
        prefix = f"mlflow_drill_{oid}_"
        left = ask(connection, "SELECT datname FROM pg_database WHERE starts_with(datname, %s)", (prefix,))
        for (name,) in left:
            say(f"removing {name}, which an earlier drill left")
            drop(connection, name)
        yield connection, prefix, [name for (name,) in left]


def create(connection, name: str) -> None:
    """Makes a database, as itself, or as the role by which Cloud SQL's users may."""
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name))
    roles = [None] + [
        role
        for (role,) in ask(
            connection,
            "SELECT rolname FROM pg_roles WHERE rolcreatedb AND rolname <> current_user AND pg_has_role(oid, 'MEMBER')",
        )
    ]
    for role in roles:
        with connection.cursor() as cursor:
            try:
                if role is not None:
                    cursor.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
                cursor.execute(statement)
                return
            except psycopg2.errors.InsufficientPrivilege:
                continue
            finally:
                cursor.execute("RESET ROLE")
    [(user,)] = ask(connection, "SELECT current_user")
    raise Failure(
        "forbidden",
        f"the server's database user {user} may not make a database, and the drill needs one of its own",
        f'as an administrator of the database: ALTER ROLE "{user}" CREATEDB',
    )


def drop(connection, name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


class Server:
    """The image's server, with the drill's databases."""

    def __init__(self, command: list[str], databases: list[Database]) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="drill-")
        uri = lambda database: database.url.render_as_string(hide_password=False)
        environment = os.environ | {
            "MLFLOW_BACKEND_STORE_URI": uri(databases[0]),
            "MLFLOW_ARTIFACTS_DESTINATION": f"{self.folder.name}/artifacts",
            "MLFLOW_HOST": "127.0.0.1",
            "MLFLOW_PORT": str(SERVER),
            "MLFLOW_WORKERS": "1",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            # What the live server's pools leave of the database's connections is not much.
            "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "1",
            "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "3",
            # Where the login makes its own file.
            "TMPDIR": self.folder.name,
        }
        environment.pop("MLFLOW_REGISTRY_STORE_URI", None)
        if given := os.environ.get("MLFLOW_AUTH_CONFIG_PATH"):
            environment["MLFLOW_AUTH_CONFIG_PATH"] = self.users(given, uri(databases[-1]))
        self.words = deque(maxlen=5)
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        threading.Thread(target=self.listen, daemon=True).start()

    def users(self, given: str, uri: str) -> str:
        """The login's settings, with another database."""
        settings = configparser.ConfigParser()
        settings.read(given)
        settings["mlflow"]["database_uri"] = uri.replace("%", "%%")
        path = f"{self.folder.name}/login.ini"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            settings.write(file)
        return path

    def listen(self) -> None:
        for line in self.process.stdout:
            if line.strip():
                self.words.append(line.strip())
                say(f"server: {line.rstrip()}")

    def wait(self) -> None:
        """Until it answers."""
        end = time.monotonic() + START
        while time.monotonic() < end:
            if self.process.poll() is not None:
                time.sleep(0.5)
                raise Failure("server", f"the server ends with what was restored: {' | '.join(self.words)}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{SERVER}/health", timeout=5) as answered:
                    if answered.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(0.25)
        raise Failure("server", f"the server does not answer within {START} s: {' | '.join(self.words)}")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()


def migrate(database: Database) -> tuple[str, str] | None:
    """Brings a dump of an older MLflow to the image's schema, as an upgrade would: from where, and to where."""
    package = Path(find_spec("mlflow").submodule_search_locations[0])
    head = ScriptDirectory(str(package / "store/db_migrations")).get_current_head()
    with closing(database.connect()) as connection:
        schema = schema_of(connection)
        before = revisions(connection, schema, count(connection, schema)).get("tracking")
    if before == head:
        return None
    uri = database.url.render_as_string(hide_password=False)
    try:
        from mlflow.store.db.utils import _upgrade_db

        _upgrade_db(sqlalchemy.create_engine(uri, poolclass=sqlalchemy.pool.NullPool))
    except Exception as error:
        message = f"what was restored is at {before}, and the image's MLflow does not bring it to {head}: {first_line(error)}"
        raise Failure("server", message, "deploy the image that the backup was taken with: db backups names it") from None
    return before, head


def drill(args) -> dict[str, object]:
    control = Control()
    place = place_of(args.to, room(args.scratch))
    found, times = chosen(place, args.id), {}
    mark = time.monotonic()

    def took(what: str) -> None:
        nonlocal mark
        times[what], mark = round(time.monotonic() - mark, 3), time.monotonic()

    live = [database for database, _ in matched(found)]
    with ExitStack() as stack:
        connection, prefix, left = stack.enter_context(alone(live[0]))
        scratch = []
        for database, entry in zip(live, found["databases"]):
            name = prefix + secrets.token_hex(4)
            # The login's may be at another server.
            maker = connection if database is live[0] else stack.enter_context(closing(database.connect()))
            maker.autocommit = True
            control.phase(f"loading {entry['file']} into {name}")
            create(maker, name)
            stack.callback(drop, maker, name)
            scratch.append(database.named(name))
            with closing(scratch[-1].connect()) as filled:
                with filled.cursor() as cursor:
                    cursor.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(entry["schema"])))
                fill(filled, place, found["id"], entry)
                filled.commit()
        took("load")
        control.phase("comparing the schema")
        migrated = migrate(scratch[0])
        took("migrate")
        control.phase("starting the server")
        server = Server(args.server, scratch)
        stack.callback(server.stop)
        server.wait()
        took("start")
        control.phase("serving")
        if not control.ended.wait(args.wait):
            raise Failure("server", f"nobody has looked at the server within {args.wait} s")
        took("serve")
        control.phase("tidying up")
    took("remove")
    return {"drilled": found, "migrated": migrated, "leftovers": left, "seconds": times}
