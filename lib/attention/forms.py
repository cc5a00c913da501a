"""The forms of :class:`lib.attention.Attention`: what each makes of queries, keys and values.

A form has no weights. Its layer hands it what it needs, so a form of your own is a class of ten lines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from keras import ops

from .._backend import float32_or_wider
from .bidirectional import State
from .cache import Cache, as_many_heads, cached_attention, cached_step
from .chunkwise import CHUNK, chunkwise_attention, prefill, recurrent_step
from .feature_maps import FEATURE_MAPS, FeatureMap
from .functional import _log_of_decay, double_softmax_attention, linear_attention, softmax_attention

__all__ = [
    "AUTO",
    "FORMS",
    "DeltaRule",
    "DoubleSoftmax",
    "Form",
    "Gate",
    "Gated",
    "Linear",
    "Options",
    "Retention",
    "Softmax",
    "VectorGated",
]

Tensor = Any

AUTO = "auto"


@dataclass(frozen=True)
class Options:
    """What the user of a layer may choose within a form, see :class:`lib.attention.Attention`."""

    feature_map: Any = AUTO
    normalize: str | None = AUTO
    chunk: int = CHUNK


class Gate(NamedTuple):
    """A dense layer that gives numbers for each token.

    Attributes:
        name: Of the layer.
        bias: What it starts from.
        by_feature: Whether there is one number for each feature of a head's keys, instead of one a head.
        rank: Of the layer, which is a product of two, the first called ``narrow``; None for one of full rank.
    """

    name: str
    bias: float
    by_feature: bool = False
    rank: int | None = None


class Form:
    """A form of attention. Tensors are (batch, time, heads, dim), a gate (batch, time, heads[, dim]).

    A step has no time.

    Keys and values may have fewer heads than queries, each for several of them in a row.

    Attributes:
        causal: What ``causal`` may be.
        gate: The gate, if it has one.
        weighs_pairs: Whether there is a weight for each pair of a query and a key, that a mask of pairs or dropout
            can fall on.
        normalizations: What ``normalize`` may be, the habit of the form first.
    """

    causal: tuple[bool, ...] = (False, True)
    gate: Gate | None = None
    weighs_pairs: bool = False
    normalizations: tuple[str | None, ...] = ()

    def resolved(self, options: Options) -> Options:
        """The options with the habits of the form in place of "auto".

        Raises:
            ValueError: The form has no such option.
        """
        return replace(options, feature_map=self.feature_map(options), normalize=self.normalization(options))

    def feature_map(self, options: Options) -> Any:
        """φ, of which most forms have none."""
        if options.feature_map != AUTO:
            raise ValueError(f"feature_map must be left at 'auto' in this form, got {options.feature_map!r}")
        return None

    def normalization(self, options: Options) -> str | None:
        """What outputs are divided by."""
        if options.normalize == AUTO:
            return next(iter(self.normalizations), None)
        if options.normalize not in self.normalizations:
            allowed = " or ".join(map(repr, (AUTO, *self.normalizations)))
            raise ValueError(f"normalize must be {allowed} in this form, got {options.normalize!r}")
        return options.normalize

    def turns(self, options: Options) -> bool:  # noqa: ARG002
        """Whether its products of queries and keys tell distances if both are turned by :mod:`.rotary`."""
        return False

    def scaled(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys, each divided by d^{1/4}, so that qᵀk has the size it has under the softmax."""
        scale = q.shape[-1] ** -0.25
        return q * scale, k * scale

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        causal: bool,
        mask: Tensor | None,
        gate: Tensor | None,
        options: Options,
        attention_mask: Tensor | None = None,
        dropout: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """The outputs of all queries; the last two arguments are for forms that weigh pairs."""
        raise NotImplementedError

    def prefill(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        state: Any,
        *,
        mask: Tensor | None,
        gate: Tensor | None,
        options: Options,
        capacity: int | None,
    ) -> tuple[Tensor, Any]:
        """The outputs of queries that come after a state, None at the start, and what is to be remembered."""
        raise NotImplementedError

    def step(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        state: Any,
        *,
        mask: Tensor | None,
        gate: Tensor | None,
        options: Options,
        capacity: int | None,
    ) -> tuple[Tensor, Any]:
        """The output of one query more, and what is to be remembered."""
        raise NotImplementedError


