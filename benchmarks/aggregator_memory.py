"""The aggregator's peak memory and its intake: the daemon itself, with as many contributors as asked for.

    python benchmarks/aggregator_memory.py                                 100 contributors, 11.2 M parameters
    python benchmarks/aggregator_memory.py --contributors 4 --streams 1    one upload after the other

The daemon runs as always: mutual TLS, gRPC, ledger, journal, store, codec workers. This process plays the
chain and the nodes. Their frames are drawn at random, uniform below q with a seed each, as ciphertexts are to
whoever has no key; nobody could decrypt the sum. All upload at once, and then all download the sum at once.

The figure is the largest sum, over the daemon and its codec processes, of proportional set sizes: pages that
they share count once, and those of libraries that other processes have mapped too, as this one has, in part.
Linux shows root alone the sizes of the codec processes. For anybody else their whole resident sets count, and
the figure is called an upper bound.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tomlkit
from eth_account import Account
from measure import find_descendants, peak_memory_mb
from web3 import HTTPProvider
from web3.types import RPCEndpoint

from fedproof.codec.frames import encode_update_frames
from fedproof.codec.parameters import FRAMES_PER_CHUNK, RING_DEGREE, SEED_BYTES, CodecParameters
from fedproof.devchain.backend import DevChain
from fedproof.devchain.journal import Genesis
from fedproof.devchain.server import DevChainServer
from fedproof.digests import as_address, tagged_digest
from fedproof.keys.tls import TlsFiles, issue_certificate, make_authority
from fedproof.keys.wallet import create_wallet
from fedproof.keys.wrapping import wrapped_keys_root
from fedproof.ledger.client import Ledger
from fedproof.ledger.deploy import deploy_federation
from fedproof.manifest import UpdateManifest, compute_header_root
from fedproof.merkle import leaf_digest
from fedproof.model import compute_model_digest
from fedproof.policy import CodecPolicy, ModelPolicy, Policy, RoundPolicy, TrainingPlan
from fedproof.wire import aggregation_pb2 as wire
from fedproof.wire.aggregation_pb2_grpc import AggregationStub

TARGET_MB = 350
SAMPLE_S = 0.05
WINDOW_S = 1_000_000  # the development chain's clock runs ahead by a second for each transaction
ETHER = 10**18
EXAMPLES = 100
CLIPS = (0.25,)
BASE_VALUES = tagged_digest("base")
ARCHITECTURE = tagged_digest("architecture")


class Frames:
    """Well-formed chunks: one of each length drawn at random, and seeds of its own for every frame."""

    def __init__(self, policy: Policy) -> None:
        self.parameters: CodecParameters = policy.codec_parameters()
        self._length = policy.update_length
        self.chunks = self.parameters.chunk_count(self._length)
        rng = np.random.default_rng(1)
        polynomials = rng.integers(
            0, self.parameters.coeff_modulus, (FRAMES_PER_CHUNK, RING_DEGREE), dtype=np.uint64
        )
        seeds = np.zeros((FRAMES_PER_CHUNK, SEED_BYTES), dtype=np.uint8)
        whole = np.frombuffer(encode_update_frames(polynomials, seeds, self.parameters), dtype=np.uint8)
        self._whole = whole.reshape(FRAMES_PER_CHUNK, -1)

    def make(self, node: int, index: int) -> bytes:
        """Return a node's chunk."""
        frames = self.parameters.frames_in_chunk(index, self._length)
        seeds = hashlib.shake_256(f"{node}/{index}".encode()).digest(frames * SEED_BYTES)
        chunk = self._whole[:frames].copy()
        chunk[:, -SEED_BYTES:] = np.frombuffer(seeds, dtype=np.uint8).reshape(frames, SEED_BYTES)
        return chunk.tobytes()


