"""Artifacts through the server: streamed, listed, downloaded by every route that offers it."""

import hashlib
import os

from .server import Server, equal

PROXY = "/api/2.0/mlflow-artifacts"


def checks(s: Server):
    run = s.run(s.experiment("artifacts"))["info"]
    r, root = run["run_id"], run["artifact_uri"].split(":", 1)[1].strip("/")
    data = os.urandom(3 << 20)

    def up_and_down():
        s.raw("PUT", f"{PROXY}/artifacts/{root}/a/b.bin", data=data)
        back = s.raw("GET", f"{PROXY}/artifacts/{root}/a/b.bin").content
        equal(hashlib.sha256(back).hexdigest(), hashlib.sha256(data).hexdigest())
        equal(s.raw("GET", f"/ajax-api/2.0/mlflow-artifacts/artifacts/{root}/a/b.bin").content, data)

    def listing():
        equal([f["path"] for f in s.get(f"{PROXY}/artifacts", path=f"{root}/a")["files"]], ["b.bin"])
        files = s.get("/api/2.0/mlflow/artifacts/list", run_id=r, path="a")["files"]
        equal([(f["path"], int(f["file_size"])) for f in files], [("a/b.bin", len(data))])

    def download_for_the_ui():
        answer = s.raw("GET", "/get-artifact", query={"run_id": r, "path": "a/b.bin"})
        equal(answer.content, data)

    def upload_from_the_ui():
        s.raw("POST", "/ajax-api/2.0/mlflow/upload-artifact", query={"run_uuid": r, "path": "u.txt"}, data=b"text")
        equal(s.raw("GET", "/get-artifact", query={"run_id": r, "path": "u.txt"}).content, b"text")

    def names_with_spaces_and_umlauts():
        s.raw("PUT", f"{PROXY}/artifacts/{root}/grün und blau.txt", data=b"x")
        assert "grün und blau.txt" in [f["path"] for f in s.get(f"{PROXY}/artifacts", path=root)["files"]]
        equal(s.raw("GET", f"{PROXY}/artifacts/{root}/grün und blau.txt").content, b"x")

    def paths_that_leave_the_root_are_refused():
        s.raw("GET", f"{PROXY}/artifacts/{root}/%2e%2e/%2e%2e/%2e%2e/etc/passwd", expect=(400, 404))
        s.get(f"{PROXY}/artifacts", path="../..", expect=400)

    def multipart_and_presigned():
        # What the artifact store offers decides: 200 on object stores, 501 on files.
        either = (200, 400, 501)
        made = s.post(f"{PROXY}/mpu/create/{root}/m", {"path": f"{root}/m", "num_parts": 1}, expect=either)
        i = (made or {}).get("upload_id", "none")
        s.post(f"{PROXY}/mpu/complete/{root}/m", {"path": f"{root}/m", "upload_id": i, "parts": []}, expect=either)
        s.post(f"{PROXY}/mpu/abort/{root}/m", {"path": f"{root}/m", "upload_id": i}, expect=either)
        s.get(f"{PROXY}/presigned/{root}/a/b.bin", expect=either)
        for verb in ("download", "upload"):
            s.post(f"/api/2.0/mlflow/artifacts/presigned-{verb}-url", {"run_id": r, "path": "a/b.bin"}, expect=either)

    def deleting():
        s.delete(f"{PROXY}/artifacts/{root}/a/b.bin")
        s.raw("GET", f"{PROXY}/artifacts/{root}/a/b.bin", expect=(404, 500))

    return [
        up_and_down, listing, download_for_the_ui, upload_from_the_ui, names_with_spaces_and_umlauts,
        paths_that_leave_the_root_are_refused, multipart_and_presigned, deleting,
    ]  # fmt: skip
