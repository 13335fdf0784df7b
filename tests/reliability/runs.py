"""A server that starts training processes quickly: it has imported everything.

Reads lines of JSON, the arguments of `scripts/train.py`; for each forks a process that
trains, and prints its number. A line "wait" prints how the last one ended.
"""

import json
import os
import sys

import jax

from cemrl_jax.commands import train


def child(arguments: list[str]) -> None:
    """Trains; never returns."""
    log = os.open(arguments.pop(0), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["scripts/train.py", *arguments]
    jax.config.update("jax_disable_most_optimizations", True)
    train.console()


def main() -> None:
    """Serves until its input ends."""
    process = 0
    for line in sys.stdin:
        request = json.loads(line)
        if request == "wait":
            answer = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        else:
            process = answer = os.fork()
            if process == 0:
                child(request)
        print(answer, flush=True)


if __name__ == "__main__":
    main()
