"""``python -m modelway train FOLDER`` makes a model's files; ``python -m modelway eval FOLDER`` prints its metrics.

``NAME=VALUE`` arguments go to the method, as JSON where they are JSON: ``epochs=20 device=cpu``.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

from ._class import FILE, file_of, find
from ._spec import ModelError


def main(arguments: Optional[List[str]] = None) -> int:
    """Runs one command; the process's exit status."""
    parser = argparse.ArgumentParser(prog="python -m modelway", description=__doc__)
    parser.add_argument("command", choices=["train", "eval"])
    parser.add_argument("model", type=Path, help=f"a .py file, or a folder with {FILE}")
    parser.add_argument("options", nargs="*", metavar="NAME=VALUE")
    given = parser.parse_args(arguments)
    file = file_of(given.model)
    try:
        model = find(file)()
        model.folder = file.parent
        options = _options(given.options)
        if given.command == "eval":
            _finished(model.load())
        made = _finished(getattr(model, given.command)(**options))
    except (ModelError, NotImplementedError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if made is not None:
        print(json.dumps(made, default=_number))
    return 0


def _finished(made: Any) -> Any:
    async def wait() -> Any:
        return await made

    return asyncio.run(wait()) if inspect.isawaitable(made) else made


def _options(words: List[str]) -> Dict[str, Any]:
    options = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or not name.isidentifier():
            raise ModelError(f"`{word}` is no option: write it as NAME=VALUE")
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    return options


def _number(value: Any) -> Any:
    """NumPy's numbers as JSON, and whatever else by its words."""
    return value.item() if hasattr(value, "item") else str(value)


if __name__ == "__main__":
    sys.exit(main())
