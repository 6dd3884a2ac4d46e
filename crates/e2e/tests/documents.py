"""Runs the code blocks of the documents as a reader would, one after the other, against the real binary.

A block of `sh` runs in bash; `modelway serve` and `modelway up` go on in the background, as in another terminal, until
the next one. A block whose first line is a comment with a path, `# writer/model.py`, is that file. The `json` that
follows a block of `sh` is its last answer. Blocks of `python` share their names; `value  # 'good'` is checked. `toml` is
read as the server's settings. A comment before a block says what is different about it:

    <!-- not run: why -->       it is only checked for its syntax
    <!-- instead: commands -->  these run in its place
    <!-- ends with 1 -->        its exit status
    <!-- after: commands -->    these run before it
    <!-- takes long: why -->    it runs in the long tier only
    <!-- needs MLflow -->       the same, with a tracking server that has the models of `documents_mlflow.py`
    <!-- needs MLflow: NAME --> the same, with the newest version of model NAME served

    documents.py [--long] CHECKOUT DOCUMENT...
"""

import ast
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import traceback
import urllib.request
from pathlib import Path

import yaml

BLOCK = re.compile(r"(?:<!-- (?P<mark>[^>]*) -->\n\n?)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.M | re.S)
FILE = re.compile(r"# ([\w./-]+\.(?:py|pbtxt|txt|yaml|toml))\n")
# What a reader's machine sets for all programs: how the package index is reached, and where ONNX Runtime is.
KEPT = re.compile(r"(ORT|UV|PIP|SSL_CERT)_\w+$|LANG$|(https?|no)_proxy$", re.I)
PRELUDE = r"""
set -euo pipefail
curl() { command curl --fail-with-body --silent --show-error --max-time 60 "$@"; }
modelway() {
    case "${1-}" in
    serve | up)
        case " $* " in *" --dump-config "*) command modelway "$@"; return ;; esac
        end_server
        if [ "$1" = serve ]; then export MODELWAY__SERVE__PORT=$SERVE_PORT; fi
        command modelway "$@" >>server.log 2>&1 &
        echo $! >server.pid
        unset MODELWAY__SERVE__PORT
        case " $* " in *" --port "*) port="$* "; port=${port##*--port }; port=${port%% *} ;; *) port=$SERVE_PORT ;; esac
        until command curl -fs -o /dev/null "http://127.0.0.1:$port/v2/health/ready"; do
            kill -0 "$(cat server.pid)" || { cat server.log; return 1; }
            sleep 0.05
        done ;;
    *) command modelway "$@" ;;
    esac
}
end_server() {
    if [ -f server.pid ]; then
        kill -INT "$(cat server.pid)" 2>/dev/null || true
        while kill -0 "$(cat server.pid)" 2>/dev/null; do sleep 0.02; done
        rm server.pid
    fi
}
"""


def main():
    arguments = sys.argv[1:]
    long = "--long" in arguments
    checkout, *documents = [word for word in arguments if word != "--long"]
    failed = 0
    for document in documents:
        with Reader(Path(checkout), long) as reader:
            failed += reader.read(Path(checkout, document))
    return 1 if failed else 0


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


class Reader:
    """A reader of one document: an empty home, a folder with the models that the documents speak of, free ports."""

    def __init__(self, checkout, long):
        self.long, self.checkout = long, checkout
        self.place = Path(tempfile.mkdtemp(prefix="modelway-documents-"))
        self.folder = self.place / "work"
        cache = Path(os.environ["MODELWAY_CACHE"])
        home_cache = self.place / ".cache/modelway"
        home_cache.mkdir(parents=True)
        for name in ("models", "venv"):
            (home_cache / name).symlink_to(cache / name)
        iris = cache / "models/iris/1/model.onnx"
        for model in ("model.onnx", "models/iris/1/model.onnx", "models/iris/2/model.onnx"):
            (self.folder / model).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(iris, self.folder / model)
        for name in ("python", "scripts", "bin"):
            if (checkout / name).exists():
                (self.folder / name).symlink_to(checkout / name)
        self.ports = {"8080": free_port(), "8081": free_port(), "9000": free_port(), "5000": free_port()}
        gateway, control, _, _ = self.ports.values()
        binary = Path(os.environ["MODELWAY_BINARY"])
        self.environment = {
            "HOME": str(self.place),
            "PATH": f"{binary.parent}:{cache / 'venv/bin'}:{os.environ['PATH']}",
            "SERVE_PORT": gateway,
            "MODELWAY__CONTROL__ADDR": f"127.0.0.1:{control}",
            "MODELWAY__GATEWAY__ADDR": f"127.0.0.1:{gateway}",
            "MODELWAY__CONTROL__GATEWAY_URL": f"http://127.0.0.1:{gateway}",
            "MODELWAY__GATEWAY__CONTROL_URL": f"http://127.0.0.1:{control}",
            "MODELWAY__CLIENT__CONTROL_URL": f"http://127.0.0.1:{control}",
            "MODELWAY__CLIENT__GATEWAY_URL": f"http://127.0.0.1:{gateway}",
            **{name: value for name, value in os.environ.items() if KEPT.match(name)},
        }
        self.names = {"__name__": "__main__"}
        self.answer = ""
        self.mlflow = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.shell("end_server")
        if self.mlflow:
            self.mlflow.communicate()
        shutil.rmtree(self.place, ignore_errors=True)

    def read(self, document):
        text = document.read_text()
        failed = 0
        if document.parent.name == "models":
            shutil.copytree(document.parent, self.folder / "models", dirs_exist_ok=True)
        for other in ("python/README.md", "docs/python-models.md"):
            self.files(self.checkout / other)
        for block in BLOCK.finditer(text):
            line = text[: block.start("text")].count("\n") + 1
            language, mark = block["language"], block["mark"] or ""
            try:
                self.run(language, mark, block["text"])
            except Exception as error:
                failed += 1
                words = str(error) if isinstance(error, AssertionError) else traceback.format_exc()
                print(f"{document}:{line}: {language}: {words}\n{self.log()}", file=sys.stderr)
        return failed

    def files(self, document):
        """Only the files of another document."""
        for block in BLOCK.finditer(document.read_text()):
            if FILE.match(block["text"]):
                self.run(block["language"], "", block["text"])

    def run(self, language, mark, text):
        if mark.startswith("instead: "):
            self.parse(language, text)
            text = mark.removeprefix("instead: ")
        original, file = text, FILE.match(text)
        for port, own in self.ports.items():
            text = re.sub(rf"\b{port}\b", own, text)
        text = re.sub(r"/tmp/|/run/secrets/", f"{self.place}/", text)
        takes_long = mark.startswith(("takes long", "needs MLflow"))
        if mark.startswith("not run") or (takes_long and not self.long):
            self.parse(language, original)
            return
        if mark.startswith("needs MLflow"):
            self.start_mlflow()
            name = mark.partition(": ")[2]
            if name:
                mark = f"after: modelway serve models:/{name}/latest --model-name {name}"
        if mark.startswith("after: "):
            before = mark.removeprefix("after: ").replace("/run/secrets/", f"{self.place}/")
            ran = self.shell(before)
            assert ran.returncode == 0, f"`{before}` ended with {ran.returncode}\n{ran.stdout}{ran.stderr}"
        if language not in ("sh", "json", "python", "toml", "text"):
            self.parse(language, original)
        if file:
            place = self.folder / file[1]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(original)
            self.parse(language, original)
        elif language == "sh":
            wanted = int(mark.rpartition(" ")[2]) if mark.startswith("ends with") else 0
            ran = self.shell(self.installing() + text if mark.startswith("takes long") else text)
            self.answer = ran.stdout
            assert ran.returncode == wanted, f"it ended with {ran.returncode}\n{ran.stdout}{ran.stderr}"
        elif language == "json":
            assert like(last_json(self.answer), json.loads(original)), f"the answer is\n{self.answer}"
        elif language == "python":
            self.python(text)
        elif language == "toml":
            (self.folder / "modelway.toml").write_text(original)
            ran = self.shell("MODELWAY_CONFIG=modelway.toml command modelway serve --dump-config")
            assert ran.returncode == 0, ran.stderr
        elif language == "text":
            wanted = original.strip()
            assert wanted in self.answer, f"the answer is\n{self.answer}"

    def installing(self):
        """An environment of its own for what a block installs."""
        fresh = self.place / "fresh"
        if not fresh.exists():
            subprocess.run(["python3", "-m", "venv", str(fresh)], env=self.environment, check=True)
        return f"PATH={fresh}/bin:$PATH\n"

    def start_mlflow(self):
        if self.mlflow:
            return
        script, port = self.checkout / "scripts/mlflow.sh", self.ports["5000"]
        url = f"http://127.0.0.1:{port}"
        self.mlflow = subprocess.Popen([script, "serve", port], stdin=subprocess.PIPE)
        until = time.monotonic() + 300
        while True:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=10).close()
                break
            except OSError:
                assert time.monotonic() < until, "MLflow does not listen"
                time.sleep(0.1)
        python = subprocess.run([script], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        models = self.checkout / "crates/e2e/tests/models/documents_mlflow.py"
        subprocess.run([python, models, url], stdout=sys.stderr, check=True)
        self.environment["MLFLOW_TRACKING_URI"] = url

    def parse(self, language, text):
        if language == "sh":
            ran = subprocess.run(["bash", "-n"], input=text, text=True, stderr=subprocess.PIPE)
            assert ran.returncode == 0, ran.stderr
        elif language == "python":
            ast.parse(text)
        elif language == "yaml":
            list(yaml.safe_load_all(text))
        elif language == "toml":
            tomllib.loads(text)
        elif language == "json":
            json.loads(text)
        else:
            assert language in ("", "text"), f"nobody knows how to read a block of {language!r}"

    def shell(self, text):
        return subprocess.run(
            ["bash", "-c", f"{PRELUDE}\n{text}"],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=300,
        )

    def python(self, text):
        """Runs the statements, and holds each value against the literal in the comment behind it."""
        lines = text.splitlines()
        before, os.environ["MODELWAY_BINARY"] = os.getcwd(), os.environ["MODELWAY_BINARY"]
        os.chdir(self.folder)
        try:
            for statement in ast.parse(text).body:
                if not isinstance(statement, ast.Expr):
                    exec(compile(ast.Module([statement], []), "document", "exec"), self.names)
                    continue
                value = eval(compile(ast.Expression(statement.value), "document", "eval"), self.names)
                comment = lines[statement.end_lineno - 1][statement.end_col_offset :].partition("#")[2]
                try:
                    wanted = ast.literal_eval(comment.strip())
                except (ValueError, SyntaxError):
                    continue
                value = value.tolist() if hasattr(value, "tolist") else value
                assert like(value, wanted), f"{ast.unparse(statement)} is {value!r}"
        finally:
            os.chdir(before)

    def log(self):
        log = self.folder / "server.log"
        return log.read_text()[-2000:] if log.exists() else ""


def last_json(text):
    """The last of several answers, which curl writes without a break between them."""
    decoder, at, value = json.JSONDecoder(), 0, None
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        at += len(text[at:]) - len(text[at:].lstrip())
    return value


def like(given, wanted):
    """Whether both are the same but for the last digits of numbers."""
    if isinstance(wanted, dict) and isinstance(given, dict):
        return given.keys() == wanted.keys() and all(like(given[name], wanted[name]) for name in wanted)
    if isinstance(wanted, (list, tuple)) and isinstance(given, (list, tuple)):
        return len(given) == len(wanted) and all(map(like, given, wanted))
    if isinstance(wanted, float) or isinstance(given, float):
        return isinstance(given, (int, float)) and abs(given - wanted) <= 1e-5 * max(1, abs(wanted))
    return given == wanted


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
