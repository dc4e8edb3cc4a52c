"""Reading a dump: its bytes from where it lies, through pg_restore, as statements and rows.

pg_restore is not let near the database: what it makes of the archive is sent from here, so that dropping what
was there, loading, and comparing are one transaction.
"""

import hashlib
import threading

# The statement before a table's rows, as pg_restore writes it, and what ends them.
COPY = re.compile(rb'COPY (?:"(?:[^"]|"")+"|[^ ."]+)\.("(?:[^"]|"")+"|[^ ."]+) \(.*\) FROM stdin;\n\Z')
END_OF_ROWS = b"\\.\n"


class Archive:
    """A dump under way through pg_restore. Only after `close` is known whether it was whole."""

    def __init__(self, place, name: str, entry: dict) -> None:
        self.place, self.name, self.entry = place, name, entry
        self.hash, self.bytes, self.error, self.stopped = hashlib.sha256(), 0, None, False
        self.complaints = tempfile.TemporaryFile()
        options = ["--format=custom", "--no-owner", "--no-privileges", f"--schema={entry['schema']}", "--file=-"]
        self.process = subprocess.Popen(
            [tool("pg_restore"), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.complaints,
            bufsize=1 << 20,
        )
        self.thread = threading.Thread(target=self.feed, daemon=True)
        self.thread.start()

    def feed(self) -> None:
        takes = True
        try:
            with self.place.read(self.name) as file:
                while not self.stopped and (chunk := file.read(CHUNK)):
                    self.hash.update(chunk)
                    self.bytes += len(chunk)
                    if takes:
                        try:
                            self.process.stdin.write(chunk)
                        except BrokenPipeError:
                            # It has seen enough; the rest counts for the digest.
                            takes = False
        except Exception as error:
            self.error = error
        finally:
            try:
                self.process.stdin.close()
            except BrokenPipeError:
                pass

    def close(self) -> None:
        """Waits for its end, and compares what was read with the manifest."""
        code = self.process.wait()
        self.thread.join()
        if self.error is not None:
            raise self.error
        self.complaints.seek(0)
        words = self.complaints.read().decode(errors="replace").strip().replace("\n", "; ")
        for what, found in (("bytes", self.bytes), ("sha256", self.hash.hexdigest())):
            if found != self.entry[what]:
                raise damaged(self.name, f"{what} {found}, not {self.entry[what]}")
        if code:
            raise damaged(self.name, f"pg_restore: {words or f'exit code {code}'}")

    def stop(self) -> None:
        self.stopped = True
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.thread.join()
        self.complaints.close()


def damaged(name: str, why: str) -> Failure:
    return Failure("damaged", f"{name} is not what was written: {why}", "take another backup: cargo xtask db backup")


class Short(Failure):
    """pg_restore ended within a table."""


class Rows:
    """The rows of one table, as a file."""

    def __init__(self, archive: Archive) -> None:
        self.archive, self.count, self.ended, self.error = archive, 0, False, None

    def read(self, size: int = CHUNK) -> bytes:
        lines, length = [], 0
        while length < size and not self.ended:
            line = self.archive.process.stdout.readline()
            if line == END_OF_ROWS:
                self.ended = True
            elif not line.endswith(b"\n"):
                self.ended = True
                self.error = Short("damaged", f"{self.archive.name} ends within a table")
                raise self.error
            else:
                self.count += 1
                length += len(line)
                lines.append(line)
        return b"".join(lines)


def load(archive: Archive, execute, copy) -> dict[str, int]:
    """Gives statements to `execute` and tables to `copy`. How many rows each table had."""
    statements, rows = [], {}
    while line := archive.process.stdout.readline():
        found = COPY.match(line)
        # A word to psql, which this is not.
        if line.startswith((b"\\restrict ", b"\\unrestrict ")):
            continue
        if not found:
            statements.append(line)
            continue
        execute(b"".join(statements))
        statements.clear()
        table = Rows(archive)
        try:
            copy(line.rstrip(b"\n;"), table)
        except Exception as error:
            # The driver tells another error than that of what it reads.
            raise table.error or error
        name = found[1].decode()
        name = name[1:-1].replace('""', '"') if name.startswith('"') else name
        rows[name] = rows.get(name, 0) + table.count
    execute(b"".join(statements))
    return rows


def read(place, id: str, entry: dict, execute, copy) -> None:
    """Reads a whole dump and compares it with its manifest: digest, length, rows of each table."""
    archive = Archive(place, f"{id}/{entry['file']}", entry)
    try:
        try:
            rows = load(archive, execute, copy)
        except Short:
            # Why, is known now.
            archive.close()
            raise
        archive.close()
        same(archive.name, rows, entry)
    finally:
        archive.stop()


def same(what: str, found: dict[str, int], entry: dict) -> None:
    """Refuses tables that are not those of the manifest, or have other rows."""
    wanted = entry["tables"]
    if found != wanted:
        names = sorted(name for name in found | wanted if found.get(name) != wanted.get(name))
        told = [f"{name}: {found.get(name, 'no')} rows, not {wanted.get(name, 'none')}" for name in names[:5]]
        raise Failure("damaged", f"{what} differs from the manifest: {'; '.join(told)}")


def verify(place, found: dict) -> None:
    """Reads a backup back whole. No database is asked."""

    def drain(_, table: Rows) -> None:
        while table.read():
            pass

    for entry in found["databases"]:
        say(f"reading {found['id']}/{entry['file']}")
        read(place, found["id"], entry, lambda _: None, drain)
