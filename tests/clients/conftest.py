"""The server of the tests runs in the project's own environment, PLAYGROUND_PYTHON; these tests in one of their own."""

import os
import subprocess

import pytest


@pytest.fixture(scope="session")
def address():
    python = os.environ.get("PLAYGROUND_PYTHON", ".venv/bin/python")
    command = [python, "-m", "tests.clients.serve"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process.stdout.readline().strip()
    process.stdin.close()
    process.wait(30)
