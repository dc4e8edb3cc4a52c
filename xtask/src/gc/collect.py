"""Frees what an MLflow server's deleted runs, models and experiments still hold.

Run where the server runs, as `python -c TEXT --older-than SECONDS`. It does what `mlflow gc` does, with
the same calls of MLflow's store, and beside it: goes on after what fails, has a dry run, says what it
freed, deletes the artifacts of a deleted experiment's traces and models too, and leaves alone what a
registered model version is made of. Artifacts go first, rows last, so that whatever ends it, the next
run finds the rest. Prints lines of JSON, one for each thing, the sums last.

Artifacts are reached as the server reaches them, not through the server. Where the database and the
artifacts are, and with which password, is in the environment, as for the server.
"""

import argparse
import json
import os
import re
import signal
import sys
import time
from urllib.parse import unquote, urlsplit

# One thing at a time: what the server's pools leave of the database's connections is not much.
# MLflow reads these while it is imported.
os.environ["MLFLOW_SQLALCHEMYSTORE_POOL_SIZE"] = "1"
os.environ["MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW"] = "2"

import sqlalchemy
from mlflow.entities import LifecycleStage
from mlflow.entities.model_registry.model_version_stages import STAGE_DELETED_INTERNAL
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.store.model_registry.dbmodels.models import SqlModelVersion
from mlflow.store.tracking.dbmodels.models import SqlExperiment, SqlLoggedModel, SqlRun, SqlTraceInfo
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.uri import validate_path_is_safe

# How many traces are deleted in one transaction.
TRACES = 500

DELETED, ABSENT, KEPT, REFUSED = "deleted", "absent", "kept", "refused"


class Refused(Exception):
    """Why something is not deleted."""


class Artifacts:
    """Files below one place, as the server reaches them."""

    def __init__(self, uri: str, owner: str) -> None:
        parts = urlsplit(uri)
        # Whoever may make an experiment says where its artifacts are. A folder with the owner's own name in
        # its path is no one else's.
        if owner not in parts.path.split("/"):
            raise Refused(f"its artifacts are not in a folder of its own: {uri}")
        self.path = None
        if parts.scheme == "mlflow-artifacts":
            if parts.netloc:
                raise Refused(f"its artifacts are another server's: {uri}")
            self.path = validate_path_is_safe(unquote(parts.path).lstrip("/"))
            uri = os.environ.get("MLFLOW_ARTIFACTS_DESTINATION")
            if not uri:
                raise Refused("MLFLOW_ARTIFACTS_DESTINATION is not set")
        self.repository = get_artifact_repository(uri)

    def entries(self, folder: str | None) -> list[tuple[str, object]]:
        """What lies in a folder, by the path from the root."""
        # Of paths in answers only the last part is good: of a bucket's own root the first letter is missing.
        named = [(entry.path.rstrip("/").rpartition("/")[2], entry) for entry in self.repository.list_artifacts(folder)]
        return [(f"{folder}/{name}" if folder else name, entry) for name, entry in named if name]

    def names(self) -> list[str]:
        """What lies there, by name."""
        return [path.rpartition("/")[2] for path, _ in self.entries(self.path)]

    def measure(self) -> tuple[int, int, int]:
        """How much lies there: entries (folders count), files, bytes."""
        entries = files = size = 0
        waiting = [self.path]
        while waiting:
            for path, entry in self.entries(waiting.pop()):
                entries += 1
                if entry.is_dir:
                    waiting.append(path)
                else:
                    files, size = files + 1, size + (entry.file_size or 0)
        return entries, files, size

    def delete(self, dry_run: bool) -> tuple[str, int, int]:
        """Deletes what lies there: whether there was something, how many files and bytes."""
        entries, files, size = self.measure()
        if not entries:
            return ABSENT, 0, 0
        if not dry_run:
            try:
                self.repository.delete_artifacts(self.path)
            except Exception:
                # Someone else may have been faster.
                if self.measure()[0]:
                    raise
        return DELETED, files, size


