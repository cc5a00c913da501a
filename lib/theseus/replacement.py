"""The chain of modules, each of which is in training now the predecessor, now the successor."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
from keras import ops, tree

from .._arguments import items, one_of
from .._backend import is_known
from .._layers import BuiltBySymbols, integer_seed, serialized
from ._modules import choose, is_continuous, mix, modules
from .rates import checked_rate, rate_at

__all__ = ["GATES", "ModuleReplacement"]

Tensor = Any
Layers = Sequence[keras.layers.Layer]
Schedule = Callable[[Tensor], Any]

#: How a gate z with mean p is drawn: see :class:`ModuleReplacement`.
GATES = ("batch", "sample", "uniform", "mean")

_serializable = keras.saving.register_keras_serializable(package="proof_by_running")


@_serializable
class ModuleReplacement(BuiltBySymbols):
    """A chain of modules, each of which is in training now the predecessor, now the successor.

    Out of training it is the chain of all successors. In training each call draws the gates anew, independently
    for each module, and counts a step:

    ============= ========================================== ==========================================
    ``gates``     z                                          runs
    ============= ========================================== ==========================================
    ``"batch"``   0 or 1, one a module                       only the module that was chosen
    ``"sample"``  0 or 1, one a module and sample            both modules
    ``"uniform"`` uniform in [max(0, 2p−1), min(1, 2p)]       both; x ← (1 − z) F_p(x) + z F_s(x)
    ``"mean"``    z = p, without chance                      both; x ← (1 − z) F_p(x) + z F_s(x)
    ============= ========================================== ==========================================

    The predecessors are frozen, here and in any other model that uses them, and stay so if a model that holds this
    layer is set trainable. They run without dropout and keep their statistics, as in inference.

    What all modules share, as embeddings and head often are, stands before and after this layer, and is trained or
    frozen as its ``trainable`` says. Embeddings or a head of its own are one more module.

    Args:
        predecessors: The modules of the trained network, in their order. A module is a layer, or a list of layers
            that are applied one after another. What passes between layers is a tensor or nested tensors. Of
            ``mask`` and ``training`` each layer gets what its ``call`` takes: the first layer the mask of each
            input, all others the same mask, which the first one may make.
        successors: As many modules. The layers may be new or have weights.
        rate: Replacement rate p in [0, 1]; or a schedule: any function of the step, a float32 tensor (), such as
            :func:`curriculum`, one of ``keras.optimizers.schedules``, or your own. It returns a number in [0, 1],
            or a tensor, which is clipped to [0, 1]. In a graph it is traced once.
        gates: One of :data:`GATES`.
        seed: Seed of the gates: an integer, a ``keras.random.SeedGenerator``, from which one is drawn, or None.
        **kwargs: Arguments of every Keras layer.

    Attributes:
        iterations: How many steps of training there have been, an int32 variable, as that of Keras's optimizers.
        predecessors: The modules of the predecessor, each a layer whose ``layers`` are those of the module.
        successors: The modules of the successor, likewise.

    Raises:
        ValueError: No modules, or not as many successors as predecessors; a module that is no layer; a layer in
            both; a rate outside [0, 1]; an unknown kind of gates. When built: a predecessor and its successor give
            different structures, shapes or dtypes; or gates cannot mix them, as the mean of integers. When called:
            a schedule gives NaN. Under XLA and ``jax.jit``, where that cannot be known, the output is NaN. When
            saved: a schedule is not registered with ``keras.saving``, as a lambda.

    Note:
        The steps and the states of gates and dropout are saved with the weights, so a model that was saved and
        loaded goes on where it stopped. (Keras forgets the state of dropout elsewhere in the model.) Losses that a
        predecessor adds, and changes that it makes to its variables, are dropped.

        With ``seed``, and with seeds for the dropout and the weights of all layers, training draws the same numbers
        again. In one thread it repeats to the bit. In several, TensorFlow's graph may round a gradient of wide
        blocks otherwise from run to run; which kernel does so is not known. A layer that takes part in several
        trainings, as embeddings that all of them share, goes on with its dropout where the last one left it, even
        if it is frozen: give each training a :func:`twin` of it.

    Example:
        >>> dense = keras.layers.Dense
        >>> old, new = [[dense(8), dense(8)], [dense(8), dense(3)]], [dense(8), dense(3)]
        >>> body = ModuleReplacement(old, new, rate=0.5, seed=0)
        >>> x = ops.ones((2, 4))
        >>> tuple(body(x, training=True).shape), int(body.iterations)
        ((2, 3), 1)
        >>> small = body.successor()
        >>> bool(ops.all(small(x) == body(x))), len(small.layers)
        (True, 2)
    """

    def __init__(
        self,
        predecessors: Iterable[keras.layers.Layer | Layers],
        successors: Iterable[keras.layers.Layer | Layers],
        rate: float | Schedule = 0.5,
        gates: str = "batch",
        seed: int | keras.random.SeedGenerator | None = None,
        **kwargs: Any,
    ):
        super().__init__(**{"autocast": False, **kwargs})  # the modules cast their inputs themselves
        predecessors, successors = modules("predecessors", predecessors), modules("successors", successors)
        if len(predecessors) != len(successors):
            raise ValueError(f"successors must be {len(predecessors)}, one a predecessor, got {len(successors)}")
        old = {id(layer) for module in predecessors for layer in module.layers}
        for i, module in enumerate(successors):
            for layer in module.layers:
                if id(layer) in old:
                    raise ValueError(
                        f"successors[{i}]: {layer.name!r} is a predecessor too and frozen; take its twin"
                    )
        self.gates, self.seed = one_of("gates", gates, GATES), integer_seed(seed)
        self.predecessors, self.successors = predecessors, successors
        self._freeze()
        self.schedule = rate if callable(rate) else None
        start = 0.0 if callable(rate) else checked_rate("rate", rate)
        state = {"trainable": False, "autocast": False}
        self._rate = self.add_weight((), keras.initializers.Constant(start), "float32", **state, name="rate")
        self.iterations = self.add_weight((), "zeros", "int32", **state, name="iterations")
        self.seed_generator = keras.random.SeedGenerator(self.seed)
        self.supports_masking = True

    @property
    def rate(self) -> Tensor:
        """The replacement rate p of the next step, float32 (). It can be set, if it follows no schedule."""
        if self.schedule is None:
            return self._rate.value
        return rate_at(self.schedule, ops.cast(self.iterations.value, "float32"))

    @rate.setter
    def rate(self, rate: float) -> None:
        """Sets the rate of the next step."""
        if self.schedule is not None:
            raise ValueError(f"rate: it follows the schedule {self.schedule!r} and cannot be set, got {rate!r}")
        self._rate.assign(checked_rate("rate", rate))

    @property
    def trainable(self) -> bool:
        """Whether the successors are trained. The predecessors never are."""
        return keras.layers.Layer.trainable.fget(self)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        """Sets whether the successors are trained."""
        keras.layers.Layer.trainable.fset(self, value)
        if hasattr(self, "predecessors"):
            self._freeze()

    def _freeze(self) -> None:
        for module in self.predecessors:
            # On TensorFlow, Keras skips a value that is there already, even if layers have come since.
            for value in (True, False):
                module.trainable = value

    def build_from(self, x: Any, **_: Any) -> None:
        """Builds all modules, and compares what they give."""
        for i, (predecessor, successor) in enumerate(zip(self.predecessors, self.successors, strict=True)):
            before, after = predecessor(x), successor(x)
            expected, given = (tree.map_structure(lambda y: f"{y.dtype} {y.shape}", y) for y in (before, after))
            if expected != given:
                shape = tree.map_structure(lambda y: y.shape, x)
                raise ValueError(
                    f"successors[{i}] must give what predecessors[{i}] gives, {expected} for an input of shape "
                    f"{shape}, got {given}"
                )
            self._require_mixable(i, tree.flatten(after))
            x = after
        self._freeze()  # also the layers that a predecessor has only made now

    def _require_mixable(self, i: int, outputs: list[Tensor]) -> None:
        if self.gates in ("uniform", "mean") and not all(map(is_continuous, outputs)):
            found = ", ".join(y.dtype for y in outputs)
            raise ValueError(
                f"gates must choose an output that has no mean, successors[{i}] gives {found}, got {self.gates!r}"
            )
        if self.gates == "sample" and not all(len(y.shape) for y in outputs):
            raise ValueError(
                f"gates must be one a batch for an output of shape (), as of successors[{i}], got 'sample'"
            )

    def call(self, x: Any, mask: Any = None, training: bool | None = None) -> Any:
        """What the last module makes of what the first makes of x.

        Args:
            x: What the first module takes: a tensor or nested tensors.
            mask: Mask for the first layer, such as bool (batch, time), for several inputs one of each.
            training: Whether to draw gates; without, all modules are successors.
        """
        rest = self.compute_mask(x, mask)
        masks = [(mask, rest), *[(rest, rest)] * (len(self.successors) - 1)]
        if not training:
            for successor, both in zip(self.successors, masks, strict=True):
                x = successor(x, masks=both, training=False)
            return x
        z = self.draw(ops.shape(tree.flatten(x)[0])[0])
        traced = self.schedule is not None and not is_known(self.iterations.value)
        lost = ops.isnan(self.rate) if traced else None
        self.iterations.assign_add(1)
        step = choose if self.gates == "batch" else mix
        for i, (predecessor, successor) in enumerate(zip(self.predecessors, self.successors, strict=True)):
            x, losses = step(z[i], predecessor, successor, x, masks[i])
            for loss in losses:
                self.add_loss(loss)
        return x if lost is None else tree.map_structure(lambda y: _or_nan(y, lost), x)

    def draw(self, batch: Tensor | int) -> Tensor:
        """Gates of a step for so many samples: bool or float32, (modules,), or by sample (modules, batch)."""
        p, n = self.rate, len(self.successors)
        if self.gates == "mean":
            return ops.broadcast_to(p, (n,))
        noise = keras.random.uniform((n, batch) if self.gates == "sample" else (n,), seed=self.seed_generator)
        if self.gates == "uniform":
            return p + ops.minimum(p, 1 - p) * (2 * noise - 1)
        return noise < p

    def compute_mask(self, x: Any, previous_mask: Any = None) -> Any:
        """The mask that the first module makes or hands on."""
        return self.successors[0].layers[0].compute_mask(x, previous_mask)

    def mixture(
        self,
        replaced: Sequence[bool],
        before: Iterable[keras.layers.Layer] = (),
        after: Iterable[keras.layers.Layer] = (),
    ) -> keras.Sequential:
        """A plain model in which some modules are replaced. It shares the weights.

        Args:
            replaced: For each module, whether it is the successor.
            before: Layers before the first module.
            after: Layers after the last module.

        Raises:
            ValueError: ``replaced`` has not one boolean a module.
        """
        replaced = items("replaced", replaced)
        if len(replaced) != len(self.successors) or any(new not in (True, False) for new in replaced):
            raise ValueError(f"replaced must have {len(self.successors)} booleans, one a module, got {replaced!r}")
        pairs = zip(replaced, self.predecessors, self.successors, strict=True)
        layers = [layer for new, p, s in pairs for layer in (s if new else p).layers]
        return keras.Sequential([*before, *layers, *after])

    def successor(
        self, before: Iterable[keras.layers.Layer] = (), after: Iterable[keras.layers.Layer] = ()
    ) -> keras.Sequential:
        """The small model: all modules replaced, see :meth:`mixture`. It predicts what this layer predicts."""
        return self.mixture([True] * len(self.successors), before, after)

    def save_own_variables(self, store: dict[str, Any]) -> None:
        """Saves rate, step and the states of all random numbers in here, which Keras would leave out."""
        for i, variable in enumerate(self._state()):
            store[str(i)] = ops.convert_to_numpy(variable.value)

    def load_own_variables(self, store: dict[str, Any]) -> None:
        """Loads what :meth:`save_own_variables` saved."""
        for i, variable in enumerate(self._state()):
            variable.assign(store[str(i)])

    def _state(self) -> list[keras.Variable]:
        weights = {id(weight) for weight in self.weights}
        return [self._rate, self.iterations, *(v for v in self.variables if id(v) not in weights)]

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this layer, without its weights."""
        save = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "predecessors": [[save(layer) for layer in module.layers] for module in self.predecessors],
            "successors": [[save(layer) for layer in module.layers] for module in self.successors],
            "rate": serialized("rate", self.schedule)
            if self.schedule
            else float(ops.convert_to_numpy(self._rate.value)),
            "gates": self.gates,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ModuleReplacement:
        """Returns the layer that has this configuration."""
        load = keras.saving.deserialize_keras_object
        modules = {
            name: [[load(layer) for layer in module] for module in config[name]]
            for name in ("predecessors", "successors")
        }
        rate = config["rate"]
        return cls(**{**config, **modules, "rate": load(rate) if isinstance(rate, dict) else rate})


def _or_nan(y: Tensor, lost: Tensor) -> Tensor:
    """The tensor, NaN if there is no rate. Integers stay, as they have no NaN."""
    return ops.where(lost, ops.cast(math.nan, y.dtype), y) if is_continuous(y) else y
