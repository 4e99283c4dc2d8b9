"""Put faults into the contract, one at a time, and see whether Foundry's tests find each.

The faults are those of ``contracts/test/faults.toml``. Half an hour on two cores.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
import tomllib
from pathlib import Path

from compile_contracts import CONTRACTS
from test_contracts import GAS_TESTS, INVARIANT_TESTS, Forge

FAULTS = CONTRACTS / "test" / "faults.toml"
SOURCES = ("Federation.sol", "InclusionProof.sol", "foundry.toml", "interfaces", "test", "vendor")


def main() -> int:
    """Print which tests find which fault, and return 1 if one is found by none."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", help="only faults whose description has one of these")
    words = parser.parse_args().words
    faults = tomllib.loads(FAULTS.read_text(encoding="utf-8"))["fault"]
    chosen = [fault for fault in faults if not words or any(word in fault["what"] for word in words)]
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder) / "contracts")
        found = [project.examine(fault) for fault in chosen]
    by_units, by_invariants = (sum(column) for column in zip(*found, strict=True))
    missed = sum(not any(each) for each in found)
    print(
        f"\n{len(found)} faults: unit tests find {by_units}, invariants {by_invariants}; {missed} go unfound"
    )
    return 1 if missed else 0


class Project:
    """A copy of the contracts and their tests, to break."""

    def __init__(self, folder: Path) -> None:
        self._forge = Forge()
        # Without the IR pipeline it compiles in a third of the time. A fault may leave something unused.
        self._environment = {**self._forge.environment, "FOUNDRY_VIA_IR": "false", "FOUNDRY_DENY": "never"}
        self._folder = folder
        folder.mkdir()
        for name in SOURCES:
            copy = shutil.copytree if (CONTRACTS / name).is_dir() else shutil.copy
            copy(CONTRACTS / name, folder / name)
        # The vectors that tests read stand beside the contracts.
        shutil.copytree(CONTRACTS.parent / "tests" / "vectors", folder.parent / "tests" / "vectors")
        self._source = (folder / "Federation.sol").read_text(encoding="utf-8")
        for options in (["build"], *self._commands()):
            if not self._passes(*options):
                raise SystemExit(f"forge {' '.join(options)}: fails without any fault")

    def examine(self, fault: dict[str, str]) -> tuple[bool, bool]:
        """Return whether the unit tests and whether the invariants find a fault.

        Raises:
            SystemExit: what the fault replaces does not stand there once, or what comes out does not compile.
        """
        if self._source.count(fault["before"]) != 1:
            raise SystemExit(f"{fault['what']}: stands {self._source.count(fault['before'])} times there")
        broken = self._source.replace(fault["before"], fault["after"])
        (self._folder / "Federation.sol").write_text(broken, encoding="utf-8")
        if not self._passes("build"):
            raise SystemExit(f"{fault['what']}: does not compile")
        units, invariants = (not self._passes(*command) for command in self._commands())
        told = {(True, True): "both", (True, False): "unit tests", (False, True): "invariants"}
        print(f"{told.get((units, invariants), 'NOBODY'):<11} {fault['what']}", flush=True)
        return units, invariants

    def _commands(self) -> list[list[str]]:
        units = ["test", "--no-match-path", f"{{{GAS_TESTS},{INVARIANT_TESTS}}}"]
        return [units, ["test", "--match-path", INVARIANT_TESTS]]

    def _passes(self, *arguments: str) -> bool:
        # Where everything is expected to fail sooner or later, the first failure is enough.
        command = [self._forge.path, *arguments, *(["--fail-fast"] if arguments[0] == "test" else [])]
        return not subprocess.run(
            command, cwd=self._folder, env=self._environment, check=False, capture_output=True
        ).returncode


if __name__ == "__main__":
    raise SystemExit(main())
