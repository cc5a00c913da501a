"""The figures of chapter 7; each draws into a new current figure what it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from lib.experiments.attention import costs
from lib.experiments.attention.decoder import FORMS, best_rate
from lib.workbench.records import Record

#: How the contestants of a chart are drawn: colour of the cycle, line.
LINES = {
    "causal softmax": ("C3", ":"),
    "causal fused softmax": ("C1", "-"),
    "causal linear, all states": ("C4", "--"),
    "causal linear": ("C0", "-"),
    "delta rule": ("C2", "-."),
}


def maps(matrices: Mapping[str, NDArray]) -> None:
    """Matrices of weights side by side, on one scale from 0 to the largest entry of all."""
    top = max(W.max() for W in matrices.values())
    _, axes = plt.subplots(1, len(matrices), figsize=(3.2 * len(matrices), 3.4))
    for ax, (name, W) in zip(np.atleast_1d(axes), matrices.items(), strict=True):
        ax.imshow(W, vmin=0, vmax=top, interpolation="nearest")
        ax.set(title=f"{name}\nlargest weight {W.max():.2f}", xlabel="key")
        ax.grid(visible=False)
    np.atleast_1d(axes)[0].set_ylabel("query")


def costs_of(n: int, d: int, width: int = 512) -> Figure:
    """Bars of the operations forward, and of the bytes that training holds, of each form, logarithmic."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.4, 2.6), sharey=True)
    heads, names = width // d, list(LINES)
    left.barh(names, [costs.flops(form, n, d, heads) for form in names], color=[LINES[f][0] for f in names])
    right.barh(names, [costs.bytes_needed(form, n, d, heads) for form in names], color=[LINES[f][0] for f in names])
    left.set(xscale="log", xlim=(1e6, 1e14), xlabel="operations, forward")
    right.set(xscale="log", xlim=(1e5, 1e13), xlabel="bytes held, forward and backward")
    figure.suptitle(f"{n:,} tokens, {heads} heads of {d}", fontsize=10)
    return figure


def chart(
    times: Record, memory: Record, live: Mapping[str, tuple[Sequence[int], Sequence[float]]] | None = None
) -> None:
    """Seconds and bytes of a step against the number of tokens, both logarithmic; live seconds as circles."""
    _, axes = plt.subplots(1, 2, figsize=(9, 4.2))
    for ax, record, key, unit in ((axes[0], times, "seconds", 1.0), (axes[1], memory, "bytes", 2.0**20)):
        for form, (color, line) in LINES.items():
            n, y = measured(record, form, key)
            ax.plot(n, np.array(y) / unit, line, color=color, marker=".", label=form)
        ax.set(xscale="log", yscale="log", xlabel="tokens n")
        ax.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    for form, (n, seconds) in (live or {}).items():
        axes[0].plot(n, seconds, "o", mfc="none", ms=8, color=LINES[form][0], label=f"{form}, here")
    axes[0].set(ylabel="seconds, forward and backward")
    axes[1].set(ylabel="MiB beyond the inputs")
    axes[0].legend(fontsize=8)
    _label(times)


def measured(record: Record, form: str, key: str) -> tuple[list[int], list[float]]:
    """The numbers of tokens at which a form was measured, and what was measured there.

    Example:
        >>> from lib.workbench.measure import Device
        >>> rows = ({"n": 64, "form": "a", "seconds": 2.0}, {"n": 128, "form": "a", "skipped": "too long"})
        >>> measured(Record(Device("an abacus", "cpu", 1, None), {}, "2026-01-31", "", "cpu", rows), "a", "seconds")
        ([64], [2.0])
    """
    rows = [row for row in record.where(form=form) if row.get(key) is not None]
    return [row["n"] for row in rows], [row[key] for row in rows]


