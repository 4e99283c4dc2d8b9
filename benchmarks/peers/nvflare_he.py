"""NVFlare's own homomorphic encryption, role by role, without a network. Runs where nvflare is installed.

HEBuilder's defaults (CKKS, 8192, [60, 40, 40], scale 2^40, symmetric), HEModelEncryptor, its cells' payload
encoding, HEInTimeAccumulateWeightedAggregator and HEModelDecryptor, set up as its template sag_pt_he does.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping

from measure import Job, Stopwatch, compute_error, make_update, run_role, split_tensors

# No stubs: they are in the peer's environment, not in ours.
from nvflare.apis.dxo import DXO, DataKind, MetaKey  # type: ignore[import-not-found]
from nvflare.apis.event_type import EventType  # type: ignore[import-not-found]
from nvflare.apis.fl_constant import FLContextKey, ReservedKey  # type: ignore[import-not-found]
from nvflare.apis.fl_context import FLContext  # type: ignore[import-not-found]
from nvflare.apis.shareable import Shareable  # type: ignore[import-not-found]
from nvflare.app_common.app_constant import AppConstants  # type: ignore[import-not-found]
from nvflare.app_opt.he.intime_accumulate_model_aggregator import (  # type: ignore[import-not-found]
    HEInTimeAccumulateWeightedAggregator,
)
from nvflare.app_opt.he.model_decryptor import HEModelDecryptor  # type: ignore[import-not-found]
from nvflare.app_opt.he.model_encryptor import HEModelEncryptor  # type: ignore[import-not-found]
from nvflare.fuel.f3.cellnet.utils import decode_payload, encode_payload  # type: ignore[import-not-found]
from nvflare.fuel.f3.message import Message  # type: ignore[import-not-found]
from nvflare.fuel.sec.security_content_service import (  # type: ignore[import-not-found]
    SecurityContentService,
)
from nvflare.lighter.impl.he import HEBuilder  # type: ignore[import-not-found]

CLIENT_CONTEXT = "client_context.tenseal"
STEPS = 10
ROUND = 0


def make_keys(job: Job, _watch: Stopwatch) -> Mapping[str, float]:
    """Write the context with the secret key, as provisioning does."""
    builder = HEBuilder()
    builder.initialize(None, None)
    (job.folder / CLIENT_CONTEXT).write_bytes(builder.get_serialized_context(is_client=True))
    return {}


def run_client(job: Job, watch: Stopwatch) -> Mapping[str, float]:
    """Encrypt and encode one update."""
    context = _make_context(job)
    encryptor = HEModelEncryptor(weigh_by_local_iter=True)
    encryptor.handle_event(EventType.START_RUN, context)
    (seed,) = job.seeds
    tensors = split_tensors(make_update(job.parameters, seed), job.shapes)
    dxo = DXO(DataKind.WEIGHT_DIFF, data=tensors, meta={MetaKey.NUM_STEPS_CURRENT_ROUND: STEPS})
    with watch.measure("encrypt"):
        shareable = encryptor.process(dxo.to_shareable(), context)
    shareable.set_peer_props({ReservedKey.IDENTITY_NAME: "site"})
    shareable.add_cookie(AppConstants.CONTRIBUTION_ROUND, ROUND)
    message = Message({}, shareable)
    with watch.measure("serialise"):
        size = encode_payload(message)
    _write(job, job.payload(seed).name, message)
    return {"bytes": size}


def run_server(job: Job, watch: Stopwatch) -> Mapping[str, float]:
    """Decode and add the contributors' updates, and encode their mean."""
    context = _make_context(job)
    aggregator = HEInTimeAccumulateWeightedAggregator(
        weigh_by_local_iter=False, expected_data_kind=DataKind.WEIGHT_DIFF
    )
    aggregator.handle_event(EventType.START_RUN, context)
    for i, path in enumerate(job.payloads):
        message = _read(job, path.name)
        with watch.measure("add"):
            decode_payload(message)
            shareable: Shareable = message.payload
            shareable.set_peer_props({ReservedKey.IDENTITY_NAME: f"site-{i}"})
            if not aggregator.accept(shareable, context):
                raise RuntimeError(f"expected NVFlare to accept update {i}")
            del message, shareable
    with watch.measure("publish"):
        message = Message({}, aggregator.aggregate(context))
        size = encode_payload(message)
    _write(job, job.total.name, message)
    return {"bytes": size}


def run_decrypt(job: Job, watch: Stopwatch) -> Mapping[str, float]:
    """Decode and decrypt the mean."""
    context = _make_context(job)
    decryptor = HEModelDecryptor()
    decryptor.handle_event(EventType.START_RUN, context)
    message = _read(job, job.total.name)
    with watch.measure("decrypt"):
        decode_payload(message)
        decrypted = decryptor.process(message.payload, context)
    return {"error": compute_error(decrypted["DXO"]["data"], job)}


def _make_context(job: Job) -> FLContext:
    """Return what NVFlare's components ask for: a peer, a round, and the folder of the HE context."""
    SecurityContentService.initialize(str(job.folder))
    context, peer = FLContext(), FLContext()
    peer.put(ReservedKey.IDENTITY_NAME, "server", private=False, sticky=False)
    context.set_peer_context(peer)
    context.set_prop(FLContextKey.SECURE_MODE, False, private=True, sticky=False)
    context.set_prop(AppConstants.CURRENT_ROUND, ROUND, private=True, sticky=False)
    return context


def _write(job: Job, name: str, message: Message) -> None:
    """Write a payload, which is a list of buffers, as its bytes; and its headers beside it."""
    with (job.folder / name).open("wb") as file:
        for buffer in message.payload if isinstance(message.payload, list) else [message.payload]:
            file.write(buffer)
    (job.folder / f"{name}.headers").write_text(json.dumps(dict(message.headers)))


def _read(job: Job, name: str) -> Message:
    headers = json.loads((job.folder / f"{name}.headers").read_text())
    return Message(headers, (job.folder / name).read_bytes())


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    os.umask(0o077)  # the context holds the secret key
    run_role({"keys": make_keys, "client": run_client, "server": run_server, "decrypt": run_decrypt})
