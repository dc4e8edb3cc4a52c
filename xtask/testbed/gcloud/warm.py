"""gcloud without its start: its modules are loaded once, and each call is a fork of that.

`warm.py SOCKET` serves calls until stdin ends; `warm.py` under the name `gcloud` makes one. What is run is
the gcloud that is installed, with the caller's arguments, environment, folder and streams.
"""

import array
import importlib
import json
import os
import select
import signal
import socket
import sys

STREAMS = 3


def call(path):
    """One call; gives gcloud's exit code."""
    server = socket.socket(socket.AF_UNIX)
    server.connect(path)
    said = json.dumps({"args": sys.argv[1:], "env": dict(os.environ), "dir": os.getcwd()}).encode()
    socket.send_fds(server, [len(said).to_bytes(4, "big")], range(STREAMS))
    server.sendall(said)
    answer = server.recv(1)
    return answer[0] if answer else 1


def receive(client):
    """What is asked for, and the caller's streams."""
    head, streams, _, _ = socket.recv_fds(client, 4, STREAMS)
    size, said = int.from_bytes(head, "big"), b""
    while len(said) < size:
        part = client.recv(size - len(said))
        if not part:
            os._exit(1)
        said += part
    return json.loads(said), streams


def work(asked, streams, learned):
    """Becomes gcloud. Tells which modules it had to load."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(asked["env"])
    os.chdir(asked["dir"])
    sys.argv = ["gcloud"] + asked["args"]
    known, code = set(sys.modules), 1
    try:
        import googlecloudsdk.gcloud_main as gcloud

        code = gcloud.main() or 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        names = [name for name in sys.modules if name not in known and "surface" not in name]
        # Whole or not at all, so that calls side by side do not mix.
        for at in range(0, len(names), 32):
            os.write(learned, ("\n".join(names[at : at + 32]) + "\n").encode()[: select.PIPE_BUF])
        os._exit(code)


def serve_one(client, learned):
    """A process for each call, which ends it when the caller is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    asked, streams = receive(client)
    # Its other end is the worker's alone, and closes with it.
    ended, alive = os.pipe()
    worker = os.fork()
    if worker == 0:
        client.close()
        work(asked, streams, learned)
    for number in [alive, *streams]:
        os.close(number)
    ready, _, _ = select.select([ended, client], [], [])
    if ended not in ready:
        os.kill(worker, signal.SIGKILL)
    _, status = os.waitpid(worker, 0)
    try:
        client.send(bytes([os.waitstatus_to_exitcode(status) & 255]))
    except OSError:
        pass  # The caller is gone.
    os._exit(0)


def load(names):
    """Loads what a call had to load, for the next ones."""
    for name in names:
        try:
            importlib.import_module(name)
        except Exception:
            pass


def serve(path):
    """Serves calls until stdin ends."""
    lib = os.path.join(os.environ["CLOUDSDK_ROOT_DIR"], "lib")
    sys.path[:0] = [os.path.join(lib, "third_party"), lib]
    importlib.import_module("googlecloudsdk.gcloud_main")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    told, learned = os.pipe()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([0, listener, told], [], [])
        if 0 in ready:
            return
        if told in ready:
            load(os.read(told, 65536).decode().split("\n"))
        if listener in ready:
            client, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                serve_one(client, learned)
            client.close()


if os.path.basename(sys.argv[0]) == "gcloud":
    sys.exit(call(os.environ["TESTBED_GCLOUD"]))
serve(sys.argv[1])
