"""Taking a backup: rows are counted and dumped in one snapshot, read back, and then the manifest is written."""

import datetime
from contextlib import ExitStack


class Stopped(BaseException):
    """The pod is told to end."""


@contextmanager
def snapshot(database: Database):
    """A transaction that sees one state, and its name for others."""
    with closing(database.connect()) as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        [(name,)] = ask(connection, "SELECT pg_export_snapshot()")
        yield connection, name


def examine(connection) -> dict[str, object]:
    """What is in a database: its stores with their revisions, and the rows of each table."""
    words, major = tool_version("pg_dump")
    if server_version(connection) > major:
        raise Failure(
            "image",
            f"the database is PostgreSQL {server_version(connection)}, and the image's {words} cannot dump it",
            "list a newer postgresql-client in mlflow_server/debian.in, run cargo xtask lock, and deploy; or have "
            'Cloud SQL keep the backups: backup.method = "cloud-sql"',
        )
    schema = schema_of(connection)
    tables = count(connection, schema)
    stores = revisions(connection, schema, tables)
    if not stores:
        raise Failure("empty", "the database has no tables of MLflow's", "deploy first: there is nothing to lose yet")
    return {"stores": stores, "schema": schema, "tables": tables, "rows": sum(tables.values())}


def dump(place, name: str, database: Database, exported: str, schema: str) -> dict[str, object]:
    """Sends pg_dump's output away as it comes; its length and digest."""
    # What pg_dump takes is a pattern.
    pattern = '"' + schema.replace('"', '""') + '"'
    options = ["--format=custom", "--no-owner", "--no-privileges", f"--schema={pattern}", f"--snapshot={exported}"]
    command, environment = database.program("pg_dump", *options)
    digest, size = hashlib.sha256(), 0
    with tempfile.TemporaryFile() as complaints, place.write(name) as file:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=complaints)
        try:
            while chunk := process.stdout.read(CHUNK):
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
            code = process.wait()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        complaints.seek(0)
        if code:
            words = complaints.read().decode(errors="replace").strip().replace("\n", "; ")
            raise Failure("database", f"pg_dump: {words[-500:]}")
    return {"bytes": size, "sha256": digest.hexdigest()}


def take(args) -> dict[str, object]:
    place = place_of(args.to, room(args.scratch))
    if f"{args.id}/{MANIFEST}" in place.names():
        raise Failure("taken", f"there is a backup {args.id} already")
    begun = time.monotonic()
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    found = {"format": 1, "id": args.id, "taken": now, "reason": args.reason, "image": args.image, "databases": []}
    names = ["mlflow.dump", "login.dump"]
    try:
        with ExitStack() as stack:
            # One after another, but of the same moment as nearly as two databases have one.
            views = [(database, *stack.enter_context(snapshot(database))) for database in databases()]
            found["server"] = "PostgreSQL " + views[0][1].get_parameter_status("server_version")
            found["program"] = tool_version("pg_dump")[0]
            for name, (database, connection, exported) in zip(names, views):
                entry = {"file": name, **examine(connection)}
                say(f"dumping {entry['rows']} rows of {len(entry['tables'])} tables to {args.id}/{name}")
                entry |= dump(place, f"{args.id}/{name}", database, exported, entry["schema"])
                found["databases"].append(entry)
        dumped = time.monotonic()
        verify(place, found)
        found["seconds"] = {"dump": round(dumped - begun, 3), "verify": round(time.monotonic() - dumped, 3)}
        with place.write(f"{args.id}/{MANIFEST}") as file:
            file.write(json.dumps(found, indent=1).encode())
    except BaseException:
        for name in names:
            forget(place, f"{args.id}/{name}")
        raise
    return {"backup": found, "pruned": prune(place, args.keep) if args.keep else []}


def forget(place, name: str) -> None:
    """Deletes what is no backup, where that works: without a manifest it does not count."""
    try:
        place.delete(name)
    except Exception as error:
        say(f"{name} is left: {first_line(error)}")


def prune(place, keep: int) -> list[str]:
    """Deletes all backups but the newest; the manifest first, so that what is left of one is none."""
    names = place.names()
    ids = sorted({name.partition("/")[0] for name in names if name.endswith(f"/{MANIFEST}")})
    old = ids[: max(0, len(ids) - keep)]
    for id in old:
        place.delete(f"{id}/{MANIFEST}")
        for name in names:
            if name.startswith(f"{id}/") and not name.endswith(f"/{MANIFEST}"):
                place.delete(name)
    # What a killed run left; one that is under way has a newer name.
    for name in names:
        if ids and name.partition("/")[0] < ids[0] and name.partition("/")[0] not in ids:
            forget(place, name)
    return old


def room(text: str | None) -> int | None:
    """Bytes of a Kubernetes quantity."""
    units = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    found = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", text or "")
    return int(float(found[1]) * units.get(found[2], 1)) if found else None
