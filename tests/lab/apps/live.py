"""A service that keeps its data inside its venv, and a check that none of that data is lost.

    live.py serve VENV               write without a pause, and acknowledge each write outside of the venv
    live.py verify VENV [TREE...]    compare the records with the venv, and with these previous environments of it

A line of the records is KIND NUMBER TREE: the kind of data, and the inode of the tree at the venv's path at that time.
"""

import collections
import itertools
import json
import os
import shutil
import signal
import sqlite3
import stat
import sys
import tempfile
import threading
import time

RECORDS = "/var/lib/live/acknowledged"
# The tree of a write that failed.
NO_TREE = 0
# More bytes than SQLite may cache, so that it writes into the database long before the transaction ends.
ACCOUNTS, PADDING, CACHE_PAGES = 200, 1000, 4
# The parts of a transaction, and the pause after each.
PARTS, PAUSE = 4, 0.04
# The number of files in the spool.
WAITING = 20


class Service:
    """Writes a database, a log, a spool and uploads, until SIGTERM."""

    def __init__(self, venv):
        self.venv = venv
        self.ends = False
        known = [int(number) for _, number, _ in read_records()]
        # A number that an earlier service used without a record is not used again.
        self.numbers = itertools.count(max(known, default=0) + 1000)
        self.records = os.open(RECORDS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.waiting = collections.deque(sorted(numbers_of("spooled") - numbers_of("deleting")))
        # Like most services, it keeps its log open, and opens everything else by its path.
        self.log = open(self.path("log"), "ab")
        self.unflushed = []
        self.acknowledge("started", next(self.numbers), self.tree())

    def path(self, *parts):
        path = os.path.join(self.venv, "var", *parts)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def tree(self):
        return os.stat(self.venv).st_ino

    def acknowledge(self, kind, number, tree):
        os.write(self.records, b"%s %d %d\n" % (kind.encode(), number, tree))

    def serve(self):
        signal.signal(signal.SIGTERM, self.end)
        database = threading.Thread(target=self.repeat, args=(self.transaction, 0.02))
        database.start()
        works = (self.line, self.spool, self.upload)
        for turn in itertools.count():
            if self.ends:
                break
            self.attempt(works[turn % len(works)])
            time.sleep(0.005)
        database.join()
        self.attempt(self.flush)
        self.attempt(self.last_words)

    def end(self, *_):
        self.ends = True

    def repeat(self, work, pause):
        while not self.ends:
            self.attempt(work)
            time.sleep(pause)

    def attempt(self, work):
        """A failed write is not acknowledged, and is tried again like any request."""
        try:
            work()
        except (OSError, sqlite3.Error) as error:
            print("%s: %s" % (work.__name__, error), file=sys.stderr, flush=True)
            self.acknowledge("refused", next(self.numbers), NO_TREE)
            time.sleep(0.02)

    def transaction(self):
        number, tree = next(self.numbers), self.tree()
        database = connect(self.path("app.db"))
        try:
            database.execute("BEGIN IMMEDIATE")
            make_tables(database)
            for part in range(PARTS):
                database.execute(
                    "UPDATE accounts SET generation = ?, padding = ? WHERE id % ? = ?",
                    (number, padding(number), PARTS, part),
                )
                if not self.ends:
                    time.sleep(PAUSE)
            database.execute("INSERT INTO transactions VALUES (?)", (number,))
            database.execute("COMMIT")
        finally:
            database.close()
        self.acknowledge("row", number, tree)

    def line(self):
        number = next(self.numbers)
        self.log.write(b"%d\n" % number)
        self.unflushed.append(number)
        if len(self.unflushed) == 10:
            self.flush()

    def flush(self):
        tree = self.tree()
        self.log.flush()
        for number in self.unflushed:
            self.acknowledge("line", number, tree)
        self.unflushed = []

    def upload(self):
        number, tree = next(self.numbers), self.tree()
        partial, path = self.path("uploads", "%d.partial" % number), self.path("uploads", str(number))
        write(partial, number)
        os.rename(partial, path)
        self.acknowledge("upload", number, tree)

    def spool(self):
        number, tree = next(self.numbers), self.tree()
        write(self.path("spool", str(number)), number)
        self.acknowledge("spooled", number, tree)
        self.waiting.append(number)
        if len(self.waiting) > WAITING:
            number, tree = self.waiting.popleft(), self.tree()
            self.acknowledge("deleting", number, tree)
            os.unlink(self.path("spool", str(number)))
            self.acknowledge("deleted", number, tree)

    def last_words(self):
        number, tree = next(self.numbers), self.tree()
        write(self.path("last-words", str(number)), number)
        self.acknowledge("last-words", number, tree)


def connect(path):
    database = sqlite3.connect(path, timeout=30, isolation_level=None)
    database.execute("PRAGMA cache_size = %d" % CACHE_PAGES)
    # This test cuts no power, and other tests need the disk.
    database.execute("PRAGMA synchronous = OFF")
    return database


def make_tables(database):
    database.execute("CREATE TABLE IF NOT EXISTS transactions (number INTEGER PRIMARY KEY)")
    database.execute("CREATE TABLE IF NOT EXISTS accounts (id INTEGER PRIMARY KEY, generation, padding)")
    if database.execute("SELECT count(*) FROM accounts").fetchone() == (0,):
        rows = [(number, 0, padding(0)) for number in range(ACCOUNTS)]
        database.executemany("INSERT INTO accounts VALUES (?, ?, ?)", rows)


def padding(number):
    return "%*d" % (PADDING, number)


def write(path, number):
    with open(path, "wb") as file:
        file.write(b"%d\n" % number)


def read_records():
    try:
        with open(RECORDS) as records:
            return [line.split() for line in records]
    except FileNotFoundError:
        return []


def numbers_of(kind):
    return {int(number) for one, number, _ in read_records() if one == kind}


# The kinds of records whose data must be in a tree, and their names in the report.
HELD = {"row": "rows", "line": "lines", "upload": "uploads", "spooled": "spooled", "last-words": "last words"}


class Verification:
    def __init__(self, venv, trees):
        # Read the records first: everything that they acknowledge is in the trees already.
        self.records = [(kind, int(number), int(tree)) for kind, number, tree in read_records()]
        self.wrong = []
        self.current = os.stat(venv).st_ino
        self.reported = {os.stat(tree).st_ino for tree in trees}
        self.venv = self.content(venv, connect)
        self.previous = [self.content(tree, connect_to_copy) for tree in trees]
        # Read these last, to leave out files that the service has begun to delete in the meantime.
        self.deleting = numbers_of("deleting")

    def content(self, tree, connect_to):
        """The numbers of each kind in a tree."""
        def file_numbers(directory):
            path = os.path.join(tree, "var", directory)
            names = os.listdir(path) if os.path.isdir(path) else []
            found = set()
            for name in names:
                if not name.isdigit():
                    continue
                try:
                    with open(os.path.join(path, name), "rb") as file:
                        content = file.read()
                except FileNotFoundError:
                    # The service has deleted the file since.
                    continue
                # The service may be writing a spooled file.
                if content == b"%s\n" % name.encode() or directory == "spool":
                    found.add(int(name))
                else:
                    self.wrong.append("%s/%s in %s holds %r" % (directory, name, tree, content))
            return found

        return {
            "row": self.rows(os.path.join(tree, "var", "app.db"), connect_to),
            "line": self.lines(os.path.join(tree, "var", "log")),
            "upload": file_numbers("uploads"),
            "spooled": file_numbers("spool"),
            "last-words": file_numbers("last-words"),
        }

    def rows(self, path, connect_to):
        if not os.path.exists(path):
            return set()
        database = connect_to(path)
        try:
            database.execute("BEGIN")
            (said,) = database.execute("PRAGMA integrity_check").fetchone()
            if said != "ok":
                self.wrong.append("%s: integrity_check: %s" % (path, said))
            if database.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
                return set()
            rows = {number for (number,) in database.execute("SELECT number FROM transactions")}
            accounts = dict(database.execute("SELECT generation, count(*) FROM accounts GROUP BY generation"))
            if accounts != {max(rows, default=0): ACCOUNTS}:
                self.wrong.append(
                    "%s: torn: the last transaction is %d, but the accounts are from %r"
                    % (path, max(rows, default=0), accounts)
                )
            return rows
        except sqlite3.Error as error:
            self.wrong.append("%s: %s" % (path, error))
            return set()
        finally:
            database.close()

    def lines(self, path):
        try:
            with open(path, "rb") as file:
                # The service is writing the text after the last line break.
                lines = file.read().split(b"\n")[:-1]
        except FileNotFoundError:
            return set()
        odd = [line for line in lines if not line.isdigit()]
        if odd:
            self.wrong.append("%s: torn lines: %r" % (path, odd[:3]))
        return {int(line) for line in lines if line.isdigit()}

    def verify(self):
        acknowledged = {kind: set() for kind in (*HELD, "deleting", "deleted", "refused", "started")}
        for kind, number, _ in self.records:
            acknowledged[kind].add(number)
        counts = {"deletions": len(acknowledged["deleted"]), "refused": len(acknowledged["refused"])}
        for kind, name in HELD.items():
            counts[name] = len(acknowledged[kind])
            wanted = acknowledged[kind] - self.deleting
            missing = wanted - self.venv[kind]
            lost = missing.difference(*(tree[kind] for tree in self.previous))
            counts[name + " elsewhere"] = len(missing) - len(lost)
            self.none_of(lost, "%s of %d: lost" % (name, len(wanted)))
        self.none_of(self.undeleted(), "files of the spool: deleted, and back again")
        self.none_of(self.silent(), "services that ended without last words")
        counts["wrong"] = self.wrong
        return counts

    def none_of(self, numbers, what):
        if numbers:
            some = ", ".join(str(number) for number in sorted(numbers)[:5])
            self.wrong.append("%d %s: %s…" % (len(numbers), what, some))

    def undeleted(self):
        """The deleted files that the venv holds again. If a file was deleted in a tree that the venv does not descend from,
        it may return with an earlier tree, as after a rollback; but that other tree must then be reported.
        """
        lineage = self.lineage()
        undeleted = set()
        for place, (kind, number, tree) in enumerate(self.records):
            if kind == "deleted" and number in self.venv["spooled"]:
                if place < lineage.get(tree, 0) or tree not in self.reported:
                    undeleted.add(number)
        return undeleted

    def lineage(self):
        """The trees that the venv descends from, each with the place in the records up to which it inherits. A new tree
        is made from the one that was the venv before it."""
        parents, previous = {}, None
        for place, (_, _, tree) in enumerate(self.records):
            if tree != NO_TREE and tree != previous:
                parents.setdefault(tree, (previous, place))
                previous = tree
        tree, until = self.current, len(self.records)
        # Nothing has been written into it yet.
        parents.setdefault(tree, (previous, until))
        lineage = {}
        while tree is not None:
            lineage[tree] = until
            tree, until = parents[tree]
        return lineage

    def silent(self):
        silent, last = set(), None
        for kind, number, _ in self.records:
            if kind == "started":
                if last is not None:
                    silent.add(last)
                last = number
            elif kind == "last-words":
                last = None
        return silent


def connect_to_copy(path):
    """Opens a copy of a previous environment's database, because SQLite would play back the journal of the original."""
    directory = tempfile.mkdtemp()
    for ending in ("", "-journal"):
        if os.path.exists(path + ending) and stat.S_ISREG(os.stat(path + ending).st_mode):
            shutil.copy(path + ending, os.path.join(directory, "app.db" + ending))
    database = sqlite3.connect(os.path.join(directory, "app.db"), isolation_level=None)
    # Read all of it now, so that the copy can be removed.
    memory = sqlite3.connect(":memory:", isolation_level=None)
    try:
        database.backup(memory)
    finally:
        database.close()
        shutil.rmtree(directory)
    return memory


def main():
    command, venv, *trees = sys.argv[1:]
    if command == "serve":
        Service(venv).serve()
    else:
        counts = Verification(venv, trees).verify()
        print(json.dumps(counts))
        sys.exit(bool(counts["wrong"]))


main()
