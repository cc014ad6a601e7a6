"""Exchanges two names again and again until it is killed: `flip.py ONE OTHER PAUSE`. Between exchanges it waits for a random
time: up to PAUSE seconds with the names in order, and only shortly with the names exchanged, so that a single look sees
nothing wrong."""

import ctypes
import random
import sys
import time

AT_FDCWD, RENAME_EXCHANGE = -100, 2
one, other = (name.encode() for name in sys.argv[1:3])
pause = float(sys.argv[3])
exchange = ctypes.CDLL(None).renameat2
while True:
    exchange(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE)
    time.sleep(random.random() * min(pause, 0.0005))
    exchange(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE)
    time.sleep(random.random() * pause)
