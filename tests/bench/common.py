"""What the benchmarks of whole processes have in common."""

import os
import re
import signal
import statistics
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("FLOWTAP_CACHE", Path.home() / ".cache/flowtap"))
TICKS = os.sysconf("SC_CLK_TCK")


def pinned(core, command):
    return ["taskset", "-c", str(core)] + [str(word) for word in command]


class Child:
    """A child process with its log; killed with its group at the end."""

    def __init__(self, command, log, env=None):
        self.log = open(log, "wb")
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            # The agent takes every FLOWTAP_* variable for a key of its own.
            env=env or {name: value for name, value in os.environ.items() if name != "FLOWTAP_CACHE"},
            start_new_session=True)
        self.pid = self.process.pid

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def children(pid):
    """A process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += children(int(child))
    return found


def cpu_seconds(pid):
    total = 0
    for each in children(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def peak_kib(pid):
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


def median(values):
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None
