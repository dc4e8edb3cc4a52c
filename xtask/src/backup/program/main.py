"""What is wanted, and how it ends."""

import argparse


def code_of(error: BaseException) -> tuple[str, str | None]:
    """The code of somebody else's error, and what helps."""
    if isinstance(error, psycopg2.errors.InsufficientPrivilege):
        return "forbidden", "the server's database user must own MLflow's tables: ALTER TABLE ... OWNER TO"
    if isinstance(error, psycopg2.errors.LockNotAvailable):
        return "locked", "a server still uses the tables: stop it, or wait until its requests have ended"
    if isinstance(error, (psycopg2.Error, sqlalchemy.exc.SQLAlchemyError)):
        return "database", None
    status = getattr(error, "code", None) or getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return "forbidden", "give the server's account the right to write, read and delete there"
    if status == 404 or isinstance(error, FileNotFoundError):
        return "missing", "look at the place that backup.to in deploy.toml names"
    if isinstance(error, PermissionError):
        return "forbidden", "let the server's user write there"
    if isinstance(error, OSError) and error.errno is not None:
        return "room", "make room there, then run the same command again"
    return "store", None


def catalog(args) -> dict[str, object]:
    found, parts = manifests(place_of(args.to, room(args.scratch)))
    return {"backups": found, "parts": sorted({name.partition("/")[0] for name in parts})}


def check(args) -> dict[str, object]:
    place = place_of(args.to, room(args.scratch))
    found, begun = chosen(place, args.id), time.monotonic()
    verify(place, found)
    return {"verified": found, "seconds": round(time.monotonic() - begun, 3)}


def main() -> int:
    parser = argparse.ArgumentParser(prog="backup")
    parser.add_argument("action", choices=["take", "list", "verify", "restore", "drill"])
    parser.add_argument("--to", required=True, help="where backups lie")
    parser.add_argument("--id", help="which one; the newest without")
    parser.add_argument("--reason", default="")
    parser.add_argument("--image", default="")
    parser.add_argument("--scratch", help="what /tmp may hold, as a Kubernetes quantity")
    parser.add_argument("--keep", type=int, help="delete all but so many of the newest")
    parser.add_argument("--wait", type=int, default=900, help="seconds that a drill's server may wait to be asked")
    parser.add_argument("--server", nargs=argparse.REMAINDER, default=[], help="what starts the server; last")
    args = parser.parse_args()

    def stop(*_: object) -> None:
        raise Stopped

    signal.signal(signal.SIGTERM, stop)
    actions = {"take": take, "list": catalog, "verify": check, "restore": restore, "drill": drill}
    try:
        answer(actions[args.action](args))
    except Failure as failure:
        answer({"failure": {"code": failure.code, "message": str(failure), "hint": failure.hint}})
    except Stopped:
        return 143
    except Exception as error:
        code, hint = code_of(error)
        answer({"failure": {"code": code, "message": f"{type(error).__name__}: {first_line(error)[:300]}", "hint": hint}})
    return 0


if __name__ == "__main__":
    sys.exit(main())
