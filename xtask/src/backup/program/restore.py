"""Bringing a backup back: in one transaction what is there is dropped, the dump loaded, and its rows compared.

Whoever calls this has seen to it that no server writes. Nothing needs more rights than the tables' owner has.
"""

# What may lie in a schema, in an order in which nothing is dropped that something below is needed by; names
# that belong to an extension are left out.
OWN = "AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = '{catalog}'::regclass AND objid = {catalog}.oid AND deptype = 'e')"
RELATIONS = [("VIEW", "v"), ("MATERIALIZED VIEW", "m"), ("FOREIGN TABLE", "f"), ("TABLE", "rp"), ("SEQUENCE", "S")]


def named(connection, schema: str, question: str, catalog: str, *more: object) -> list[str]:
    """Names as statements have them."""
    namespace = sql.Identifier(schema).as_string(connection)
    return [name for (name,) in ask(connection, f"{question} {OWN.format(catalog=catalog)} ORDER BY 1", (namespace, *more))]


def clear(connection, schema: str) -> None:
    """Drops all that is in the schema, also what a newer MLflow made, and nothing that hangs on it elsewhere."""

    def drop(kind: str, names: list[str]) -> None:
        # In one statement, for tables refer to each other.
        if names:
            with connection.cursor() as cursor:
                cursor.execute(f"DROP {kind} {', '.join(names)} RESTRICT")

    for kind, letters in RELATIONS:
        question = (
            "SELECT format('%%I.%%I', relnamespace::regnamespace::name, relname) FROM pg_class "
            "WHERE relnamespace = %s::regnamespace AND relkind = ANY(%s) AND NOT relispartition"
        )
        drop(kind, named(connection, schema, question, "pg_class", list(letters)))
    question = "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = %s::regnamespace"
    drop("ROUTINE", named(connection, schema, question, "pg_proc"))
    question = (
        "SELECT format('%%I.%%I', typnamespace::regnamespace::name, typname) FROM pg_type WHERE typnamespace = %s::regnamespace "
        "AND typtype IN ('e', 'd', 'r', 'c') AND NOT EXISTS (SELECT FROM pg_class WHERE pg_class.oid = typrelid AND relkind <> 'c')"
    )
    drop("TYPE", named(connection, schema, question, "pg_type"))


def grants(connection, schema: str) -> list[tuple[str, str]]:
    """Tables that others than their owner may use, and the statements that let them."""
    return ask(
        connection,
        "SELECT relname, format('GRANT %%s ON %%I.%%I TO %%s%%s', privilege_type, relnamespace::regnamespace::name, relname, "
        "CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END, "
        "CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) FROM pg_class, aclexplode(relacl) "
        "WHERE relnamespace = %s::regnamespace AND relkind IN ('r', 'p') AND grantee <> relowner",
        (sql.Identifier(schema).as_string(connection),),
    )


def fill(connection, place, id: str, entry: dict) -> None:
    """Loads a dump into a schema without tables of its names, and compares it. Nothing is committed."""
    old = server_version(connection) < 17

    def execute(statements: bytes) -> None:
        if old:
            # A setting that newer programs turn off, and older servers do not know.
            statements = statements.replace(b"SET transaction_timeout = 0;\n", b"")
        # Comments alone are no statement to the driver.
        if any(line.strip() and not line.startswith(b"--") for line in statements.splitlines()):
            with connection.cursor() as cursor:
                cursor.execute(statements)

    def copy(statement: bytes, table: Rows) -> None:
        with connection.cursor() as cursor:
            cursor.copy_expert(statement, table)

    read(place, id, entry, execute, copy)
    same(f"what {entry['file']} was loaded into", count(connection, entry["schema"]), entry)


def replace(connection, place, id: str, entry: dict) -> None:
    schema = schema_of(connection)
    if schema != entry["schema"]:
        raise Failure("moved", f"the backup is of the schema {entry['schema']}, and the server's tables are in {schema}")
    kept = grants(connection, schema)
    with connection.cursor() as cursor:
        cursor.execute(f"SET LOCAL lock_timeout = '{IN_USE}s'")
    say(f"dropping what is in {schema}")
    clear(connection, schema)
    say(f"loading {entry['rows']} rows of {len(entry['tables'])} tables from {id}/{entry['file']}")
    fill(connection, place, id, entry)
    with connection.cursor() as cursor:
        for table, statement in kept:
            if table in entry["tables"]:
                cursor.execute(statement)


def matched(found: dict) -> list[tuple[Database, dict]]:
    """Each dump with the database that it belongs to."""
    here, entries = databases(), found["databases"]
    if len(here) != len(entries):
        raise Failure("moved", f"backup {found['id']} is of {len(entries)} databases, and the server has {len(here)}")
    return list(zip(here, entries))


def restore(args) -> dict[str, object]:
    place = place_of(args.to, room(args.scratch))
    found, begun = chosen(place, args.id), time.monotonic()
    with ExitStack() as stack:
        pairs = [(database, entry) for database, entry in matched(found)]
        for database, _ in pairs:
            stack.enter_context(lock(database))
        open_ones = [(stack.enter_context(closing(database.connect())), entry) for database, entry in pairs]
        for connection, entry in open_ones:
            replace(connection, place, found["id"], entry)
        # Two databases know no common commit: what can fail has been done by now.
        for connection, _ in open_ones:
            connection.commit()
        for connection, entry in open_ones:
            analyze(connection, entry)
    return {"restored": found, "seconds": round(time.monotonic() - begun, 3)}


def analyze(connection, entry: dict) -> None:
    """Tells the planner what is there now; the database does it later otherwise."""
    try:
        with connection.cursor() as cursor:
            for name in entry["tables"]:
                cursor.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(entry["schema"], name)))
        connection.commit()
    except psycopg2.Error as error:
        say(f"not analyzed: {first_line(error)}")