class Softmax(Form):
    """The attention of the Transformer, with or without the fused kernel of the backend."""

    weighs_pairs = True

    def __init__(self, fused: bool = False):
        self.fused = fused

    def turns(self, options: Options) -> bool:  # noqa: ARG002
        """Its scores are products."""
        return True

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        causal: bool,
        mask: Tensor | None,
        attention_mask: Tensor | None = None,
        dropout: Callable[[Tensor], Tensor] | None = None,
        **_: Any,
    ) -> Tensor:
        """All scores, then their softmax. The fused kernel drops no weight, so it is not used while some are."""
        return softmax_attention(
            q,
            *_for_each_query(q, k, v),
            causal=causal,
            mask=mask,
            attention_mask=attention_mask,
            scale=1.0,
            dropout=dropout,
            fused=self.fused and dropout is None,
        )

    def prefill(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        state: Cache | None,
        *,
        mask: Tensor | None,
        capacity: int | None,
        **_: Any,
    ) -> tuple[Tensor, Cache]:
        """The keys and values are kept."""
        return cached_attention(q, k, v, state, mask=mask, capacity=capacity, scale=1.0, fused=self.fused)

    def step(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        state: Cache | None,
        *,
        mask: Tensor | None,
        capacity: int | None,
        **_: Any,
    ) -> tuple[Tensor, Cache]:
        """One key and value more are kept."""
        return cached_step(q, k, v, state, mask=mask, capacity=capacity, scale=1.0)


class DoubleSoftmax(Form):
    """Efficient Attention. Its softmax over time sees the future."""

    causal = (False,)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None, **_: Any) -> Tensor:
        """Two softmaxes, none over pairs."""
        return double_softmax_attention(q, *_for_each_query(q, k, v), mask=mask)


class Linear(Form):
    """A feature map in place of the softmax: one state, to which every token adds."""

    normalizations = ("sum", "rms", None)

    def feature_map(self, options: Options) -> Any:
        """φ: elu + 1, unless the options say otherwise."""
        given = "elu+1" if options.feature_map == AUTO else options.feature_map
        signed = self.normalization(options) != "sum"
        if isinstance(given, str):
            known = given in FEATURE_MAPS
        else:
            known = signed if given is None else isinstance(given, FeatureMap) or callable(given)
        if not known:
            names = ", ".join(map(repr, FEATURE_MAPS))
            raise ValueError(
                f"feature_map must be one of {names}, a FeatureMap, a function, or, unless normalize is 'sum', "
                f"None, got {given!r}"
            )
        return given

    def turns(self, options: Options) -> bool:
        """Without φ. The φ of a turned vector tells no distances."""
        return options.feature_map is None

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        causal: bool,
        mask: Tensor | None,
        gate: Tensor | None,
        options: Options,
        **_: Any,
    ) -> Tensor:
        """One sum for all queries, or chunk by chunk."""
        k, v = _for_each_query(q, k, v)
        phi, normalize = options.feature_map, options.normalize
        if not causal:
            return linear_attention(q, k, v, phi, mask=mask, normalize=normalize)
        return chunkwise_attention(
            q, k, v, phi, normalize, mask=mask, chunk=options.chunk, **self.recurrence(q, gate)
        )

    def prefill(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        state: State | None,
        *,
        mask: Tensor | None,
        gate: Tensor | None,
        options: Options,
        **_: Any,
    ) -> tuple[Tensor, State]:
        """Chunk by chunk, from the state on."""
        given = {"mask": mask, "normalize": options.normalize, **self.recurrence(q, gate)}
        return prefill(
            q, *_for_each_query(q, k, v), state, feature_map=options.feature_map, chunk=options.chunk, **given
        )

    def step(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        state: State | None,
        *,
        mask: Tensor | None,
        gate: Tensor | None,
        options: Options,
        **_: Any,
    ) -> tuple[Tensor, State]:
        """The state is rewritten."""
        given = {"mask": mask, "normalize": options.normalize, **self.recurrence(q, gate)}
        return recurrent_step(q, *_for_each_query(q, k, v), state, feature_map=options.feature_map, **given)

    def recurrence(self, q: Tensor, gate: Tensor | None) -> dict[str, Tensor]:  # noqa: ARG002
        """``log_decay`` and ``beta``, numbers for each token, of the forms that have them."""
        return {}


