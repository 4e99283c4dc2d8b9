"""Generate the protobuf and gRPC modules of ``protos/``; ``--check`` compares with the committed ones.

``protos/fedproof/wire/x.proto`` becomes ``fedproof/wire/x_pb2.py`` and ``x_pb2_grpc.py`` with their ``.pyi``.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

REPOSITORY = Path(__file__).resolve().parent.parent
PROTOS = REPOSITORY / "protos"
PLUGINS = ("protoc-gen-mypy", "protoc-gen-mypy_grpc")


def find_plugin(name: str) -> str:
    """Return the path of a protoc plug-in that was installed beside this interpreter.

    Raises:
        SystemExit: it is not installed.
    """
    path = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
    if path is None:
        raise SystemExit(f"{name} is not installed; install the extra 'dev' (mypy-protobuf) first")
    return path


def generate(output: Path) -> None:
    """Write every generated module below ``output``.

    Raises:
        SystemExit: protoc refused a proto file; it has printed why.
    """
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={PROTOS}",
            f"--proto_path={Path(grpc_tools.__file__).parent / '_proto'}",
            *(f"--plugin={name}={find_plugin(name)}" for name in PLUGINS),
            f"--python_out={output}",
            f"--grpc_python_out={output}",
            f"--mypy_out=quiet:{output}",
            f"--mypy_grpc_out=quiet:{output}",
            *sources,
        ]
    )
    if status != 0:
        raise SystemExit(f"protoc failed with status {status} on {', '.join(sources)}")


def find_stale(fresh: Path) -> Iterator[Path]:
    """Yield each module, relative to the repository, that is not the same committed and fresh."""
    expected = {path.relative_to(fresh) for path in fresh.rglob("*_pb2*")}
    packages = {path.parent for path in expected}
    committed = {
        path.relative_to(REPOSITORY)
        for package in packages
        for path in (REPOSITORY / package).glob("*_pb2*")
        if path.is_file()
    }
    for path in sorted(expected | committed):
        here = REPOSITORY / path
        if path not in expected or not here.is_file() or here.read_bytes() != (fresh / path).read_bytes():
            yield path


def main() -> int:
    """Generate, or compare and return 1 when a committed module is stale."""
    parser = argparse.ArgumentParser(description="Generate the protobuf and gRPC modules.")
    parser.add_argument("--check", action="store_true", help="only compare with the committed modules")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder)
        generate(fresh)
        stale = list(find_stale(fresh))
        if arguments.check:
            for path in stale:
                print(f"{path}: stale; run scripts/generate_protos.py", file=sys.stderr)
            return 1 if stale else 0
        for path in stale:
            if (fresh / path).is_file():
                shutil.copyfile(fresh / path, REPOSITORY / path)
                print(f"wrote {path}")
            else:
                (REPOSITORY / path).unlink()
                print(f"removed {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