class Collector:
    """One run of this program."""

    def __init__(self, store: SqlAlchemyStore, older_than: int, dry_run: bool) -> None:
        self.store = store
        self.dry_run = dry_run
        self.older_than = older_than
        self.limit = int((time.time() - older_than) * 1000)
        self.sums = dict.fromkeys(("runs", "models", "traces", "experiments", KEPT, REFUSED, "files", "bytes"), 0)
        self.artifacts = dict.fromkeys((DELETED, ABSENT, REFUSED), 0)
        # By id; whether it is deleted.
        self.ends: dict[str, bool] = {}
        self.used = self.in_use()
        self.stopped = False

    def stop(self, *_: object) -> None:
        self.stopped = True

    def rows(self, *columns: object, where: list[object]) -> list[tuple]:
        with self.store.ManagedSessionMaker() as session:
            return [tuple(row) for row in session.query(*columns).filter(*where)]

    def in_use(self) -> set[str]:
        """The parts of all paths that registered model versions are at."""
        live = SqlModelVersion.current_stage != STAGE_DELETED_INTERNAL
        versions = self.rows(SqlModelVersion.source, SqlModelVersion.storage_location, where=[live])
        return {part for version in versions for uri in version if uri for part in re.split("[/:]+", uri)}

    def collect(self) -> None:
        run = SqlRun.lifecycle_stage == LifecycleStage.DELETED, SqlRun.deleted_time <= self.limit
        self.each(self.run, self.rows(SqlRun.run_uuid, SqlRun.artifact_uri, where=run))
        model = (
            SqlLoggedModel.lifecycle_stage == LifecycleStage.DELETED,
            SqlLoggedModel.last_updated_timestamp_ms <= self.limit,
        )
        self.each(self.model, self.rows(SqlLoggedModel.model_id, SqlLoggedModel.artifact_location, where=model))
        experiment = (
            SqlExperiment.lifecycle_stage == LifecycleStage.DELETED,
            SqlExperiment.last_update_time <= self.limit,
        )
        found = self.rows(SqlExperiment.experiment_id, SqlExperiment.artifact_location, where=experiment)
        self.each(self.experiment, [(str(id), uri) for id, uri in found])

    def each(self, free: object, found: list[tuple[str, str]]) -> None:
        for id, uri in found:
            if self.stopped:
                return
            if id not in self.ends:
                free(id, uri)

    def run(self, id: str, uri: str) -> None:
        row = SqlRun.run_uuid == id
        self.one("run", id, uri, [row], SqlRun.lifecycle_stage, self.store._hard_delete_run)

    def model(self, id: str, uri: str) -> None:
        row = SqlLoggedModel.model_id == id
        self.one("model", id, uri, [row], SqlLoggedModel.lifecycle_stage, self.store._hard_delete_logged_model)

    def one(self, kind: str, id: str, uri: str, row: list, stage: object, forget: object) -> None:
        """A run or a model."""
        if id in self.used:
            self.tell(kind, id, KEPT, why="a registered model version is made of it")
            return
        state, files, size = None, 0, 0
        try:
            # It may have been restored, or deleted by someone else, since it was found. Of a deleted
            # experiment models are not marked as deleted.
            now = self.rows(stage, where=row)
            if not now:
                self.ends[id] = True
                return
            if now[0][0] != LifecycleStage.DELETED and kind == "run":
                self.tell(kind, id, KEPT, why="it was restored")
                return
            state = REFUSED
            state, files, size = Artifacts(uri, id).delete(self.dry_run)
            if not self.dry_run:
                self.forget(forget, id)
        except Exception as error:
            self.tell(kind, id, REFUSED, state, files, size, reason(error))
        else:
            self.tell(kind, id, DELETED, state, files, size)

    def forget(self, forget: object, id: str) -> None:
        try:
            forget(id)
        except MlflowException as error:
            # Someone else was faster.
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise

    def experiment(self, id: str, uri: str) -> None:
        """An experiment with all that is in it: of its rows none stays when its own goes."""
        number = int(id)
        runs = self.rows(
            SqlRun.run_uuid, SqlRun.artifact_uri, SqlRun.lifecycle_stage, where=[SqlRun.experiment_id == number]
        )
        if any(stage != LifecycleStage.DELETED for _, _, stage in runs):
            self.tell("experiment", id, KEPT, why="a run of it was restored")
            return
        of_it = [SqlLoggedModel.experiment_id == number]
        models = self.rows(SqlLoggedModel.model_id, SqlLoggedModel.artifact_location, where=of_it)
        self.each(self.run, [(run, place) for run, place, _ in runs])
        self.each(self.model, models)
        if self.stopped:
            return
        parts = [run for run, _, _ in runs] + [model for model, _ in models]
        left = sum(not self.ends.get(part, False) for part in parts)
        if left:
            self.tell("experiment", id, KEPT, why=f"{left} of its runs and models are left")
            return
        try:
            if not self.traces(id, uri):
                self.tell("experiment", id, KEPT, why="artifacts of its traces are left")
                return
            stage = self.rows(SqlExperiment.lifecycle_stage, where=[SqlExperiment.experiment_id == number])
            if stage and stage[0][0] != LifecycleStage.DELETED:
                self.tell("experiment", id, KEPT, why="it was restored")
                return
            if not self.dry_run:
                self.forget(self.store._hard_delete_experiment, id)
        except Exception as error:
            self.tell("experiment", id, REFUSED, why=reason(error))
        else:
            self.tell("experiment", id, DELETED)

    def traces(self, id: str, uri: str) -> bool:
        """The traces of an experiment: those that have artifacts one by one, then all rows. Whether none is left."""
        of_it = [SqlTraceInfo.experiment_id == int(id)]
        traces = {trace for (trace,) in self.rows(SqlTraceInfo.request_id, where=of_it)}
        if not traces:
            return True
        folder = f"{uri.rstrip('/')}/{SqlAlchemyStore.TRACE_FOLDER_NAME}"
        # Most traces have none, and asking for each would take longer than all the rest.
        for trace in sorted(traces.intersection(Artifacts(folder, SqlAlchemyStore.TRACE_FOLDER_NAME).names())):
            try:
                state, files, size = Artifacts(f"{folder}/{trace}", trace).delete(self.dry_run)
            except Exception as error:
                self.tell("trace", trace, REFUSED, REFUSED, why=reason(error))
            else:
                self.tell("trace", trace, DELETED, state, files, size)
            if self.stopped:
                return False
        if not all(self.ends.get(trace, True) for trace in traces):
            return False
        if not self.dry_run:
            while not self.stopped and self.store.delete_traces(id, max_timestamp_millis=2**62, max_traces=TRACES):
                pass
            if self.rows(SqlTraceInfo.request_id, where=of_it):
                raise Refused("not all of its traces could be deleted")
        self.sums["traces"] += len(traces)
        return True

    def tell(
        self, kind: str, id: str, end: str, state: str | None = None, files: int = 0, size: int = 0, why: str | None = None
    ) -> None:
        """Counts what became of something, and prints it."""
        self.ends[id] = end == DELETED
        if state is not None:
            self.artifacts[state] += 1
        if state == DELETED:
            self.sums["files"] += files
            self.sums["bytes"] += size
        if end != DELETED:
            self.sums[end] += 1
        # Rows of traces are counted when they are gone.
        elif kind != "trace":
            self.sums[f"{kind}s"] += 1
        what = "would be deleted" if self.dry_run and end == DELETED else end
        message = f"{kind} {id}: {what}" + (f": {why}" if why else f", {files} files, {size} bytes")
        line = {"gc": kind, "id": id, "end": end, "artifacts": state, "files": files, "bytes": size, "why": why}
        say(line | {"dry_run": self.dry_run}, message, "ERROR" if end == REFUSED else "INFO")

    def sum_up(self) -> None:
        sums = {"gc": "summary", "dry_run": self.dry_run, "older_than": self.older_than, "stopped": self.stopped}
        counts = ", ".join(f"{count} {what}" for what, count in self.sums.items())
        message = f"gc{' (dry run)' if self.dry_run else ''}: {counts}"
        severity = "ERROR" if self.sums[REFUSED] or self.stopped else "INFO"
        say(sums | self.sums | {"artifacts": self.artifacts}, message, severity)


