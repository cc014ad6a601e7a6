# Run by a venv's own interpreter, as its owner. The first argument lists modules of the standard library and names in
# them (`ssl.x`) that the new Python lacks, the second what to skip; the others name modules to import. Prints one JSON
# line for each that it begins with, one for each that fails, with the distribution if it is known, and "done" at the
# end: without it, what it began with last has ended the interpreter.
import ast, asyncio, ctypes, importlib, importlib.metadata, json, os, re, signal, sys, threading, warnings
warnings.simplefilter("ignore")
# In a thread of its own: asyncio.run() takes the event loop from the thread that it runs in, and an import may ask for it.
ran = []
loop = threading.Thread(target=lambda: ran.append(asyncio.run(asyncio.sleep(0, True))))
loop.start()
loop.join()
if not ran:
    sys.exit(1)
report = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # keep what an import prints out of the report
removed, skipped, modules = [name for name in sys.argv[1].split(",") if name], json.loads(sys.argv[2]), sys.argv[3:]
failed = set()


def late(*_):
    raise TimeoutError("it did not end within 60 s")


signal.signal(signal.SIGALRM, late)


def is_removed(error):
    return isinstance(error, ImportError) and (error.name or "").split(".")[0] in removed


def cause(error):
    """The error itself, unless it replaces that about a removed module: a package may look for a substitute."""
    earlier = error
    while earlier is not None and not is_removed(earlier):
        earlier = earlier.__context__
    return earlier or error


def attempt(kind, name, action, distribution=lambda: None, counts=lambda error: True):
    if [kind, name] in skipped:
        return
    print(json.dumps(["begin", kind, name]), file=report, flush=True)
    try:
        signal.alarm(60)
        action()
    except SystemExit:
        pass
    except BaseException as error:
        error = cause(error)
        if counts(error):
            failed.add(name)
            text = "%s: %s" % (type(error).__name__, str(error).split("\n")[0][:300])
            print(json.dumps([kind, name, text, distribution()]), file=report, flush=True)
    finally:
        signal.alarm(0)


def metadata(distribution):
    try:
        return distribution.metadata
    except Exception:  # it is not UTF-8, for example
        return {}


def is_proven(distribution):
    found = metadata(distribution)
    return ["distribution", "%s==%s" % (found.get("Name"), found.get("Version"))] in skipped


# setuptools comes first: it must precede anything that imports distutils.
for name in sorted(modules, key=lambda name: name != "setuptools"):
    attempt("module", name, lambda: importlib.import_module(name))
site = [path for path in sys.path if path.startswith(sys.prefix + os.sep) and path.endswith("site-packages")]
installed = list(importlib.metadata.distributions(path=site))
for one in installed:
    points = [point for point in one.entry_points if point.group == "console_scripts"]
    if points and is_proven(one):
        continue
    for point in points:
        attempt("script", point.name, point.load, lambda: metadata(one).get("Name"))


def users(dir):
    """The modules of packages that import a removed module, unless it is in an indented line: there the package may
    do without it."""
    lost = b"(?:%s)" % "|".join(name for name in removed if "." not in name).encode()
    # Python's engine skips to a character quickly, and to the begin of a line slowly.
    imports = re.compile(rb"\n(?:from[ \t]+%s\b|import[ \t]+(?:[\w. \t]+,[ \t]*)*%s\b)" % (lost, lost))
    for path, dirs, files in os.walk(dir):
        is_package = "__init__.py" in files
        dirs[:] = sorted(name for name in dirs if name.isidentifier() and name not in ("test", "tests"))
        if path == dir or not is_package:
            dirs[:] = dirs if path == dir else []
            continue
        for file in sorted(files):
            base, extension = os.path.splitext(file)
            where = os.path.join(path, file)
            if extension == ".py" and base.isidentifier() and base not in ("__main__", "conftest", "setup"):
                if imports.search(b"\n" + content(where)):
                    yield os.path.relpath(where, dir)


def content(path):
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError:
        return b""


def asks(node, modules):
    """Whether an expression asks what this Python is or has."""
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("hasattr", "getattr") and node.args:
        return ast.unparse(node.args[0]) in modules
    return re.match("version_info$|_?(IS_)?PY", getattr(node, "attr", "") or getattr(node, "id", "")) is not None


def calls(path, names):
    """The names of the standard library in `names` that a file uses, with their lines, unless it can do without them:
    in a branch, after a question about the version, or where it catches errors."""
    found, modules = [], {name.rpartition(".")[0] for name in names}

    def visit(node, depends):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            depends = depends or any(asks(one, modules) for one in ast.walk(node))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            name = ast.unparse(node) if isinstance(node.value, (ast.Name, ast.Attribute)) else ""
            if name in names and not depends:
                found.append((name, node.lineno))
        branches = (ast.Try, ast.If, ast.IfExp, ast.BoolOp, ast.comprehension, ast.While)
        for child in ast.iter_child_nodes(node):
            visit(child, depends or isinstance(node, branches))

    try:
        tree = ast.parse(content(path))
        imported = {alias.name for one in ast.walk(tree) if isinstance(one, ast.Import) for alias in one.names}
        visit(tree, False)
    except (SyntaxError, ValueError, RecursionError):
        return []
    return [(name, line) for name, line in found if name.rpartition(".")[0] in imported]


def lacks(name):
    module, _, attribute = name.rpartition(".")
    try:
        return not hasattr(importlib.import_module(module), attribute)
    except ImportError:
        return False


def owner(where):
    """The distribution of a file. To read all lists of files takes seconds, so only failures ask."""
    if not owners:
        owners.update((str(file), metadata(one).get("Name")) for one in installed for file in one.files or [])
    return owners.get(where)


MOST, owners = 200, {}
found = [where for dir in site for where in users(dir)][:MOST] if removed else []
# What is in use, of what is installed here.
loaded = {name: getattr(module, "__file__", None) or "" for name, module in list(sys.modules.items())} if removed else {}
mine = [(name, os.path.relpath(file, dir)) for name, file in loaded.items() for dir in site
        if file.startswith(dir + os.sep) and file.endswith(".py")]
tools = ("pip", "setuptools", "pkg_resources", "_distutils_hack")
for where in found:
    parts = where[:-len(".py")].split(os.sep)
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    # A package that cannot be imported at all is reported already.
    if parts[0] not in failed and parts[0] not in tools:
        attempt("module", name, lambda: importlib.import_module(name), lambda: owner(where), is_removed)
gone = {name for name in removed if "." in name and lacks(name)}
mentions = re.compile(rb"\b(?:%s)\b" % b"|".join(re.escape(name).encode() for name in sorted(gone)))
for name, where in sorted(mine):
    if gone and name.split(".")[0] not in tools and mentions.search(content(loaded[name])):
        for used, line in calls(loaded[name], gone)[:1]:
            text = "line %d uses %s, which this Python lacks" % (line, used)
            print(json.dumps(["code", name, text, owner(where)]), file=report, flush=True)
print("done", file=report, flush=True)
os._exit(0)  # do not wait for threads that an import started
