"""answers.py KEYS COMMAND...: runs a command at a pseudo-terminal and answers its questions.

Answers apt's own question with yes, and venvguard's with one key after the other: `d,c`. `^C` is
Ctrl-C, `^D` the end of input, and nothing leaves the question without an answer. `skip` and `stop`
are Enter and Ctrl-C in a rehearsal before the next question. Prints what a person would read; exits
as the command does.
"""

import os
import pty
import sys

APT, OURS = b"[Y/n] ", (b"[C/a/h/r/d] ", b"[c/A/h/r/d] ")
SKIP = b"press Enter to skip this"
CONTROL = {"^C": b"\x03", "^D": b"\x04"}
REHEARSAL = {"skip": b"\n", "stop": b"\x03"}

keys = [*sys.argv[1].split(","), ""]
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[2], sys.argv[2:])
fresh = b""
while True:
    try:
        data = os.read(terminal, 4096)
    except OSError:  # The last program has closed the terminal.
        break
    if not data:
        break
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
    fresh += data
    if fresh.endswith(APT):
        os.write(terminal, b"y\n")
        fresh = b""
    elif SKIP in fresh and keys[0] in REHEARSAL:
        os.write(terminal, REHEARSAL[keys.pop(0)])
    elif fresh.endswith(OURS):
        key = keys.pop(0) if keys[0] else ""
        if key:
            os.write(terminal, CONTROL.get(key, key.encode() + b"\n"))
        fresh = b""
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
