

# Brings the databases to the revision that this MLflow works with: what is empty is made; what is behind
# is migrated with --migrate, and left as it is without. One at a time, also if two do this at once. A line
# of JSON for each store, behind MARK, tells what was done.

import contextlib
from collections.abc import Iterator

MARK = "mlflow-server-migration"

# Whoever changes a database as a whole holds PostgreSQL's advisory lock of this name in it.
LOCK = "mlflow-on-kubernetes"

# Seconds.
LOCK_PATIENCE = 600


@contextlib.contextmanager
def alone(uri: str) -> Iterator[None]:
    """Holds the lock of a database, on a connection of its own."""
    if not is_postgresql(uri):
        yield
        return
    with connect(engine(uri)).execution_options(isolation_level="AUTOCOMMIT") as connection:
        take(connection)
        yield


def take(connection: sqlalchemy.Connection) -> None:
    key = {"name": LOCK}
    question = sqlalchemy.text("SELECT pg_try_advisory_lock(hashtext(:name))")
    end = time.monotonic() + LOCK_PATIENCE
    told = False
    while not connection.execute(question, key).scalar_one():
        if time.monotonic() >= end:
            raise SystemExit(f"another run has held the database's lock for {LOCK_PATIENCE} s")
        if not told:
            say("another run changes the database: waiting until it has ended")
        told = True
        time.sleep(1)


def bring(store: Store, uri: str, migrate: bool) -> dict[str, object]:
    """Brings a store to its head, as far as that is wanted."""
    before = store.status(uri)
    revisions = before["revisions"]
    if revisions == [before["head"]]:
        did = "nothing"
    elif not revisions and not before["holds"]:
        did = "made"
    elif migrate and knows(store, revisions):
        did = "migrated"
    else:
        did = "left"
    if did in ("made", "migrated"):
        say(f"{store.name}: from {' '.join(revisions) or 'nothing'} to {before['head']}")
        change(store, uri, did)
    after = store.status(uri)
    if did != "left" and after["revisions"] != [after["head"]]:
        raise SystemExit(f"{store.name}: the revision is {after['revisions']} now, and {after['head']} was wanted")
    return {**after, "before": revisions, "did": did}


def knows(store: Store, revisions: list[str]) -> bool:
    """Whether there is a way from there: another MLflow's revision is not among this one's."""
    known = {script.revision for script in store.scripts().walk_revisions()}
    # An MLflow of before 3.6 noted nothing about the login.
    return set(revisions) <= known and (bool(revisions) or store is LOGIN)


def change(store: Store, uri: str, did: str) -> None:
    # Here, not above: it takes seconds, and what is as it should be does not need it.
    if store is LOGIN:
        from mlflow.server.auth.db.utils import migrate_if_needed

        migrate_if_needed(engine(uri), "head")
        return
    from mlflow.store.db import utils

    # Not one transaction: what a first start makes that is cut short is empty tables, and made again.
    work = utils._initialize_tables if did == "made" else utils._upgrade_db
    work(engine(uri))


def main(arguments: list[str]) -> int:
    try:
        for store, uri in databases():
            with alone(uri):
                answer = bring(store, uri, migrate="--migrate" in arguments)
            print(MARK, json.dumps(answer), flush=True)
    except sqlalchemy.exc.SQLAlchemyError as error:
        say(f"{type(error).__name__}: {first_line(error)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
