# Run by a venv's own interpreter, as its owner. Prints one JSON line for each import that
# fails, and "done" at the end: a crash is told by its absence.
import asyncio, ctypes, importlib, importlib.metadata, json, os, sys, warnings
warnings.simplefilter("ignore")
asyncio.run(asyncio.sleep(0))
report = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what an import prints is no answer of ours


def attempt(kind, name, action):
    try:
        action()
    except SystemExit:
        pass
    except BaseException as error:
        text = "%s: %s" % (type(error).__name__, str(error).split("\n")[0][:300])
        print(json.dumps([kind, name, text]), file=report, flush=True)


def top_level(distribution):
    for file in distribution.files or []:
        first = file.parts[0]
        if first in ("..", "/", "__pycache__") or first.endswith((".dist-info", ".egg-info", ".data", ".libs", ".pth")):
            continue
        if len(file.parts) == 1:
            name, suffix = first.split(".", 1) if "." in first else (first, "")
            if suffix != "py" and not suffix.endswith("so"):
                continue
            first = name
        elif not str(file).endswith((".py", ".so")):
            continue
        if first.isidentifier():
            yield first


site = [path for path in sys.path if path.startswith(sys.prefix + os.sep) and path.endswith("site-packages")]
distributions = list(importlib.metadata.distributions(path=site))
names = sorted({name for one in distributions for name in top_level(one)} - {"distutils-precedence"})
for name in names:
    attempt("module", name, lambda: importlib.import_module(name))
for one in distributions:
    for point in one.entry_points:
        if point.group == "console_scripts":
            attempt("script", point.name, point.load)
print("done", file=report, flush=True)
os._exit(0)  # threads that an import started are not waited for