class Memory:
    """The daemon's processes, looked at again and again by a thread of its own.

    Attributes:
        phase: what goes on now.
        peaks_mb: by phase, the largest sum of all processes' proportional set sizes, the daemon's largest one
            alone, and the largest sum of resident sets, which counts shared pages in each.
        is_upper_bound: whether a process's resident set had to stand for its proportional one.
        processes_mb: by process number, its largest resident set.
        cpu_s: by process number, its processor time.
    """

    def __init__(self, pid: int) -> None:
        self.phase = "start"
        self.peaks_mb: defaultdict[str, dict[str, float]] = defaultdict(dict)
        self.is_upper_bound = False
        self.processes_mb: dict[int, float] = {}
        self.cpu_s: dict[int, float] = {}
        self._pid = pid
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(SAMPLE_S):
            phase, pids = self.phase, [self._pid, *find_descendants(self._pid)[self._pid]]
            shares = [self._proportional_mb(pid) for pid in pids]
            resident = [_read_mb(Path(f"/proc/{pid}/status"), "VmRSS:") for pid in pids]
            peaks = self.peaks_mb[phase]
            for what, now in (
                ("together", sum(shares)),
                ("daemon", shares[0]),
                ("resident_together", sum(resident)),
            ):
                peaks[what] = max(now, peaks.get(what, 0.0))
            for pid in pids:
                self.processes_mb[pid] = max(peak_memory_mb(pid), self.processes_mb.get(pid, 0.0))
                self.cpu_s[pid] = max(_cpu_s(pid), self.cpu_s.get(pid, 0.0))

    def _proportional_mb(self, pid: int) -> float:
        """Return a process's share of its memory: pages count by how many processes map them."""
        try:
            return _read_mb(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")
        except PermissionError:
            self.is_upper_bound = True
            return _read_mb(Path(f"/proc/{pid}/status"), "VmRSS:")


@dataclass(frozen=True, slots=True)
class Node:
    """One contributor: its connection to the ledger, its certificate, and its committed update."""

    number: int
    ledger: Ledger
    tls: TlsFiles
    header: wire.Header
    address: bytes


class Site:
    """A federation on a development chain: this process is its admin and all of its nodes."""

    def __init__(
        self, folder: Path, rpc_url: str, policy: Policy, *, contributors: int, streams: int
    ) -> None:
        self.folder = folder
        self.policy = policy
        self.frames = Frames(policy)
        self.streams = streams
        self._rpc_url = rpc_url
        admin, aggregator = self._account("admin"), create_wallet(folder / "wallet.json", "password")
        self._fund(aggregator.address)
        self._contract = deploy_federation(
            rpc_url, admin, aggregator=as_address(aggregator.address, ""), output=folder / "address-book.json"
        ).contract
        self._admin = Ledger.connect(rpc_url, self._contract, account=admin)
        self._ca = make_authority(folder / "authority", "authority").certificate
        self.tls = issue_certificate(folder, folder / "authority", "aggregator", hosts=["localhost"])
        self._ledgers = [self._join(i) for i in range(contributors)]
        self._admin.adopt_policy(policy)
        self._admin.request_epoch(self._ledgers[0].address)
        self.keys = sorted((ledger.address, b"wrapped") for ledger in self._ledgers)
        root, membership = wrapped_keys_root(self.keys), self._admin.state().membership
        self._ledgers[0].publish_epoch(1, self.frames.parameters.digest, root, membership=membership)

    def write_config(self, *, codec_processes: int) -> Path:
        """Write the aggregator's configuration and return its path."""
        (self.folder / "policy.toml").write_text(self.policy.dump_toml())
        (self.folder / "password").write_text("password\n")
        document = {
            "name": "aggregator",
            "state_dir": "state",
            "policy": "policy.toml",
            "listen": "localhost:0",
            "rounds": 1,
            "expected_nodes": len(self._ledgers),
            "codec_processes": codec_processes,
            "chain": {
                "address_book": "address-book.json",
                "keystore": "wallet.json",
                "password_file": "password",
            },
            "tls": {"ca": "authority/ca.crt", "certificate": "tls.crt", "key": "tls.key"},
        }
        path = self.folder / "aggregator.toml"
        path.write_text(tomlkit.dumps(document))
        return path

    def commit_all(self) -> list[Node]:
        """Let every node commit to its update."""
        return [self._commit(number, ledger) for number, ledger in enumerate(self._ledgers)]

    def each(self, nodes: list[Node], address: str, call: Callable[[AggregationStub, Node], object]) -> float:
        """Let the nodes call, so many at once as there are streams, and return how long all took."""

        def connect_and_call(node: Node) -> None:
            credentials = grpc.ssl_channel_credentials(
                self._ca.read_bytes(), node.tls.key.read_bytes(), node.tls.certificate.read_bytes()
            )
            with grpc.secure_channel(
                address, credentials, options=[("grpc.use_local_subchannel_pool", 1)]
            ) as channel:
                call(AggregationStub(channel), node)

        started = time.perf_counter()
        with ThreadPoolExecutor(self.streams) as pool:
            list(pool.map(connect_and_call, nodes))
        return time.perf_counter() - started

    def upload(self, stub: AggregationStub, node: Node) -> None:
        """Send a node's update."""

        def requests() -> Iterator[wire.UploadRequest]:
            start = wire.UploadStart(round=1, node=node.address, header=node.header)
            yield wire.UploadRequest(start=start)
            for index in range(self.frames.chunks):
                data = self.frames.make(node.number, index)
                yield wire.UploadRequest(chunk=wire.Chunk(index=index, data=data))

        stub.Upload(requests())

    def _commit(self, number: int, ledger: Ledger) -> Node:
        leaves = [leaf_digest(self.frames.make(number, i)) for i in range(self.frames.chunks)]
        manifest = UpdateManifest(
            chain_id=ledger.chain_id,
            contract=ledger.contract,
            round=1,
            node=ledger.address,
            epoch=1,
            policy_digest=self.policy.digest,
            base_model=ledger.head_model(),
            base_values=BASE_VALUES,
            clips=CLIPS,
            parameters=self.policy.model.parameters,
            chunks=len(leaves),
            examples=EXAMPLES,
        ).encode()
        ledger.commit(1, compute_header_root(manifest, leaves), EXAMPLES)
        folder = self.folder / "nodes" / str(number)
        tls = issue_certificate(folder, self.folder / "authority", f"node-{number}", hosts=["localhost"])
        header = wire.Header(manifest=manifest, chunk_digests=leaves)
        return Node(number, ledger, tls, header, ledger.address)

    def _join(self, number: int) -> Ledger:
        ledger = Ledger.connect(self._rpc_url, self._contract, account=self._account(f"node {number}"))
        ledger.register(tagged_digest("wrapping", number), tagged_digest("certificate", number))
        self._admin.admit(ledger.address)
        return ledger

    def _account(self, name: str) -> Any:
        account = Account.from_key(hashlib.sha256(name.encode()).digest())
        self._fund(account.address)
        return account

    def _fund(self, address: str) -> None:
        request = RPCEndpoint("anvil_setBalance")
        HTTPProvider(self._rpc_url).make_request(request, [address, hex(100 * ETHER)])


def measure(
    *, contributors: int, parameters: int, bits: int, streams: int, codec_processes: int, folder: Path
) -> dict[str, Any]:
    """Run a round up to the last download of its sum, and return what it took."""
    policy = _make_policy(contributors, parameters, bits)
    chain = DevChain(Genesis(chain_id=31337, timestamp=int(time.time()) - 3600))
    with DevChainServer(chain, port=0, block_time_s=0) as server:
        site = Site(folder, server.url, policy, contributors=contributors, streams=streams)
        config = site.write_config(codec_processes=codec_processes)
        daemon = subprocess.Popen(
            [sys.executable, "-m", "fedproof", "aggregator", "run", "--config", str(config)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        memory = Memory(daemon.pid)
        try:
            return {
                "contributors": contributors, "parameters": parameters, "bits": bits, "streams": streams,
                **_run_round(site, daemon, memory),
            }  # fmt: skip
        except grpc.RpcError as error:
            daemon.terminate()
            raise RuntimeError(f"the aggregator's last words: {daemon.communicate()[0][-2000:]}") from error
        finally:
            daemon.terminate()
            daemon.wait()
            memory.stop()


def _run_round(site: Site, daemon: subprocess.Popen[str], memory: Memory) -> dict[str, Any]:
    address = _wait_for(daemon, "serving")["address"]
    memory.phase = "idle"
    request = wire.PutWrappedKeysRequest(
        epoch=1, keys=[wire.WrappedKey(node=node, ciphertext=key) for node, key in site.keys]
    )
    credentials = grpc.ssl_channel_credentials(
        (site.folder / "authority" / "ca.crt").read_bytes(),
        site.tls.key.read_bytes(),
        site.tls.certificate.read_bytes(),
    )
    with grpc.secure_channel(address, credentials) as channel:
        AggregationStub(channel).PutWrappedKeys(request)
    _wait_for(daemon, "round_opened")
    nodes = site.commit_all()
    memory.phase = "uploads"
    cpu_before_s = dict(memory.cpu_s)
    uploads_s = site.each(nodes, address, site.upload)
    cpu_s = {pid: seconds - cpu_before_s.get(pid, 0.0) for pid, seconds in memory.cpu_s.items()}
    memory.phase = "sum"
    sealed = _wait_for(daemon, "sealed")
    sum_s = _wait_for(daemon, "aggregated")["seconds"]
    memory.phase = "downloads"
    received: list[int] = []

    def download(stub: AggregationStub, _node: Node) -> None:
        parts = stub.DownloadAggregate(wire.DownloadAggregateRequest(round=1))
        received.append(sum(len(part.chunk.data) for part in parts))

    downloads_s = site.each(nodes, address, download)
    (sum_bytes,) = set(received)
    peak_mb, daemon_mb, resident_mb = (
        max(peaks[what] for peaks in memory.peaks_mb.values())
        for what in ("together", "daemon", "resident_together")
    )
    base_mb = memory.peaks_mb["idle"]["daemon"]
    return {
        "counted": len(sealed["contributors"]),
        "sum_mb": sum_bytes / 1e6,
        "base_mb": base_mb,
        "peak_mb": peak_mb,
        "peak_is_upper_bound": memory.is_upper_bound,
        "daemon_peak_mb": daemon_mb,
        "resident_peak_mb": resident_mb,
        "beyond_base_and_sum_mb": peak_mb - base_mb - sum_bytes / 1e6,
        "peak_mb_by_phase": dict(memory.peaks_mb),
        "largest_resident_mb": {
            "daemon": memory.processes_mb[daemon.pid],
            "codec": sorted(v for pid, v in memory.processes_mb.items() if pid != daemon.pid),
        },
        "upload_s": uploads_s / len(nodes),
        "upload_cpu_s": {
            "daemon": cpu_s.pop(daemon.pid) / len(nodes),
            "codec": sum(cpu_s.values()) / len(nodes),
        },
        "sum_s": sum_s,
        "downloads_s": downloads_s,
    }


def _make_policy(contributors: int, parameters: int, bits: int) -> Policy:
    return Policy(
        name="aggregator memory",
        model=ModelPolicy(
            architecture=ARCHITECTURE,
            parameters=parameters,
            genesis=compute_model_digest(ARCHITECTURE, parameters, BASE_VALUES, CLIPS),
            seed=1,
        ),
        codec=CodecPolicy(
            bits=bits,
            max_contributors=contributors,
            clip=CLIPS[0],
            clip_margin=4.0,
            keep_one_in=1,
            error_feedback=False,
        ),
        rounds=RoundPolicy(
            min_contributors=contributors,
            attestation_quorum=contributors,
            max_examples=1000,
            commit_window_s=WINDOW_S,
            aggregate_window_s=WINDOW_S,
            attest_window_s=WINDOW_S,
        ),
        training=TrainingPlan(epochs=1, batch_size=32, learning_rate=0.05, momentum=0.9, weight_decay=0.0),
    )


def _wait_for(daemon: subprocess.Popen[str], kind: str) -> dict[str, Any]:
    assert daemon.stdout is not None
    for line in daemon.stdout:
        event: dict[str, Any] = json.loads(line)
        if event["event"] == kind:
            return event
        if event["event"] in {"error", "round_failed", "upload_refused"}:
            raise RuntimeError(f"expected {kind}, got {line}")
    raise RuntimeError(f"expected {kind}, the aggregator ended")


def _read_mb(path: Path, name: str) -> float:
    """Return a size that /proc tells of a process, in MB; 0 once the process has ended.

    Raises:
        PermissionError: it is told to root alone.
    """
    try:
        lines = path.read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(name)), 0.0)


def _cpu_s(pid: int) -> float:
    """Return the processor time that a process has had."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / float(os.sysconf("SC_CLK_TCK"))


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--contributors", type=int, default=100)
    parser.add_argument("--params", type=int, default=11_173_962)
    parser.add_argument("--bits", type=int, default=15)
    parser.add_argument("--streams", type=int, help="how many upload at once (default: all)")
    parser.add_argument("--codec-processes", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep the run here (default: a temporary folder)")
    parser.add_argument("--json", action="store_true", help="print one object for machines")
    arguments = parser.parse_args()
    if not Path("/proc/self/smaps_rollup").exists():
        parser.error(
            "expected Linux, which shows what memory processes share; /proc/self/smaps_rollup is absent"
        )
    with tempfile.TemporaryDirectory() as scratch:
        row = measure(
            contributors=arguments.contributors,
            parameters=arguments.params,
            bits=arguments.bits,
            streams=arguments.streams or arguments.contributors,
            codec_processes=arguments.codec_processes,
            folder=arguments.folder or Path(scratch),
        )
    if arguments.json:
        print(json.dumps(row))
        return
    verdict = "reached" if row["peak_mb"] <= TARGET_MB else "missed"
    bound = ", an upper bound" if row["peak_is_upper_bound"] else ""
    print(
        f"peak {row['peak_mb']:.0f} MB{bound} (at most {TARGET_MB}: {verdict}): "
        f"base {row['base_mb']:.0f}, one sum {row['sum_mb']:.0f}, rest {row['beyond_base_and_sum_mb']:.0f}"
    )
    for name, value in row.items():
        print(f"| {name} | {value} |")


if __name__ == "__main__":
    main()
