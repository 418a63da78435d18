"""Processes for test_refresh.py.

`python tests/faults.py` imports the library once, and then forks a trainer or builder for each line
of JSON on its standard input:
{"start": "train" | "refresh", "argv": […], "log": path, "fault": …} is answered by the pid,
{"wait": pid} by the exit status."""

import json
import os
import random
import signal
import sys
import time

import realm_nb.builder.builder as builder
import realm_nb.core.files as files
import realm_nb.train as train

real_beat, real_rename, real_settle = builder.Heartbeat.beat, os.rename, files.fsync_tree


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def arm(fault: str):
    """Let this process meet `fault`: killed at a phase, before or after the n-th rename, at the
    n-th settling of files, slow, or with a clock that jumps."""
    kind, _, n = fault.partition(":")
    count = [int(n) if n.isdigit() else 1]

    def nth():
        count[0] -= 1
        return count[0] == 0

    if kind == "embedding":

        def beat(self, **facts):
            real_beat(self, **facts)
            if facts.get("phase") == "embedding":
                die()

        builder.Heartbeat.beat = beat
    elif kind == "slow":

        def beat(self, **facts):
            real_beat(self, **facts)
            if facts.get("phase") == "embedding":
                time.sleep(float(n))

        builder.Heartbeat.beat = beat
    elif kind == "settle":

        def settle(*paths):
            if nth():
                die()
            real_settle(*paths)

        files.fsync_tree = settle
    elif kind in ("before", "after"):

        def rename(a, b):
            last = os.path.exists(a) and nth()
            if last and kind == "before":
                die()
            real_rename(a, b)
            if last:
                die()

        os.rename = rename
    elif kind == "clock":
        now = time.time
        time.time = lambda: now() + random.choice((-1, 1)) * 10 ** random.randint(3, 8)


def child(job):
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if job.get("fault"):
        arm(job["fault"])
    status = {"train": train.main, "refresh": builder.main}[job["start"]](job["argv"])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    for line in iter(sys.stdin.readline, ""):
        job = json.loads(line)
        if "wait" in job:
            answer = os.waitstatus_to_exitcode(os.waitpid(job["wait"], 0)[1])
        elif not (answer := os.fork()):
            try:
                child(job)
            except BaseException as e:
                print(repr(e), file=sys.stderr, flush=True)
            os._exit(99)
        print(answer, flush=True)
