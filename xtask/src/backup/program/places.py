"""Where backups lie: ID/manifest.json, and a file for each database beside it.

A bucket of Google's is read and written as a stream. Other stores are reached as MLflow reaches them, which
is by files: they pass through the pod's /tmp.
"""

import io
import tempfile

# Bytes that are sent at a time; a multiple of 256 KiB, as Cloud Storage wants it.
CHUNK = 8 << 20

MANIFEST = "manifest.json"


class Bucket:
    """gs://BUCKET/PATH"""

    def __init__(self, uri: str) -> None:
        from google.auth.exceptions import DefaultCredentialsError
        from google.cloud import storage

        name, _, path = uri.removeprefix("gs://").partition("/")
        try:
            client = storage.Client()
        except DefaultCredentialsError:
            # As MLflow does.
            client = storage.Client.create_anonymous_client()
        path = path.strip("/")
        self.bucket, self.prefix = client.bucket(name), f"{path}/" if path else ""

    def blob(self, name: str):
        return self.bucket.blob(self.prefix + name, chunk_size=CHUNK)

    @contextmanager
    def write(self, name: str):
        file = self.blob(name).open("wb", ignore_flush=True)
        try:
            yield file
            file.close()
        except BaseException:
            # Closing it, as Python would, makes a whole object of a part.
            file.terminate()
            raise

    @contextmanager
    def read(self, name: str):
        with self.blob(name).open("rb", chunk_size=CHUNK) as file:
            yield file

    def names(self) -> list[str]:
        found = self.bucket.client.list_blobs(self.bucket, prefix=self.prefix)
        return [blob.name.removeprefix(self.prefix) for blob in found]

    def delete(self, name: str) -> None:
        from google.api_core.exceptions import NotFound

        try:
            self.blob(name).delete()
        except NotFound:
            pass


class Folder:
    """file:///PATH, which all pods share."""

    def __init__(self, uri: str) -> None:
        self.path = Path(uri.removeprefix("file://"))

    @contextmanager
    def write(self, name: str):
        path = self.path / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        try:
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.rename(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    @contextmanager
    def read(self, name: str):
        with open(self.path / name, "rb") as file:
            yield file

    def names(self) -> list[str]:
        return [str(path.relative_to(self.path)) for path in self.path.glob("*/*") if path.is_file()]

    def delete(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)
        try:
            (self.path / name).parent.rmdir()
        except OSError:
            pass


class Spool(io.FileIO):
    """A file in /tmp that says so when there is no room for more."""

    def __init__(self, path: Path, room: int | None) -> None:
        super().__init__(path, "w")
        self.room, self.written = room, 0

    def write(self, data: bytes) -> int:
        self.written += len(data)
        if self.room is not None and self.written > self.room:
            raise full(f"it is larger than {self.room} bytes, all that the pod's /tmp may hold")
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[super().write(rest) :]
        except OSError as error:
            raise full(error.strerror) from None
        return len(data)


def full(why: str) -> Failure:
    return Failure("room", f"the dump does not fit into the pod's /tmp: {why}", "raise scratch in deploy.toml, and deploy")


class Other:
    """Whatever else MLflow knows as an artifact store."""

    def __init__(self, uri: str, room: int | None) -> None:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        self.repository, self.room = get_artifact_repository(uri), room

    @contextmanager
    def write(self, name: str):
        folder, _, base = name.rpartition("/")
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary, base)
            with closing(Spool(path, self.room)) as file:
                yield file
            self.repository.log_artifact(str(path), folder or None)

    @contextmanager
    def read(self, name: str):
        with tempfile.TemporaryDirectory() as temporary:
            with open(self.repository.download_artifacts(name, temporary), "rb") as file:
                yield file

    def names(self) -> list[str]:
        last = lambda entry: entry.path.rstrip("/").rpartition("/")[2]
        found = []
        for folder in self.repository.list_artifacts():
            if folder.is_dir:
                found += [f"{last(folder)}/{last(file)}" for file in self.repository.list_artifacts(last(folder))]
        return found

    def delete(self, name: str) -> None:
        self.repository.delete_artifacts(name)


def place_of(uri: str, room: int | None = None) -> Bucket | Folder | Other:
    scheme = uri.partition("://")[0]
    return {"gs": Bucket, "file": Folder}[scheme](uri) if scheme in ("gs", "file") else Other(uri, room)


def manifests(place) -> tuple[list[dict], list[str]]:
    """All backups, the newest first; and the files of those that have no manifest, which are none."""
    names = place.names()
    whole = {name.partition("/")[0] for name in names if name.endswith(f"/{MANIFEST}")}
    found = [manifest(place, id) for id in sorted(whole, reverse=True)]
    return found, [name for name in names if name.partition("/")[0] not in whole]


def manifest(place, id: str) -> dict:
    with place.read(f"{id}/{MANIFEST}") as file:
        text = file.read(CHUNK)
    try:
        found = json.loads(text)
        assert found["id"] == id and found["format"] == 1 and isinstance(found["databases"], list)
        return found
    except (ValueError, KeyError, TypeError, AssertionError):
        raise Failure("damaged", f"{id}/{MANIFEST} is no manifest of a backup", "take another one: db backup") from None


def chosen(place, id: str | None) -> dict:
    """A backup by its id; the newest without one."""
    names = place.names()
    ids = sorted(name.partition("/")[0] for name in names if name.endswith(f"/{MANIFEST}"))
    if id is None and ids:
        return manifest(place, ids[-1])
    if id in ids:
        return manifest(place, id)
    what = f"there is no backup {id}" if id else "there is no backup yet"
    raise Failure("missing", what, "cargo xtask db backups lists them, db backup takes one")