class Retention(Linear):
    """A state that fades at a fixed rate a head. As all that follow: causal, no feature map, outputs normalized."""

    causal, normalizations = (True,), ("rms", None)

    def feature_map(self, options: Options) -> None:
        """There is none."""
        return Form.feature_map(self, options)

    def recurrence(self, q: Tensor, gate: Tensor | None) -> dict[str, Tensor]:  # noqa: ARG002
        """The log γ of each head."""
        return {"log_decay": ops.broadcast_to(_log_of_decay(None, q.shape[-2]), ops.shape(q)[:-1])}


class Gated(Retention):
    """A state that fades as each token says: log γ = log σ(x W + b)."""

    gate = Gate("gate", bias=4.0)

    def recurrence(self, q: Tensor, gate: Tensor | None) -> dict[str, Tensor]:  # noqa: ARG002
        """The log γ of each head and token."""
        return {"log_decay": ops.log_sigmoid(float32_or_wider(gate))}


class VectorGated(Retention):
    """A state whose rows fade apart, as each token says: log γ = log σ(x W₁W₂ + b) / 16 for each feature of a key.

    Source: Yang et al. 2023 (GLA, arXiv 2312.06635), section 4: W₁W₂ of rank 16, and the sixteenth root.
    """

    gate = Gate("gate", bias=0.0, by_feature=True, rank=16)

    def turns(self, options: Options) -> bool:  # noqa: ARG002
        """The two features of a pair fade apart, which a turn would mix."""
        return False

    def recurrence(self, q: Tensor, gate: Tensor | None) -> dict[str, Tensor]:  # noqa: ARG002
        """The log γ of each head, token and feature."""
        return {"log_decay": ops.log_sigmoid(float32_or_wider(gate)) / 16}


class DeltaRule(Retention):
    """A state in which each token overwrites what its key stands for, at the rate β = σ(x W)."""

    gate = Gate("rate", bias=0.0)

    def scaled(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """Queries and keys of length 1."""
        return _direction(q), _direction(k)

    def recurrence(self, q: Tensor, gate: Tensor | None) -> dict[str, Tensor]:  # noqa: ARG002
        """The β of each head and token."""
        return {"beta": ops.sigmoid(gate)}


FORMS: dict[str, Form] = {
    "softmax": Softmax(),
    "fused softmax": Softmax(fused=True),
    "double softmax": DoubleSoftmax(),
    "linear": Linear(),
    "retention": Retention(),
    "gated": Gated(),
    "vector gated": VectorGated(),
    "delta rule": DeltaRule(),
}


def _for_each_query(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values with as many heads as the queries have."""
    return as_many_heads(k, q.shape[-2]), as_many_heads(v, q.shape[-2])


def _direction(x: Tensor) -> Tensor:
    """Vectors of length 1 along the last axis; 0 stays 0."""
    squares = ops.sum(ops.square(float32_or_wider(x)), axis=-1, keepdims=True)
    return ops.cast(x * ops.cast(ops.rsqrt(ops.where(squares > 0, squares, 1)), x.dtype), x.dtype)
