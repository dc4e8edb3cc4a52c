

# What schema the databases have: a line of JSON for each store, behind MARK, for a pod's log holds all
# that its container prints. Nothing is written to a database.

MARK = "mlflow-server-schema"


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
