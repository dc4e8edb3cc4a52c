"""A server with things deleted at several times, for the test of gc.

`make URL URI ARTIFACTS` makes them through the server at URL, and turns their clocks back in its database
at URI; prints their ids by what they are. `rows URI` prints how many rows each table has.
"""

import json
import os
import shutil
import sys
import time
from pathlib import Path

import sqlalchemy as sql

DAY = 86_400_000


def make(url: str, uri: str, artifacts: Path) -> dict[str, str]:
    os.environ["MLFLOW_TRACKING_URI"] = url
    from mlflow import MlflowClient

    client = MlflowClient(url)
    engine = sql.create_engine(uri)
    ids = {}

    def age(table: str, key: str, id: str | int, column: str, days: int) -> None:
        with engine.begin() as connection:
            text = sql.text(f"UPDATE {table} SET {column} = :at WHERE {key} = :id")
            connection.execute(text, {"at": int(time.time() * 1000) - days * DAY, "id": id})

    def run(name: str, experiment: str, days: int | None, text: str | None = "12345") -> str:
        ids[name] = client.create_run(experiment).info.run_id
        client.log_metric(ids[name], "loss", 1.0)
        client.log_param(ids[name], "rate", "2")
        if text is not None:
            client.log_text(ids[name], text, "deep/er/file.txt")
        if days is not None:
            client.delete_run(ids[name])
            age("runs", "run_uuid", ids[name], "deleted_time", days)
        return ids[name]

    def model(name: str, experiment: str) -> str:
        ids[name] = client.create_logged_model(experiment, name).model_id
        folder = artifacts / experiment / "models" / ids[name] / "artifacts"
        folder.mkdir(parents=True)
        (folder / "MLmodel").write_text("1234567")
        return ids[name]

    lab = ids["lab"] = client.create_experiment("lab")
    run("live", lab, None)
    run("young", lab, 1)
    run("old", lab, 40)
    run("bare", lab, 40, None)
    folder = artifacts / lab
    shutil.rmtree(folder / run("absent", lab, 40))
    # A link is refused by what deletes folders, and not by what lists them.
    refused = folder / run("refused", lab, 40) / "artifacts"
    refused.rename(refused.with_name("elsewhere"))
    refused.symlink_to("elsewhere")
    used = run("used", lab, 40)
    client.create_registered_model("product")
    source = client.get_run(used).info.artifact_uri + "/deep"
    client.create_model_version("product", source, used)
    foreign = run("foreign", lab, 40)
    with engine.begin() as connection:
        place = f"mlflow-artifacts://elsewhere/{foreign}/artifacts"
        connection.execute(sql.text("UPDATE runs SET artifact_uri = :to WHERE run_uuid = :id"), {"to": place, "id": foreign})
    client.delete_logged_model(model("old-model", lab))
    age("logged_models", "model_id", ids["old-model"], "last_updated_timestamp_ms", 40)
    model("live-model", lab)

    gone = ids["gone"] = client.create_experiment("gone")
    run("gone-run", gone, None)
    model("gone-model", gone)
    ids["gone-trace"] = client.start_trace("work", experiment_id=gone).trace_id
    client.end_trace(ids["gone-trace"])
    ids["plain-trace"] = client.start_trace("work", experiment_id=gone).trace_id
    client.end_trace(ids["plain-trace"])
    import mlflow

    mlflow.flush_trace_async_logging()
    # Spans are rows or files, as MLflow decides.
    shutil.rmtree(artifacts / gone / "traces", ignore_errors=True)
    folder = artifacts / gone / "traces" / ids["gone-trace"] / "artifacts"
    folder.mkdir(parents=True)
    (folder / "attachment").write_text("123")
    client.delete_experiment(gone)
    age("experiments", "experiment_id", int(gone), "last_update_time", 40)

    fresh = ids["fresh"] = client.create_experiment("fresh")
    run("fresh-run", fresh, None)
    client.delete_experiment(fresh)
    return ids


def rows(uri: str) -> dict[str, int]:
    engine = sql.create_engine(uri)
    with engine.connect() as connection:
        tables = sorted(sql.inspect(engine).get_table_names())
        return {name: connection.execute(sql.text(f"SELECT count(*) FROM {name}")).scalar_one() for name in tables}


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    answer = make(*arguments[:2], Path(arguments[2])) if command == "make" else rows(*arguments)
    print(json.dumps(answer))
