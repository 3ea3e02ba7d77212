"""Starts the processes of a row on free ports of 127.0.0.1, waits until they are ready, and stops them by pid."""

import os
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

HOST = "127.0.0.1"
READY_SECONDS = 30


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def children_of(pid):
    """The pid and the pids of its children, for example nginx's workers."""
    pids = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            pids += children_of(int(child))
    return pids


class Stack:
    """The processes of one row, stopped in reverse order. Their logs are in `logs`."""

    def __init__(self, logs):
        self.logs = Path(logs)
        self.logs.mkdir(parents=True, exist_ok=True)
        self.children = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for child in reversed(self.children):
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
                # A second SIGTERM makes Runnel's processes stop immediately; a process that ignores both is killed.
                for end in (lambda c: c.send_signal(signal.SIGTERM), lambda c: c.kill()):
                    try:
                        child.wait(2)
                        break
                    except subprocess.TimeoutExpired:
                        end(child)
                child.wait()

    def start(self, name, args, port, admin=None, env=None, seconds=READY_SECONDS):
        """Starts a process and waits until it listens on `port` and, given an admin port, is ready, but at most so many
        seconds. Returns its pid."""
        with open(self.logs / f"{name}.log", "ab") as log:
            child = subprocess.Popen(
                [str(arg) for arg in args], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=os.environ | (env or {}))
        self.children.append(child)
        deadline = time.monotonic() + seconds
        while not (self._listens(port) and (admin is None or self._is_ready(admin))):
            if child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not become ready, see {self.logs / name}.log")
            time.sleep(0.02)
        return child.pid

    @staticmethod
    def _listens(port):
        with socket.socket() as probe:
            return probe.connect_ex((HOST, port)) == 0

    @staticmethod
    def _is_ready(admin):
        try:
            with urllib.request.urlopen(f"http://{HOST}:{admin}/readyz", timeout=1) as response:
                return response.status == 200
        except OSError:
            return False
