"""Compile the contracts to ``contracts/artifacts``; ``--check`` compares with the committed artifacts.

The compiler is found in this order: what py-solc-x has installed, the npm package ``solc`` below
``contracts``, what py-solc-x can download, what ``npm ci --prefix contracts`` can install. All give the
same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import solcx
import solcx.install
from solcx.exceptions import SolcError, SolcNotInstalled
from solcx.wrapper import get_version_str_from_solc_binary

REPOSITORY = Path(__file__).resolve().parent.parent
CONTRACTS = REPOSITORY / "contracts"
VENDOR = CONTRACTS / "vendor"
ARTIFACTS = CONTRACTS / "artifacts"
SHIM = REPOSITORY / "scripts" / "solc_shim.cjs"

VERSION = "0.8.30"
ENTRY_POINTS = ("Federation.sol",)
IMPORT = re.compile(r'^import\b[^;]*"([^"]+)";', re.MULTILINE)
SETTINGS: dict[str, Any] = {
    "evmVersion": "cancun",
    "optimizer": {"enabled": True, "runs": 10_000},
    # 560 gas less for each commitment, and code that is a fifth smaller.
    "viaIR": True,
    # Bytecode says what the contract does, not how its comments read: rewording one is no other contract.
    "metadata": {"bytecodeHash": "none"},
}
OUTPUTS = ["abi", "evm.bytecode.object", "evm.deployedBytecode"]
INSTALL_TIMEOUT_S = 300


def find_compiler() -> Path:
    """Return an executable that answers as solc ``VERSION`` does.

    Raises:
        SystemExit: there is none and none could be installed; the message lists what was tried.
    """
    tried: list[str] = []
    finders = (find_installed, find_npm, download, install_npm)
    for finder in finders:
        try:
            return finder()
        except FileNotFoundError as error:
            tried.append(f"  - {error}")
    raise SystemExit("\n".join([f"no solc {VERSION}; tried:", *tried]))


def find_installed() -> Path:
    """Return the compiler that py-solc-x has installed."""
    try:
        return Path(solcx.install.get_executable(VERSION))
    except SolcNotInstalled as error:
        raise FileNotFoundError(f"py-solc-x: {VERSION} is not installed") from error


def find_npm() -> Path:
    """Return the shim over the npm package, if the package is installed in the right version."""
    if shutil.which("node") is None:
        raise FileNotFoundError("npm's solc: node is not on the PATH")
    package = CONTRACTS / "node_modules" / "solc" / "package.json"
    if not package.is_file():
        raise FileNotFoundError("npm's solc: not installed below contracts/node_modules")
    version = json.loads(package.read_text(encoding="utf-8"))["version"]
    if version != VERSION:
        raise FileNotFoundError(
            f"npm's solc: expected {VERSION} below contracts/node_modules, found {version}"
        )
    return SHIM


def download() -> Path:
    """Return the compiler after py-solc-x has downloaded it."""
    # A process of its own, because py-solc-x downloads without any timeout.
    run_installer([sys.executable, "-m", "solcx.install", VERSION], "py-solc-x's download")
    return find_installed()


def install_npm() -> Path:
    """Return the shim after npm has installed the locked packages."""
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError("npm ci: npm is not on the PATH")
    run_installer([npm, "ci", "--prefix", str(CONTRACTS)], "npm ci --prefix contracts")
    return find_npm()


def run_installer(command: list[str], name: str) -> None:
    """Run an installer to its end.

    Raises:
        FileNotFoundError: it failed or did not end in time; says how.
    """
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines() or ["nothing was said"]
        raise FileNotFoundError(f"{name}: status {error.returncode}: {said[-1]}") from error
    except subprocess.TimeoutExpired as error:
        raise FileNotFoundError(f"{name}: no end after {INSTALL_TIMEOUT_S} s") from error


def load_sources(name: str) -> dict[str, str]:
    """Return the texts of a source and all that it imports, by names relative to ``contracts``.

    Raises:
        SystemExit: an imported file does not exist.
    """
    sources: dict[str, str] = {}
    pending = [name]
    while pending:
        current = pending.pop()
        if current in sources:
            continue
        path = (VENDOR if current.startswith("@") else CONTRACTS) / current
        if not path.is_file():
            raise SystemExit(f"{path.relative_to(REPOSITORY)}: imported, but it does not exist")
        sources[current] = path.read_text(encoding="utf-8")
        pending.extend(resolve_import(current, target) for target in IMPORT.findall(sources[current]))
    return dict(sorted(sources.items()))


def resolve_import(importer: str, target: str) -> str:
    """Return an import's source name: relative imports are seen from the importing file."""
    if not target.startswith("."):
        return target
    parts: list[str] = importer.split("/")[:-1]
    for part in target.split("/"):
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def compile_artifact(entry: str, compiler: Path) -> str:
    """Return the artifact of one contract as the text that is committed.

    Raises:
        SystemExit: the compiler refused the sources, or warned.
    """
    sources = load_sources(entry)
    request = {
        "language": "Solidity",
        "sources": {name: {"content": text} for name, text in sources.items()},
        "settings": {**SETTINGS, "outputSelection": {"*": {"*": OUTPUTS}}},
    }
    try:
        output = solcx.compile_standard(request, solc_binary=compiler)
    except SolcError as error:
        raise SystemExit(error.message) from error
    complaints = [error["formattedMessage"] for error in output.get("errors", [])]
    if complaints:
        raise SystemExit("\n".join(["warnings count as errors here:", *complaints]))
    name = Path(entry).stem
    contract = output["contracts"][entry][name]
    runtime = contract["evm"]["deployedBytecode"]
    if runtime.get("immutableReferences"):
        raise SystemExit(f"{entry}: has immutables, so its code on chain would not equal its artifact")
    artifact = {
        "contractName": name,
        "sourceName": entry,
        "compiler": {"version": get_version_str_from_solc_binary(compiler), "settings": SETTINGS},
        "sources": {source: hashlib.sha256(text.encode()).hexdigest() for source, text in sources.items()},
        "abi": contract["abi"],
        "bytecode": f"0x{contract['evm']['bytecode']['object']}",
        "deployedBytecode": f"0x{runtime['object']}",
    }
    return json.dumps(artifact, indent=2) + "\n"


def find_stale(artifacts: dict[Path, str]) -> Iterator[Path]:
    """Yield each artifact whose committed text is not the fresh one."""
    for path, text in artifacts.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            yield path
    for path in sorted(ARTIFACTS.glob("*.json")):
        if path not in artifacts:
            yield path


def main() -> int:
    """Compile, or compare and return 1 when a committed artifact is stale."""
    parser = argparse.ArgumentParser(description="Compile the contracts.")
    parser.add_argument("--check", action="store_true", help="only compare with the committed artifacts")
    arguments = parser.parse_args()
    compiler = find_compiler()
    fresh = {
        (ARTIFACTS / entry).with_suffix(".json"): compile_artifact(entry, compiler) for entry in ENTRY_POINTS
    }
    stale = list(find_stale(fresh))
    if arguments.check:
        for path in stale:
            print(f"{path.relative_to(REPOSITORY)}: stale; run scripts/compile_contracts.py", file=sys.stderr)
        return 1 if stale else 0
    ARTIFACTS.mkdir(exist_ok=True)
    for path in stale:
        if path in fresh:
            path.write_text(fresh[path], encoding="utf-8")
            print(f"wrote {path.relative_to(REPOSITORY)}")
        else:
            path.unlink()
            print(f"removed {path.relative_to(REPOSITORY)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
