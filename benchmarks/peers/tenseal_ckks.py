"""TenSEAL's CKKS with NVFlare's parameters, tensor by tensor, and nothing of NVFlare around it.

Kinder than NVFlare: the context travels once, not with every tensor.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import tenseal
from measure import Job, Stopwatch, compute_error, make_update, run_role, split_tensors

CONTEXT = "context"
_LENGTH_BYTES = 8


def make_keys(job: Job, _watch: Stopwatch) -> Mapping[str, float]:
    """Write the context with the secret key, which the clients have."""
    context = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS,
        poly_modulus_degree=8192,
        coeff_mod_bit_sizes=[60, 40, 40],
        encryption_type=tenseal.ENCRYPTION_TYPE.SYMMETRIC,
    )
    context.global_scale = 2**40
    (job.folder / CONTEXT).write_bytes(context.serialize(save_secret_key=True))
    return {}


def run_client(job: Job, watch: Stopwatch) -> Mapping[str, float]:
    """Encrypt and serialise one update."""
    context = _load_context(job)
    (seed,) = job.seeds
    tensors = split_tensors(make_update(job.parameters, seed), job.shapes)
    with watch.measure("encrypt"):
        vectors = [tenseal.ckks_vector(context, tensor.ravel()) for tensor in tensors.values()]
    with watch.measure("serialise"):
        payload = _join([vector.serialize() for vector in vectors])
    job.payload(seed).write_bytes(payload)
    return {"bytes": len(payload)}


def run_server(job: Job, watch: Stopwatch) -> Mapping[str, float]:
    """Load and add the contributors' updates, and serialise their mean."""
    context = _load_context(job)
    totals: list[Any] = []
    for path in job.payloads:
        payload = path.read_bytes()
        with watch.measure("add"):
            vectors = [tenseal.ckks_vector_from(context, part) for part in _split(payload)]
            if totals:
                for total, vector in zip(totals, vectors, strict=True):
                    total.add_(vector)
            else:
                totals = vectors
            del vectors
    with watch.measure("publish"):
        payload = _join([total.mul(1 / job.contributors).serialize() for total in totals])
    job.total.write_bytes(payload)
    return {"bytes": len(payload)}


def run_decrypt(job: Job, watch: Stopwatch) -> Mapping[str, float]:
    """Load and decrypt the mean."""
    context = _load_context(job)
    payload = job.total.read_bytes()
    with watch.measure("decrypt"):
        decoded = [tenseal.ckks_vector_from(context, part).decrypt() for part in _split(payload)]
    return {"error": compute_error({f"tensor{i}": values for i, values in enumerate(decoded)}, job)}


def _load_context(job: Job) -> Any:
    return tenseal.context_from((job.folder / CONTEXT).read_bytes())


def _join(parts: list[bytes]) -> bytes:
    return b"".join(len(part).to_bytes(_LENGTH_BYTES, "big") + part for part in parts)


def _split(payload: bytes) -> list[bytes]:
    parts, start = [], 0
    while start < len(payload):
        first = start + _LENGTH_BYTES
        start = first + int.from_bytes(payload[start:first], "big")
        parts.append(payload[first:start])
    return parts


if __name__ == "__main__":
    os.umask(0o077)  # the context holds the secret key
    run_role({"keys": make_keys, "client": run_client, "server": run_server, "decrypt": run_decrypt})
