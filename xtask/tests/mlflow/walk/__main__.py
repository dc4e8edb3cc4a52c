"""Walks through every functional area of a running MLflow server.

Prints one line per check, and the routes that were called out of all that the installed MLflow has.
Exit code 1 when a check fails or a route is neither called nor listed with a reason.

    python -m walk http://127.0.0.1:5000 [--login USER] [--json FILE]

The routes are read from the MLflow that is installed beside this script, which must therefore be
the server's version, complete, and no part of the server under test. With --login the password is
read from stdin, and only the login area is walked: against a server with `--app-name basic-auth`.
"""

import argparse
import json
import sys
import time
import traceback

from . import artifacts, gateway, genai, login, mcp, registry, routes, tracing, tracking, web
from .server import Server

AREAS = [tracking, registry, artifacts, tracing, genai, gateway, mcp, web]


def main() -> int:
    parser = argparse.ArgumentParser(prog="walk", description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--login", metavar="USER")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--only", metavar="AREA")
    args = parser.parse_args()

    server = Server(args.url)
    areas = AREAS
    if args.login:
        server.login(args.login, sys.stdin.readline().rstrip("\n"))
        areas = [login]
    results = []
    for area in areas:
        name = area.__name__.rsplit(".", 1)[-1]
        if args.only not in (None, name):
            continue
        for check in area.checks(server):
            begun = time.monotonic()
            try:
                check()
                error = None
            except Exception as exception:
                error = "".join(traceback.format_exception_only(exception)).strip()
                where = traceback.extract_tb(exception.__traceback__)
                line = next((f.lineno for f in where if f.filename.endswith(f"{name}.py")), 0)
                error = f"{error} ({name}.py:{line})"
            seconds = time.monotonic() - begun
            title = f"{name}: {check.__name__.replace('_', ' ')}"
            results.append({"name": title, "ok": error is None, "seconds": round(seconds, 3), "detail": error})
            print(f"{'ok' if error is None else 'FAILED':>6}  {title}  {seconds:.2f} s  {error or ''}", flush=True)

    coverage = routes.coverage(server.answered, login=bool(args.login))
    failed = [result["name"] for result in results if not result["ok"]]
    complete = args.only is not None or not coverage["uncovered"]
    print(f"{len(results) - len(failed)} of {len(results)} checks passed")
    print(
        f"routes: {coverage['served']} of {coverage['all']} served a request, "
        f"{len(coverage['refused'])} answered the refusal they must, {len(coverage['excused'])} left out"
    )
    for route in coverage["uncovered"] if args.only is None else []:
        print(f"not called: {route}")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump({"ok": not failed and complete, "checks": results, "routes": coverage}, file, indent=1)
    return 0 if not failed and complete else 1


sys.exit(main())
