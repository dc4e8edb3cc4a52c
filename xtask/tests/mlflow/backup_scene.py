"""A database with what MLflow keeps in it, for the tests of backups.

`make URI` makes experiments, runs and their like; `write URI` goes on until its stdin ends.
"""

import sys
import threading
import uuid

# What a dump's text must not be mistaken for: its own marks, and whatever it has to escape.
NASTY = "line\n\\.\nCOPY public.runs (run_uuid) FROM stdin;\n\t\\N \\x41 'quotes' \"and\" $dollars$ é\r\n"


def store(uri: str):
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    return SqlAlchemyStore(uri, "mlflow-artifacts:/")


def run(where, experiment: str, number: int) -> None:
    from mlflow.entities import Metric, Param, RunTag

    made = where.create_run(experiment, "ann", number, [RunTag("note", NASTY)], f"run {number}")
    metrics = [Metric("loss", 1.0 / (step + 1), step, step) for step in range(20)]
    where.log_batch(made.info.run_id, metrics, [Param("rate", NASTY)], [])


def make(uri: str) -> None:
    where = store(uri)
    experiment = where.create_experiment(f"lab {uuid.uuid4()} {NASTY!r}")
    for number in range(10):
        run(where, experiment, number)


def write(uri: str) -> None:
    where, over = store(uri), threading.Event()
    experiment = where.create_experiment("load")
    print("ready", flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    number = 0
    while not over.is_set():
        run(where, experiment, number)
        number += 1
    print(number, flush=True)


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    {"make": make, "write": write}[command](*arguments)
