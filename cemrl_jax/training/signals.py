"""Reasons to stop before the last epoch: signals and the limit of time."""

import contextlib
import dataclasses
import math
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator

import numpy as np

from cemrl_jax.runtime import parallel

TIME_IS_UP = 1000
"""Stands for `train.max_hours` where other reasons are numbers of signals."""


@dataclasses.dataclass
class StopRequest:
    """Whether the run is asked to stop.

    Attributes:
      max_hours: the limit of time, 0 for none.
      signal: number of the signal that has come, or 0.
      at_once: a signal ends the process at once, since nothing would be lost.
      start: when the time began, seconds on the monotonic clock.
    """

    max_hours: float = 0.0
    signal: int = 0
    at_once: bool = True
    start: float = dataclasses.field(default_factory=time.monotonic)

    def reason(self) -> int:
        """Returns why to stop, on which all processes agree, or 0; all must call it."""
        late = 0 < self.max_hours * 3600 <= time.monotonic() - self.start
        own = self.signal or (TIME_IS_UP if late else 0)
        return int(parallel.gather(np.array(own, np.int32)).max())


def name(reason: int) -> str:
    """Returns what a person calls a reason to stop."""
    return "train.max_hours" if reason == TIME_IS_UP else signal.Signals(reason).name


def exit_code(reason: int, exit_zero: bool) -> int:
    """Returns how the process ends that was stopped for a reason.

    A time limit is the run's own wish: 0. A signal gives 128 + its number, from which
    schedulers see that the job is not finished and start it again, unless it was asked
    to end with 0.
    """
    return 0 if reason == TIME_IS_UP or exit_zero else 128 + reason


@contextlib.contextmanager
def listening(stop: StopRequest, hint: str) -> Iterator[None]:
    """Turns SIGTERM and SIGINT into requests to stop; a later one exits at once.

    What comes within a second of the first is the same request: `timeout` of GNU
    coreutils signals the process and then its group, to which it belongs.

    Python runs handlers only between two instructions of its main thread, which may
    wait for a compiled program for minutes. So a thread hears of signals by a socket.

    Args:
      stop: is told.
      hint: is printed where the process exits at once: how to go on.
    """
    hears, tells = socket.socketpair()
    tells.setblocking(False)
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    old_fd = signal.set_wakeup_fd(tells.fileno(), warn_on_full_buffer=False)
    for number in _SIGNALS:
        signal.signal(number, lambda *_: None)
    thread = threading.Thread(target=_listen, args=(hears, stop, hint), daemon=True)
    thread.start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(old_fd)
        tells.close()
        thread.join()
        hears.close()


_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_ONE_REQUEST_SECONDS = 1.0


def _listen(hears: socket.socket, stop: StopRequest, hint: str) -> None:
    since = -math.inf
    while numbers := hears.recv(1):
        number = numbers[0]
        if number not in _SIGNALS or time.monotonic() < since + _ONE_REQUEST_SECONDS:
            continue
        if stop.at_once or stop.signal:
            print(f"\n{name(number)}: stopped at once; {hint}", flush=True)
            sys.stderr.flush()
            os._exit(128 + number)
        stop.signal = number
        since = time.monotonic()
        print(
            f"\n{name(number)}: the running phase ends, then the run is saved; once"
            " more to exit at once",
            flush=True,
        )