def say(line: dict[str, object], message: str, severity: str) -> None:
    """A line as Google's Cloud Logging reads it."""
    print(json.dumps(line | {"severity": severity, "message": message}), flush=True)


def reason(error: Exception) -> str:
    """The first line of an error's own words; of a database's without the URI, which holds a password."""
    words = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
    return (words if isinstance(error, Refused) else f"{type(error).__name__}: {words}")[:300]


def open_store() -> SqlAlchemyStore | None:
    """The store; `None` where there are no tables yet, which looking at it would make."""
    uri = os.environ["MLFLOW_BACKEND_STORE_URI"]
    engine = SqlAlchemyStore._get_or_create_engine(uri)
    if not sqlalchemy.inspect(engine).has_table(SqlExperiment.__tablename__):
        return None
    return SqlAlchemyStore(uri, "mlflow-artifacts:/")


def main() -> int:
    parser = argparse.ArgumentParser(prog="gc")
    parser.add_argument("--older-than", type=int, required=True, help="seconds since something was deleted")
    parser.add_argument("--dry-run", action="store_true", help="delete nothing")
    parser.add_argument("--answer", action="store_true", help="end well if something was refused: the sums tell")
    args = parser.parse_args()
    try:
        if os.environ.get("MLFLOW_ENABLE_WORKSPACES", "").lower() in ("true", "1"):
            raise Refused("the server has workspaces, of which this program knows nothing: run mlflow gc")
        store = open_store()
        if store is None:
            raise Refused("the database has no tables of MLflow's")
        collector = Collector(store, args.older_than, args.dry_run)
        signal.signal(signal.SIGTERM, collector.stop)
        collector.collect()
    except Exception as error:
        say({"gc": "failure"}, reason(error), "ERROR")
        return 1
    collector.sum_up()
    if collector.stopped:
        return 143
    return 1 if collector.sums[REFUSED] and not args.answer else 0


if __name__ == "__main__":
    sys.exit(main())
