"""Our codec, role by role: the product's own path from a trained model to chunks, to their sum, and back.

Without worker processes everything happens in this one, as with the peers. With them, this process stands for
a daemon: it hashes and passes on, and `CodecWorkers` do the rest.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
from measure import CLIP, Job, Stopwatch, find_descendants, make_update, peak_memory_mb, run_role

from fedproof.codec import Codec, CodecParameters, SecretKey
from fedproof.codec.quantise import Float32Vector, Int64Vector, quantise
from fedproof.codec.round_encoding import RoundEncoding
from fedproof.codec.running_sum import RunningSum
from fedproof.codec.scaling import Scaling, expand_runs
from fedproof.codec.selection import Selection
from fedproof.codec.workers import CodecWorkers
from fedproof.digests import Digest
from fedproof.merkle import leaf_digest

EXAMPLES = 1000
KEY = "key"


def make_keys(job: Job, _watch: Stopwatch) -> Mapping[str, float]:
    """Write the epoch's key."""
    (job.folder / KEY).write_bytes(SecretKey.generate().reveal())
    return {}


def run_client(job: Job, watch: Stopwatch) -> Mapping[str, float]:
    """Quantise, pack, encrypt, frame and hash one update."""
    encoding, key = _make_encoding(job), _load_key(job)
    (seed,) = job.seeds
    change = make_update(job.parameters, seed)
    with _make_workers(job, encoding, key) as workers, job.payload(seed).open("wb") as file:
        if workers is not None:
            _warm_up(workers)
        else:
            codec = Codec(encoding.parameters)
            encryptor = codec.make_encryptor(key)
        with watch.measure("encrypt"):
            pieces = encoding.pieces(change)
            weight = encoding.scaling.compute_weight(EXAMPLES)
            if workers is not None:
                for encoded in workers.encode(pieces, weight=weight):
                    leaf_digest(encoded.chunk)
                    file.write(encoded.chunk)
            else:
                for piece in pieces:
                    values = quantise(
                        piece.delta,
                        expand_runs(piece.runs),
                        limit=encoding.parameters.limit,
                        weight=weight,
                        rng=np.random.Generator(np.random.SFC64(int.from_bytes(piece.seed, "little"))),
                    )
                    chunk = codec.encrypt_chunk(values, encryptor)
                    leaf_digest(chunk)
                    file.write(chunk)
        return {"bytes": file.tell(), "peak_mb": _peak_memory_mb()}


def run_server(job: Job, watch: Stopwatch) -> Mapping[str, float]:
    """Hash, check, load and add the contributors' chunks, and write out their sum."""
    encoding = _make_encoding(job)
    written = 0
    with _make_workers(job, encoding, None) as workers, job.total.open("wb") as file:
        if workers is not None:
            _warm_up(workers)
            total = RunningSum(workers)

            def receive(contributor: int, path: Path) -> None:
                for index, chunk in enumerate(_read_update(path, encoding)):
                    leaf_digest(chunk)
                    total.add(index, contributor.to_bytes(20, "big"), chunk, whose=path.name)

            # One upload to a thread, as the aggregator's server has it.
            with ThreadPoolExecutor(2 * job.processes) as uploads, watch.measure("add"):
                list(uploads.map(receive, range(job.contributors), job.payloads))
        else:
            codec = Codec(encoding.parameters)
            sums = [codec.start_sum() for _ in range(encoding.chunk_count)]
            with watch.measure("add"):
                for path in job.payloads:
                    for chunk_sum, chunk in zip(sums, _read_update(path, encoding), strict=True):
                        leaf_digest(chunk)
                        chunk_sum.add(chunk, path.name)
        with watch.measure("publish"):
            for index in range(encoding.chunk_count):
                chunk = total.take(index) if workers is not None else sums[index].result()
                leaf_digest(chunk)
                written += file.write(chunk)
        return {"bytes": written, "peak_mb": _peak_memory_mb()}


def run_decrypt(job: Job, watch: Stopwatch) -> Mapping[str, float]:
    """Check, decrypt and unpack the sum, and apply the mean.

    Raises:
        RuntimeError: the mean is further than one step from the plain mean.
    """
    encoding, key = _make_encoding(job), _load_key(job)
    base = np.zeros(job.parameters, dtype=np.float32)
    count = job.contributors
    with _make_workers(job, encoding, key) as workers:
        if workers is not None:
            _warm_up(workers)
        else:
            codec = Codec(encoding.parameters)
            decryptor = codec.make_decryptor(key)
        with watch.measure("decrypt"):
            chunks = _read_total(job.total, encoding)
            sums: Iterator[Int64Vector]
            if workers is not None:
                sums = workers.decode(chunks, contributors=count, length=encoding.length)
            else:
                sums = (
                    codec.decrypt_chunk(
                        chunk, decryptor, contributors=count, index=index, length=encoding.length
                    )
                    for index, chunk in enumerate(chunks)
                )
            mean, _ = encoding.apply(base, sums, count * EXAMPLES)
        peak_mb = _peak_memory_mb()
    return {"error": _verify_mean(mean, job, encoding), "peak_mb": peak_mb}


def _verify_mean(mean: Float32Vector, job: Job, encoding: RoundEncoding) -> float:
    error = float(np.abs(mean - job.plain_mean()).max())
    step = CLIP / encoding.parameters.limit
    if error > step:
        raise RuntimeError(f"expected a mean within one step, {step}, of the plain one, got {error}")
    return error


def _make_encoding(job: Job) -> RoundEncoding:
    parameters = CodecParameters.plan(bits=job.bits, max_contributors=job.contributors)
    sizes = tuple(math.prod(shape) for shape in job.shapes)
    scaling = Scaling(parameters.limit, EXAMPLES, sizes, (CLIP,) * len(sizes))
    return RoundEncoding(parameters, scaling, Selection(job.parameters, 1, Digest(bytes(32))))


def _make_workers(
    job: Job, encoding: RoundEncoding, key: SecretKey | None
) -> AbstractContextManager[CodecWorkers | None]:
    if not job.processes:
        return nullcontext()
    return CodecWorkers(encoding.parameters, processes=job.processes, secret_key=key)


def _warm_up(workers: CodecWorkers) -> None:
    """Start the processes: a daemon has them from its first round on."""
    for index in range(workers.processes):
        workers.drop(index)


def _read_update(path: Path, encoding: RoundEncoding) -> Iterator[bytes]:
    return _read_chunks(path, encoding, encoding.parameters.update_frame_bytes)


def _read_total(path: Path, encoding: RoundEncoding) -> Iterator[bytes]:
    return _read_chunks(path, encoding, encoding.parameters.aggregate_frame_bytes)


def _read_chunks(path: Path, encoding: RoundEncoding, frame_bytes: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        for index in range(encoding.chunk_count):
            yield file.read(encoding.parameters.frames_in_chunk(index, encoding.length) * frame_bytes)


def _load_key(job: Job) -> SecretKey:
    return SecretKey((job.folder / KEY).read_bytes())


def _peak_memory_mb() -> float:
    """Return the peak of this process and of those that it started, added up."""
    own = os.getpid()
    return sum(map(peak_memory_mb, (own, *find_descendants(own)[own])))


if __name__ == "__main__":
    os.umask(0o077)
    run_role({"keys": make_keys, "client": run_client, "server": run_server, "decrypt": run_decrypt})
