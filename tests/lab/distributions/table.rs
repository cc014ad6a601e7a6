//! The distributions, in the venvs that a rehearsal tries.

/// A venv, and what a rehearsal must say about it.
#[derive(Clone, Copy)]
pub(crate) struct Planned {
    pub(crate) name: &'static str,
    pub(crate) requirements: &'static str,
    /// Whether the index has its source archive, too.
    pub(crate) has_source: bool,
    /// `None` if it works on the next Python.
    pub(crate) expected: Option<Expected>,
}

/// A finding.
#[derive(Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) distribution: &'static str,
    pub(crate) kind: &'static str,
    /// A part of the detail.
    pub(crate) because: &'static str,
    /// The nearest version that works, where an index tells.
    pub(crate) works_from: Option<&'static str>,
}

const fn old(
    name: &'static str,
    requirements: &'static str,
    (distribution, kind, because): (&'static str, &'static str, &'static str),
) -> Planned {
    let expected = Some(Expected { distribution, kind, because, works_from: None });
    Planned { name, requirements, has_source: false, expected }
}

/// A version of a distribution without a wheel for the next Python, and the nearest one that has one.
const fn without_a_wheel(
    name: &'static str,
    requirements: &'static str,
    kind: &'static str,
    works_from: &'static str,
) -> Planned {
    let (distribution, because, works_from) = (name, works_from, Some(works_from));
    let expected = Some(Expected { distribution, kind, because, works_from });
    Planned { name, requirements, has_source: false, expected }
}

/// The same, with a source archive in the index, whose build fails without a compiler.
const fn unbuildable(
    name: &'static str,
    requirements: &'static str,
    works_from: &'static str,
) -> Planned {
    let because = "apt install build-essential";
    let expected = Some(Expected {
        distribution: name,
        kind: "no-wheel",
        because,
        works_from: Some(works_from),
    });
    Planned { name, requirements, has_source: true, expected }
}

/// From Python 3.11 to 3.13. Each works on 3.11: some of these versions are the last that do not work on 3.13, because
/// those that are older do not even work on 3.11.
pub(crate) const OLD_ON_3_13: [Planned; 27] = [
    // Works with the distutils of setuptools until somebody imports `django.http`.
    old("django", "django==2.2.28", ("django", "removed-module", "cgi")),
    // Its metadata is invalid, which the next pip no longer accepts.
    without_a_wheel("celery", "celery==5.0.5", "no-wheel", "5.2.7"),
    old("gunicorn", "gunicorn==19.9.0", ("gunicorn", "script", "gunicorn.six")),
    old("boto", "boto==2.49.0", ("boto", "import", "boto.vendored.six")),
    old("eventlet", "eventlet==0.33.3", ("eventlet", "import", "wrap_socket")),
    old("pyramid", "pyramid==1.10.8", ("pyramid", "removed-module", "cgi")),
    old("cherrypy", "cherrypy==18.8.0", ("cherrypy", "removed-module", "cgi")),
    old("nose", "nose==1.3.7", ("nose", "removed-module", "imp")),
    without_a_wheel("numpy", "numpy==1.24.4", "no-wheel", "2.1.0"),
    without_a_wheel("lxml", "lxml==4.9.2", "no-wheel", "5.3.0"),
    without_a_wheel("pyyaml", "pyyaml==6.0", "no-wheel", "6.0.2"),
    without_a_wheel("psycopg2-binary", "psycopg2-binary==2.9.5", "no-wheel", "2.9.10"),
    unbuildable("greenlet", "greenlet==2.0.2", "3.1.0"),
    without_a_wheel("restrictedpython", "restrictedpython==6.0", "requires-python", "7.4"),
    old("netmiko", "netmiko==4.1.0", ("netmiko", "removed-module", "telnetlib")),
    old("pyinotify", "pyinotify==0.9.6", ("pyinotify", "removed-module", "asyncore")),
    old("feedparser", "feedparser==6.0.10", ("feedparser", "removed-module", "cgi")),
    old("httpx", "httpx==0.23.0", ("httpx", "removed-module", "cgi")),
    old("tweepy", "tweepy==4.10.1", ("tweepy", "removed-module", "imghdr")),
    old("discord", "discord.py==2.3.2", ("discord-py", "removed-module", "audioop")),
    old("pydub", "pydub==0.25.1", ("pydub", "removed-module", "audioop")),
    old("yapf", "yapf==0.32.0", ("yapf", "removed-module", "lib2to3")),
    // Only a program fails.
    old("future", "future==0.18.3", ("future", "removed-module", "lib2to3")),
    old("sphinx", "sphinx==4.5.0", ("sphinx", "removed-module", "imghdr")),
    // Only a module within the package fails.
    old("pysaml2", "pysaml2==7.1.0", ("pysaml2", "removed-module", "cgi")),
    old("sqlalchemy", "sqlalchemy==2.0.20", ("sqlalchemy", "import", "TypingOnly")),
    old("fastapi", "fastapi==0.95.2 pydantic==1.10.8", ("fastapi", "import", "recursive_guard")),
];

/// From Python 3.13 to 3.14. Each works on 3.13.
pub(crate) const OLD_ON_3_14: [Planned; 11] = [
    // Everything can be imported, but no application can be made. With its contemporaries it works on 3.13.
    old(
        "flask",
        "flask==1.0.4 jinja2==3.0.3 werkzeug==1.0.1 itsdangerous==1.1.0 click==7.1.2 markupsafe==3.0.3",
        ("flask", "removed-name", "pkgutil.get_loader"),
    ),
    without_a_wheel("uvloop", "uvloop==0.21.0", "no-wheel", "0.22.1"),
    old("pyrogram", "pyrogram==2.0.106", ("pyrogram", "import", "no current event loop")),
    old("fastapi", "fastapi==0.95.2 pydantic==1.10.21", ("fastapi", "import", "infer type")),
    without_a_wheel("restrictedpython", "restrictedpython==8.0", "requires-python", "8.1"),
    without_a_wheel("pyinstaller", "pyinstaller==6.11.1", "requires-python", "6.16.0"),
    without_a_wheel("pydantic-core", "pydantic==2.10.6", "no-wheel", "2.41.5"),
    without_a_wheel("psycopg2-binary", "psycopg2-binary==2.9.10", "no-wheel", "2.9.11"),
    without_a_wheel("pyyaml", "pyyaml==6.0.2", "no-wheel", "6.0.3"),
    without_a_wheel("markupsafe", "markupsafe==3.0.2", "no-wheel", "3.0.3"),
    unbuildable("cffi", "cffi==1.17.1", "2.0.0"),
];

/// Popular distributions, pure and binary, that work on all of these versions of Python, in one venv.
pub(crate) const HEALTHY: Planned = Planned {
    name: "healthy",
    requirements: "aiohttp alembic anyio attrs babel beautifulsoup4 black boto3 cachetools celery cffi click \
                   cryptography django docutils fastapi filelock flask gevent greenlet gunicorn httptools httpx jinja2 \
                   jsonschema lxml mako markdown markupsafe marshmallow msgpack mypy numpy openpyxl orjson packaging \
                   pandas paramiko pillow prometheus-client protobuf psutil psycopg2-binary pycryptodome pydantic \
                   pygments pyjwt pymongo pymysql pytest python-dateutil python-dotenv pytz pyyaml redis requests rich \
                   ruamel.yaml sentry-sdk simplejson sqlalchemy tornado tqdm twisted typer tzdata ujson urllib3 uvicorn \
                   uvloop watchfiles websockets werkzeug whitenoise wrapt zope.interface",
    has_source: false,
    expected: None,
};