def concentration(scales: Sequence[float], portraits: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """Entropy and largest weight of each attention against the scale of its queries and keys."""
    _, axes = plt.subplots(1, 2, figsize=(8.4, 3.4))
    for i, (name, of_scales) in enumerate(portraits.items()):
        for ax, key in zip(axes, ("entropy", "largest"), strict=True):
            ax.plot(scales, [portrait[key] for portrait in of_scales], marker="osDv^P"[i], ms=4, label=name)
    axes[0].set(xlabel="standard deviation of q and k", ylabel="entropy of a row / ln n")
    axes[1].set(xlabel="standard deviation of q and k", ylabel="n × largest weight", yscale="log")
    axes[0].legend(fontsize=8)


def capacity(pairs: Sequence[int], rows: Mapping[str, Sequence[Mapping[str, ArrayLike]]], dim: int) -> None:
    """Error and hits of reading from a state, against the number of pairs written, with the law (N − 1)/d."""
    _, axes = plt.subplots(1, 2, figsize=(8.4, 3.2))
    for name, marker in zip(rows, "os", strict=False):
        for ax, key in zip(axes, ("errors", "found"), strict=True):
            ax.plot(pairs, [np.mean(row[key]) for row in rows[name]], marker=marker, label=name)
    axes[0].plot(pairs, (np.array(pairs) - 1) / dim, "k:", label="(N − 1)/d")
    axes[0].set(yscale="log", xscale="log", xlabel="pairs N", ylabel="relative squared error")
    axes[1].set(xscale="log", xlabel="pairs N", ylabel="share of values found", ylim=(-0.03, 1.03))
    for ax in axes:
        ax.axvline(dim, lw=0.8, color="grey")
        ax.set_xticks(pairs, map(str, pairs))
        ax.minorticks_off()
    axes[0].legend(fontsize=8)


def recalled(record: Record) -> None:
    """The share of queries answered, against the number of pairs: mean and range of the seeds, at the best rate."""
    _, ax = plt.subplots(figsize=(6.4, 3.6))
    for i, form in enumerate(FORMS):
        rows = record.where(form=form, rate=best_rate(record, form))
        accuracy = np.array([row["accuracy"] for row in rows])
        pairs = rows[0]["pairs"]
        ax.plot(pairs, accuracy.mean(axis=0), marker="osDv^P"[i], ms=5, label=form)
        ax.fill_between(pairs, accuracy.min(axis=0), accuracy.max(axis=0), alpha=0.2)
    ax.set(xscale="log", xlabel="pairs told", ylabel="share of queries answered", ylim=(-0.03, 1.03))
    ax.set_xticks(pairs, map(str, pairs))
    ax.minorticks_off()
    ax.legend(fontsize=8)
    _label(record)


def read(record: Record) -> None:
    """Left the loss of training, right the bits a character on the test text by the place in the window."""
    _, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6))
    for form in sorted({row["form"] for row in record.rows}, key=list(FORMS).index):
        rows = record.where(form=form)
        losses = np.mean([row["losses"] for row in rows], axis=0)
        left.plot(50 * np.arange(1, len(losses) + 1), losses, label=form)
        by_place = np.mean([row["by_place"] for row in rows], axis=0)
        right.plot(16 * np.arange(len(by_place)) + 8, by_place, marker=".", label=form)
    left.set(xlabel="recurrent_step", ylabel="bits a character, training", ylim=(2, 4))
    right.set(xlabel="place in the window", ylabel="bits a character, test")
    left.legend(fontsize=8)
    _label(record)


def token(record: Record) -> None:
    """Time of one more token, and the bytes kept for it, against the number of tokens before."""
    _, axes = plt.subplots(1, 2, figsize=(8.4, 3.2))
    for way, marker in (("cache", "o"), ("concatenated cache", "v"), ("state", "s")):
        rows = [row for row in record.where(way=way) if "seconds" in row]
        known = [row["known"] for row in rows]
        axes[0].plot(known, [1e3 * row["seconds"] for row in rows], marker=marker, label=way)
        if way != "concatenated cache":
            axes[1].plot(known, [row["bytes"] / 2**20 for row in rows], marker=marker)
    axes[0].set(xscale="log", yscale="log", xlabel="tokens so far", ylabel="ms for one more")
    axes[1].set(xscale="log", yscale="log", xlabel="tokens so far", ylabel="MiB kept, one layer")
    axes[0].legend(fontsize=8)
    _label(record)


def layer(record: Record) -> None:
    """How much faster a whole layer is with linear attention: by operations, and measured."""
    _, ax = plt.subplots(figsize=(6.4, 3.4))
    n = np.geomspace(128, 8192, 50).astype(int)
    for size, line in ((64, "-"), (256, "--")):
        linear = [costs.layer_flops(int(m), "linear", features=size, values=size) for m in n]
        quotient = [costs.layer_flops(int(m)) / other for m, other in zip(n, linear, strict=True)]
        ax.plot(n, quotient, line, color="C0", label=f"operations, linear heads of {size}")
    for form, marker in (("softmax", "o"), ("fused softmax", "s")):
        rows = record.where(backward=True)
        value, low, high = np.array([row["speedup"][form] for row in rows]).T
        tokens, errors = [row["n"] for row in rows], [value - low, high - value]
        ax.errorbar(tokens, value, errors, fmt=marker, label=f"measured against {form}")
    ax.axhline(1, lw=0.8, color="grey")
    ax.set(xscale="log", xlabel="tokens n", ylabel="softmax layer / linear layer")
    ax.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
    ax.legend(fontsize=8)
    _label(record)


def variance(norms: Sequence[float], errors: Mapping[str, Sequence[float]], features: int) -> None:
    """The relative error of random features against the length of q and k, with the law for independent ones."""
    _, ax = plt.subplots(figsize=(6.4, 3.2))
    for (name, values), marker in zip(errors.items(), "os", strict=False):
        ax.plot(norms, values, marker=marker, label=name)
    ax.axhline(1, lw=0.8, color="grey")
    ax.set(yscale="log", xlabel="length of q and of k", ylabel=f"relative error, {features} features")
    ax.legend(fontsize=8)


def _label(record: Record) -> None:
    """Says above the figure where its numbers come from."""
    plt.gcf().suptitle(f"{record.versions['backend']}, {record.label()}", fontsize="small", x=0.99, ha="right")
