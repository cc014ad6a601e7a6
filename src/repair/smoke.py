# Run by a venv's own interpreter, as its owner, with the names of modules. Prints one JSON line for each import that
# fails, with the distribution of a script, and "done" at the end: without it, the interpreter has crashed.
import asyncio, ctypes, importlib, importlib.metadata, json, os, sys, warnings
warnings.simplefilter("ignore")
asyncio.run(asyncio.sleep(0))
report = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # keep what an import prints out of the report


def attempt(kind, name, action, distribution=None):
    try:
        action()
    except SystemExit:
        pass
    except BaseException as error:
        text = "%s: %s" % (type(error).__name__, str(error).split("\n")[0][:300])
        print(json.dumps([kind, name, text, distribution]), file=report, flush=True)


# setuptools comes first: it must precede anything that imports distutils.
for name in sorted(sys.argv[1:], key=lambda name: name != "setuptools"):
    attempt("module", name, lambda: importlib.import_module(name))
site = [path for path in sys.path if path.startswith(sys.prefix + os.sep) and path.endswith("site-packages")]
for one in importlib.metadata.distributions(path=site):
    for point in one.entry_points:
        if point.group == "console_scripts":
            attempt("script", point.name, point.load, one.metadata["Name"])
print("done", file=report, flush=True)
os._exit(0)  # do not wait for threads that an import started
