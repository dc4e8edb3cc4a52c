"""What a data scientist does, with MLflow's own Python client: log parameters, metrics and a
scikit-learn model to a server, and read all of it back.

    python seed_check.py http://127.0.0.1:5000
"""

import sys
import uuid

import mlflow
import numpy as np
from mlflow import MlflowClient
from mlflow.models import infer_signature
from sklearn.datasets import make_regression
from sklearn.linear_model import ElasticNet

mlflow.set_tracking_uri(sys.argv[1])
name = f"seed-check-{uuid.uuid4().hex[:12]}"
experiment = mlflow.create_experiment(name)
x, y = make_regression(n_samples=80, n_features=4, random_state=7)
model = ElasticNet(alpha=0.5, l1_ratio=0.3, random_state=7).fit(x, y)
rmse = float(np.sqrt(np.mean((model.predict(x) - y) ** 2)))

with mlflow.start_run(experiment_id=experiment) as run:
    mlflow.log_params({"alpha": 0.5, "l1_ratio": 0.3})
    mlflow.log_metric("rmse", rmse)
    mlflow.log_text("notes", "notes.txt")
    info = mlflow.sklearn.log_model(
        model, name="model", signature=infer_signature(x, y), input_example=x[:2], registered_model_name=name
    )

client = MlflowClient()
data = client.get_run(run.info.run_id).data
assert data.params == {"alpha": "0.5", "l1_ratio": "0.3"}, data.params
assert data.metrics["rmse"] == rmse, data.metrics
found = mlflow.search_runs([experiment], filter_string="params.alpha = '0.5'", output_format="list")
assert [r.info.run_id for r in found] == [run.info.run_id], found
assert mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/notes.txt") == "notes"
for uri in (info.model_uri, f"models:/{name}/1"):
    loaded = mlflow.sklearn.load_model(uri)
    assert np.array_equal(loaded.predict(x), model.predict(x)), uri
assert mlflow.pyfunc.load_model(f"models:/{name}/1").predict(x[:2]).shape == (2,)


@mlflow.trace
def double(number):
    return 2 * number


mlflow.set_experiment(experiment_id=experiment)
double(21)
mlflow.flush_trace_async_logging()
[trace] = mlflow.search_traces(locations=[experiment], return_type="list")
assert trace.data.spans[0].outputs == 42, trace

client.delete_registered_model(name)
client.delete_experiment(experiment)
print(f"ok: {name} on MLflow {mlflow.__version__}")
