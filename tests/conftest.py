"""Every process of the tests has one thread (sums in one order, and no fight for the cores), and no
network: what is of the Hub comes from a small one that the tests start."""

from __future__ import annotations

import os

# For the processes that tests start, too.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import torch

torch.set_num_threads(1)
