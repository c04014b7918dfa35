"""Models by their name on the Hugging Face hub, against a stand-in for it on this machine, and without any hub."""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import tiny_folder

from rljax.errors import UserError
from rljax.text import resolve_folder

COMMITS = {"main": "a" * 40, "v1": "b" * 40}
NOT_READ = ("tokenizer.model", "pytorch_model.bin", "README.md", "original/config.json", "consolidated.safetensors")
SCRIPT = """
import json, sys
from rljax import pretrained
from rljax.errors import UserError
from rljax.text.hf_tokenizer import load_tokenizer
try:
    folder = pretrained.resolve_folder(sys.argv[1])
    files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    config, params, tokenizer = pretrained.load(sys.argv[1])
    same = pretrained.read_config(sys.argv[1]) == config and load_tokenizer(sys.argv[1]) == tokenizer
    print(json.dumps({"folder": str(folder), "files": files, "vocab": config.vocab_size, "same": same}))
except UserError as e:
    print(json.dumps({"error": str(e)}))
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """The three requests that a download makes: a revision's commit, its list of files, and each file."""

    folder: Path  # the files of org/tiny
    asked: list[str]

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.asked.append(f"{self.command} {path}")
        api, repo = "/api/models/org/tiny/", "/org/tiny/resolve/"
        if path.startswith(api + "revision/") and path.removeprefix(api + "revision/") in COMMITS:
            self.answer(
                json.dumps({"id": "org/tiny", "sha": COMMITS[path.rpartition("/")[2]], "siblings": []}).encode()
            )
        elif path.startswith(api + "tree/"):
            files = [p for p in sorted(self.folder.rglob("*")) if p.is_file()]
            listed = [
                {"type": "file", "path": str(p.relative_to(self.folder)), "size": p.stat().st_size, "oid": f"{n:040x}"}
                for n, p in enumerate(files)
            ]
            self.answer(json.dumps(listed).encode())
        elif path.startswith(repo):
            commit, _, name = path.removeprefix(repo).partition("/")
            headers = {"X-Repo-Commit": commit, "ETag": f'"{name.encode().hex()[-40:]:0>40}"'}
            self.answer((self.folder / name).read_bytes(), headers)
        else:
            code = "RevisionNotFound" if path.startswith(api) else "RepoNotFound"
            self.answer(b"{}", {"X-Error-Code": code}, 404)

    do_HEAD = do_GET

    def answer(self, body, headers=None, status=200):
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """(address of the stand-in, the requests that it got)."""
    folder = tiny_folder.make(tmp_path_factory.mktemp("hub") / "tiny")
    for name in NOT_READ:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    (folder / "chat_template.jinja").write_text(tiny_folder.CHAT)
    asked: list[str] = []
    handler = type("TinyHub", (Hub,), {"folder": folder, "asked": asked})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def ask(name, home, endpoint="http://127.0.0.1:9", **environment):
    """What a process of its own finds under a name: huggingface_hub reads its environment once, when it is imported."""
    settings = {
        "HF_HOME": str(home),
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("HF_") and not k.lower().endswith("_proxy")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, name],
        env=inherited | settings | environment,
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_model_is_downloaded_by_its_name_once_and_then_found_without_the_hub(hub, tmp_path):
    endpoint, asked = hub
    first = ask("org/tiny", tmp_path, endpoint)
    assert first["vocab"] == 320 and first["same"] and first["folder"].startswith(str(tmp_path))
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= set(first["files"])
    assert not set(NOT_READ) & set(first["files"]) and not any(a.endswith(NOT_READ) for a in asked)
    assert sum(a.startswith("GET") and a.endswith("model.safetensors") for a in asked) == 1
    before = len(asked)
    assert ask("org/tiny", tmp_path) == ask("org/tiny", tmp_path, endpoint, HF_HUB_OFFLINE="1") == first
    assert len(asked) == before


def test_a_revision_is_named_after_an_at_sign(hub, tmp_path):
    endpoint, _ = hub
    assert ask("org/tiny@v1", tmp_path, endpoint)["folder"].endswith(COMMITS["v1"])
    assert "org/tiny@v2, and it could not be fetched" in ask("org/tiny@v2", tmp_path, endpoint)["error"]


def test_an_unknown_name_and_a_missing_network_are_one_line_each(hub, tmp_path):
    endpoint, _ = hub
    unknown, unreachable = ask("org/other", tmp_path, endpoint), ask("org/other", tmp_path)
    offline = ask("org/other", tmp_path, HF_HUB_OFFLINE="1")
    start = "there is no folder org/other, and it could not be fetched from the Hugging Face hub"
    for found in (unknown, unreachable, offline):
        assert found["error"].startswith(start) and "\n" not in found["error"]
    assert "404" in unknown["error"] and "refused" in unreachable["error"] and "HF_HUB_OFFLINE" in offline["error"]


def test_a_folder_is_itself_and_what_cannot_be_a_name_asks_no_hub(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # an import of it would fail
    assert resolve_folder(tmp_path) == resolve_folder(str(tmp_path)) == tmp_path
    for name in ("nowhere", "/no/where", "./no/where", "a b/c", "one/two/three", ""):
        with pytest.raises(
            UserError, match="there is no folder .*: give the folder of a Hugging Face model, or its name"
        ):
            resolve_folder(name or "~/nowhere/at/all")
