"""Tests of tasks run torch in this process."""

from __future__ import annotations

import torch

# These models are so small that a second thread only waits, and it would take a core from other tests.
torch.set_num_threads(1)
