"""Virtual environments for peers, whose requirements are not ours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def find_cache(name: str) -> Path:
    """Return where a peer's environment is made unless the command line names another place."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "fedproof" / "peers" / name


def ensure_environment(folder: Path, requirements: Sequence[str]) -> Path:
    """Return the interpreter of an environment; it is made, and the requirements installed, if absent.

    Raises:
        CalledProcessError: they cannot be installed; what was made is then incomplete and to be removed.
    """
    interpreter = folder / "bin" / "python"
    if not interpreter.exists():
        print(f"installing {', '.join(requirements)} into {folder}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([interpreter, "-m", "pip", "install", "--quiet", *requirements], check=True)
    return interpreter
