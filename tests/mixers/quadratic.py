"""A model that is trained and measured exactly: every domain's and target's loss is quadratic.

l(theta) = floor + 1/2 (theta - c)^T H (theta - c) with a centre and a curvature for each domain and
target, gradient descent on the mixture's loss. Whatever a mixer asks for is computed from the
formula, or by training on, so that a whole run takes milliseconds and its best mixture is known.

Four domains: "useful" pulls to where both targets are, "near" half the way, "aside" pulls along
directions of its own, "away" to the opposite side. Steps read text by quota: a domain of a small
share is absent from some.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from tikmix_hf.mixers import Signals
from tikmix_hf.mixture import Supply, nearest

NAMES, TARGETS = ("useful", "near", "aside", "away"), ("arc", "piqa")
STEP_SIZE = 0.02
# What mixers are told: Adam's rates are that much below those of plain gradient descent.
LEARNING_RATE = 2e-3
ROWS, TOKENS_PER_ROW = 16, 128
STEPS_PER_UPDATE, NUM_UPDATES = 25, 8


class Losses(NamedTuple):
    """Quadratics, one per row."""

    centres: np.ndarray
    curvatures: np.ndarray
    floors: np.ndarray

    def at(self, theta):
        away = theta - self.centres
        return self.floors + 0.5 * np.einsum("ip,ipq,iq->i", away, self.curvatures, away)

    def gradients(self, theta):
        return np.einsum("ipq,iq->ip", self.curvatures, theta - self.centres)

    def of(self, order):
        return Losses(self.centres[order], self.curvatures[order], self.floors[order])


def curvatures(rng, count, size):
    """Positive definite, eigenvalues between 0.5 and 1.5."""
    rotations = [np.linalg.qr(rng.normal(size=(size, size)))[0] for _ in range(count)]
    return np.stack([q * rng.uniform(0.5, 1.5, size) @ q.T for q in rotations])


@dataclass(frozen=True)
class Problem:
    """Domains, targets, the model and where training starts."""

    names: tuple[str, ...]
    domains: Losses
    targets: Losses
    theta: np.ndarray
    reference: np.ndarray
    prior: np.ndarray

    def permuted(self, order):
        names = tuple(self.names[k] for k in order)
        prior = self.prior[order]
        return replace(self, names=names, domains=self.domains.of(order), prior=prior)

    def trained(self, theta, mixture, num_steps):
        """Parameters after some steps, and losses and tokens (S, K) of the batches."""
        losses, tokens, rows = [], [], np.zeros(len(self.names))
        for step in range(1, num_steps + 1):
            before, rows = rows, np.floor(step * ROWS * mixture + 0.5)
            tokens.append((rows - before) * TOKENS_PER_ROW)
            losses.append(np.where(tokens[-1] > 0, self.domains.at(theta), np.nan))
            theta = theta - STEP_SIZE * mixture @ self.domains.gradients(theta)
        return theta, np.array(losses), np.array(tokens)

    def target_loss(self, theta):
        return self.targets.at(theta).mean()


def problem(seed=0):
    rng = np.random.default_rng(seed)
    size = 8
    goal, aside = np.zeros(size), np.zeros(size)
    goal[:4], aside[4:] = 1.0, 1.0
    centres = np.stack([goal, 0.5 * goal + 0.2 * aside, aside, -goal])
    domains = Losses(centres, curvatures(rng, 4, size), np.array([2.0, 2.2, 2.6, 1.8]))
    apart = 0.2 * rng.normal(size=size)
    targets = Losses(
        np.stack([goal + apart, goal - apart]), curvatures(rng, 2, size), np.array([1.5, 2.5])
    )
    prior = np.array([0.2, 0.3, 0.3, 0.2])
    start = Problem(NAMES, domains, targets, np.zeros(size), np.zeros(size), prior)
    reference, *_ = start.trained(start.theta, np.full(4, 0.25), 500)
    return replace(start, reference=reference)


def supply(now, seen, num_tokens):
    total = NUM_UPDATES * STEPS_PER_UPDATE * ROWS * TOKENS_PER_ROW
    tokens = total * np.linspace(0.6, 1.2, len(now.names))[np.argsort(np.argsort(now.names))]
    row_tokens = np.full(len(tokens), float(TOKENS_PER_ROW))
    return Supply(now.prior, tokens, seen, (total - num_tokens) / TOKENS_PER_ROW, row_tokens)


def measured(now, theta, mixture, step, batches=None, seen=None):
    """All signals but those of probes and lookaheads."""
    domain, target = now.domains.gradients(theta), now.targets.gradients(theta)
    losses, tokens = batches if batches else (None, None)
    seen = np.zeros(len(now.names)) if seen is None else seen
    return Signals(
        step=step,
        domains=now.names,
        targets=TARGETS,
        mixture=mixture,
        supply=supply(now, seen, seen.sum()),
        sample=step * ROWS,
        learning_rate=LEARNING_RATE,
        influence=target @ domain.T,
        stderr=np.zeros((2, len(now.names))),
        alignment=target @ domain.T,
        gradient_norms=np.linalg.norm(domain, axis=1) + 0.5,  # the 0.5: noise of a batch
        domain_losses=now.domains.at(theta),
        target_losses=now.targets.at(theta),
        train_losses=losses,
        train_tokens=tokens,
        excess_losses=np.maximum(now.domains.at(theta) - now.domains.at(now.reference), 0.0),
    )


def with_probes(now, mixer, state, signals, theta):
    """The signals, once probes were trained on and lookaheads looked at; and the parameters."""
    steps = mixer.probe_steps(len(now.names))
    if steps:
        losses, mixtures = [now.targets.at(theta)], mixer.probe_mixtures(state, signals)
        if mixer.constraints:
            allowed = mixer.constraints.polytope(now.names, supply=signals.supply)
            mixtures = np.array([nearest(mixture, allowed) for mixture in mixtures])
        for mixture, num_steps in zip(mixtures, steps, strict=True):
            theta, *_ = now.trained(theta, mixture, num_steps)
            losses.append(now.targets.at(theta))
        signals = replace(signals, probe_losses=np.array(losses), probe_mixtures=mixtures)
    if mixer.num_lookahead:
        asked = mixer.lookahead(state, signals)
        ahead = STEP_SIZE * asked.num_steps * asked.mixtures @ now.domains.gradients(theta)
        losses = np.array([now.targets.at(theta - move) for move in ahead])
        signals = replace(signals, lookahead_losses=losses)
    return signals, theta


class Outcome(NamedTuple):
    """What a run leaves: the parameters, every mixture, the last state and signals."""

    theta: np.ndarray
    mixtures: list[np.ndarray]
    state: tuple
    signals: Signals


def run(mixer, now=None, num_updates=NUM_UPDATES, saved=None):
    """Train under a mixer; `saved(state)` stands for a checkpoint after each update."""
    now = now or problem()
    theta, mixture, state = now.theta, now.prior, mixer.init(now.prior)
    seen = np.zeros(len(now.names))
    signals, mixtures = measured(now, theta, mixture, 0), [mixture]
    if mixer.at_start:
        mixture, state = mixer.step(state, signals)
        mixtures.append(mixture)
    for update in range(1, num_updates + 1):
        theta, *batches = now.trained(theta, mixture, STEPS_PER_UPDATE)
        seen = seen + batches[1].sum(axis=0)
        signals = measured(now, theta, mixture, update * STEPS_PER_UPDATE, batches, seen)
        if mixer.at_updates and update < num_updates:
            signals, theta = with_probes(now, mixer, state, signals, theta)
            mixture, state = mixer.step(state, signals)
            mixtures.append(mixture)
        state = saved(state) if saved else state
    return Outcome(theta, mixtures, state, signals)
