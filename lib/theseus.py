"""BERT-of-Theseus: a network is made smaller by replacing its parts, one at a time and at random, as it trains.

A trained network, the *predecessor*, is a chain of modules. For each module F_p there is a *successor* F_s, which
is smaller and takes and gives the same shapes. In each step of training a gate z is drawn for each module::

    x ← F_s(x)  if z = 1,        x ← F_p(x)  if z = 0,        z = 1 with probability p, the replacement rate

The predecessor is frozen. Gradients pass through both kinds of modules and change the successors only, and the
loss is that of the task. In the end all modules are successors, and the predecessor is thrown away.

=========================== =====================================================================================
:class:`ModuleReplacement`  the chain: a layer that draws the gates, and runs what they chose
:func:`curriculum`          a rate that rises to 1 with the steps; :func:`anti_curriculum` one that falls
:class:`ReplacementRate`    a callback that reports the rate, and may set it before each epoch
:func:`twin`                a layer with the same weights, to start a successor from
=========================== =====================================================================================

Any layers of equal interface will do, blocks of ``lib.bert`` among them. With an ``encoder`` of six trained
blocks and the ``head`` of a task::

    body = ModuleReplacement(
        predecessors=[encoder.blocks[0:2], encoder.blocks[2:4], encoder.blocks[4:6]],
        successors=[twin(block) for block in encoder.blocks[:3]],
        rate=curriculum(0.5, steps=1000),
    )
    embeddings = Encoder(encoder.embeddings, [])
    model = keras.Sequential([embeddings, body, head])              # train this one
    small = body.successor(before=[embeddings], after=[head])       # and keep this one

Source: Xu et al. 2020 (arXiv 2002.02925); Su Jianlin, https://kexue.fm/archives/7575. Their letters differ: the
article's ε = 1 − z marks the predecessor.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import keras
from keras import ops

__all__ = ["GATES", "ModuleReplacement", "ReplacementRate", "anti_curriculum", "curriculum", "twin"]

Tensor = Any
Shape = tuple[int | None, ...]
Module = Sequence[keras.layers.Layer]
Schedule = keras.optimizers.schedules.LearningRateSchedule

#: How a gate z with mean p is drawn: see :class:`ModuleReplacement`.
GATES = ("batch", "sample", "uniform", "mean")

_serializable = keras.saving.register_keras_serializable(package="proof_by_running")


# --- the chain of modules -------------------------------------------------------------------------------------


@_serializable
class ModuleReplacement(keras.layers.Layer):
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
            that are applied one after another. Of ``mask`` and ``training`` each layer gets what its ``call``
            takes; all get the same mask, which the first module may make.
        successors: As many modules. The layers may be new or have weights.
        rate: Replacement rate p in [0, 1]; or a schedule, a function of the step, as :func:`curriculum` or any
            other of ``keras.optimizers.schedules``, whose values are clipped to [0, 1].
        gates: One of :data:`GATES`.
        seed: Seed of the gates.
        **kwargs: Arguments of every Keras layer.

    Raises:
        ValueError: No modules, or not as many successors as predecessors; a module that is no layer; a layer in
            both; a rate outside [0, 1]; an unknown kind of gates. When built: a predecessor and its successor give
            different shapes or dtypes.

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
        >>> tuple(body(x, training=True).shape), int(body.step)
        ((2, 3), 1)
        >>> small = body.successor()
        >>> bool(ops.all(small(x) == body(x))), len(small.layers)
        (True, 2)
    """

    def __init__(
        self,
        predecessors: Iterable[keras.layers.Layer | Module],
        successors: Iterable[keras.layers.Layer | Module],
        rate: float | Schedule = 0.5,
        gates: str = "batch",
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**{"autocast": False, **kwargs})  # the modules cast their inputs themselves
        predecessors, successors = _modules("predecessors", predecessors), _modules("successors", successors)
        if len(predecessors) != len(successors):
            raise ValueError(f"successors must be {len(predecessors)}, one a predecessor, got {len(successors)}")
        if gates not in GATES:
            raise ValueError(f"gates must be one of {', '.join(map(repr, GATES))}, got {gates!r}")
        old = {id(layer) for module in predecessors for layer in module}
        for i, module in enumerate(successors):
            for layer in module:
                if id(layer) in old:
                    raise ValueError(
                        f"successors[{i}]: {layer.name!r} is a predecessor too and frozen; take its twin"
                    )
        self.gates, self.seed = gates, seed
        # Flat lists: Keras saves the layers of a list, not those of lists within it.
        self._predecessor_sizes, self._successor_sizes = ([*map(len, m)] for m in (predecessors, successors))
        self.predecessor_layers = [layer for module in predecessors for layer in module]
        self.successor_layers = [layer for module in successors for layer in module]
        self._freeze()
        self.schedule = rate if isinstance(rate, Schedule) else None
        start = 0.0 if self.schedule else _checked_rate(rate)
        state = {"trainable": False, "autocast": False}
        self._rate = self.add_weight((), keras.initializers.Constant(start), "float32", **state, name="rate")
        self.step = self.add_weight((), "zeros", "int32", **state, name="step")
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    @property
    def predecessors(self) -> list[Module]:
        """The modules of the predecessor, each a list of layers."""
        return _cut(self.predecessor_layers, self._predecessor_sizes)

    @property
    def successors(self) -> list[Module]:
        """The modules of the successor, each a list of layers."""
        return _cut(self.successor_layers, self._successor_sizes)

    @property
    def rate(self) -> Tensor:
        """The replacement rate p of the next step, float32 (). It can be set, if it follows no schedule."""
        if self.schedule is None:
            return self._rate.value
        return ops.clip(ops.cast(self.schedule(self.step.value), "float32"), 0.0, 1.0)

    @rate.setter
    def rate(self, rate: float) -> None:
        """Sets the rate of the next step."""
        if self.schedule is not None:
            raise ValueError(f"rate: it follows the schedule {self.schedule!r} and cannot be set, got {rate!r}")
        self._rate.assign(_checked_rate(rate))

    @property
    def trainable(self) -> bool:
        """Whether the successors are trained. The predecessors never are."""
        return keras.layers.Layer.trainable.fget(self)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        """Sets whether the successors are trained."""
        keras.layers.Layer.trainable.fset(self, value)
        if hasattr(self, "predecessor_layers"):
            self._freeze()

    def _freeze(self) -> None:
        for layer in self.predecessor_layers:
            layer.trainable = False

    def __call__(self, x: Any, **kwargs: Any) -> Any:
        """Builds the modules if needed, then :meth:`call`."""
        self._build_from(x)
        return super().__call__(x, **kwargs)

    def build(self, x_shape: Shape) -> None:
        """Builds the modules for floating inputs."""
        self._build_from(keras.KerasTensor(x_shape, self.compute_dtype))

    def _build_from(self, x: Any) -> None:
        """Calls all modules with symbols, which builds them, and compares what they give."""
        if self.built:
            return
        x = keras.KerasTensor(x.shape, _dtype(x))
        for i, (predecessor, successor) in enumerate(zip(self.predecessors, self.successors, strict=True)):
            before, after = _applied(predecessor, x), _applied(successor, x)
            if (before.shape, before.dtype) != (after.shape, after.dtype):
                raise ValueError(
                    f"successors[{i}] must give what predecessors[{i}] gives, {before.dtype} {before.shape} for an "
                    f"input of shape {x.shape}, got {after.dtype} {after.shape}"
                )
            x = after
        self.built = True

    def call(self, x: Tensor, mask: Tensor | None = None, training: bool | None = None) -> Tensor:
        """What the last module makes of what the first makes of x.

        Args:
            x: What the first module takes.
            mask: Mask for all modules, such as bool (batch, time).
            training: Whether to draw gates; without, all modules are successors.
        """
        mask = self.compute_mask(x, mask)
        if not training:
            return _applied(self.successor_layers, x, mask, training=False)
        gates = self.draw(ops.shape(x)[0])
        self.step.assign_add(1)
        module = _either if self.gates == "batch" else _both
        for i, (predecessor, successor) in enumerate(zip(self.predecessors, self.successors, strict=True)):
            x, losses = module(gates[i], predecessor, successor, x, mask)
            for loss in losses:
                self.add_loss(loss)
        return x

    def draw(self, batch: Tensor | int) -> Tensor:
        """Gates of a step for so many samples: bool or float32, (modules,), or by sample (modules, batch)."""
        p, n = self.rate, len(self._successor_sizes)
        if self.gates == "mean":
            return ops.broadcast_to(p, (n,))
        noise = keras.random.uniform((n, batch) if self.gates == "sample" else (n,), seed=self.seed_generator)
        if self.gates == "uniform":
            return p + ops.minimum(p, 1 - p) * (2 * noise - 1)
        return noise < p

    def compute_mask(self, x: Any, previous_mask: Any = None) -> Any:
        """The mask that the first module makes or hands on."""
        return self.successor_layers[0].compute_mask(x, previous_mask)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Shapes and dtypes, from a call with symbols."""
        return keras.Operation.compute_output_spec(self, *args, **kwargs)

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
            ValueError: ``replaced`` has not one value a module.
        """
        if len(replaced) != len(self.successors):
            raise ValueError(f"replaced must have {len(self.successors)} values, one a module, got {replaced!r}")
        pairs = zip(replaced, self.predecessors, self.successors, strict=True)
        layers = [layer for new, old_one, new_one in pairs for layer in (new_one if new else old_one)]
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
        return [self._rate, self.step, *(v for v in self.variables if id(v) not in weights)]

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this layer, without its weights."""
        save = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "predecessors": [[save(layer) for layer in module] for module in self.predecessors],
            "successors": [[save(layer) for layer in module] for module in self.successors],
            "rate": save(self.schedule) if self.schedule else float(ops.convert_to_numpy(self._rate.value)),
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


# --- one step of one module -----------------------------------------------------------------------------------


def _either(gate: Tensor, predecessor: Module, successor: Module, x: Tensor, mask: Any) -> tuple[Tensor, list]:
    """The output of the module that the gate chose, which alone runs; and the losses that the successor added."""
    state = _Pure(successor)

    def run_predecessor() -> tuple[Tensor, list[Tensor], Tensor]:
        y = _frozen(predecessor, x, mask)
        return _reaching(y, successor), state.before, ops.zeros(())

    chosen = ops.cond(gate, lambda: state.run(x, mask), run_predecessor)
    return state.closed(*chosen)


def _both(gate: Tensor, predecessor: Module, successor: Module, x: Tensor, mask: Any) -> tuple[Tensor, list]:
    """The mean of both outputs, weighed by the gate."""
    y_p = _frozen(predecessor, x, mask)
    y_s = _applied(successor, x, mask, training=True)
    z = ops.cast(gate, y_p.dtype)
    z = ops.reshape(z, (-1,) + (1,) * (len(y_p.shape) - 1)) if len(gate.shape) else z
    return (1 - z) * y_p + z * y_s, []


def _frozen(predecessor: Module, x: Tensor, mask: Any) -> Tensor:
    """The output of a predecessor within a step of training. The losses that its layers add are dropped."""
    values = [(variable, variable.value) for layer in predecessor for variable in layer.variables]
    with keras.StatelessScope(values, collect_losses=True, initialize_variables=False):
        y = _applied(predecessor, x, mask, training=False)
    _told(run=lambda: None, training=True)  # else what comes after finds that it is out of training
    return y


class _Pure:
    """The call of a module as a function that returns its new state, instead of setting it.

    On JAX nothing may be set in a branch of ``cond``: a dropout would set the state of its random numbers, a batch
    normalisation its means. So the branch returns all state, the other one hands the old state through, and it is
    set after both.
    """

    def __init__(self, module: Module):
        self._module, self._has_losses = module, False
        self._state = [variable for layer in module for variable in layer.non_trainable_variables]
        self.before = [ops.convert_to_tensor(variable.value) for variable in self._state]

    def run(self, x: Tensor, mask: Any) -> tuple[Tensor, list[Tensor], Tensor]:
        """Output, new state, and the sum of the losses that were added, 0 without."""
        weights = [variable for layer in self._module for variable in layer.trainable_variables]
        values = [(w, w.value) for w in weights] + [*zip(self._state, self.before, strict=True)]
        with keras.StatelessScope(values, collect_losses=True, initialize_variables=False) as scope:
            y = _applied(self._module, x, mask, training=True)
            after = [scope.get_current_value(variable) for variable in self._state]
        self._has_losses = bool(scope.losses)
        return y, after, sum((ops.cast(loss, "float32") for loss in scope.losses), ops.zeros(()))

    def closed(self, y: Tensor, state: list[Tensor], loss: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Sets the state, and returns the output and the losses."""
        for variable, value in zip(self._state, state, strict=True):
            variable.assign(value)
        return y, [loss] if self._has_losses else []


def _reaching(y: Tensor, module: Module) -> Tensor:
    """The tensor y, on which the weights of a module have an influence of zero.

    Where no graph is traced, on torch and in eager TensorFlow, a weight that was not used would have no gradient
    instead of zero, and a loss that no weight reaches could not be differentiated at all.
    """
    weights = (variable.value for layer in module for variable in layer.trainable_variables)
    return y + sum(0.0 * ops.cast(ops.ravel(weight)[0], y.dtype) for weight in weights)


def _applied(module: Module, x: Tensor, mask: Any = None, training: bool = False) -> Tensor:
    """What the last layer makes of what the first makes of x."""
    for layer in module:
        told = {"mask": mask} if mask is not None and _takes(layer, "mask") else {}
        told |= {"training": training} if _takes(layer, "training") else {}
        x = _told(run=partial(layer, x, **told), training=training)
    return x


def _takes(layer: keras.layers.Layer, name: str) -> bool:
    return name in inspect.signature(layer.call).parameters


class _Told(keras.layers.Layer):
    """Runs a function as part of a call, in which layers that are not told of training find whether they are."""

    def call(self, run: Callable[[], Any], training: bool) -> Any:  # noqa: ARG002
        return run()


_told = _Told(name="told", dtype="float32", autocast=False)
_told.built = True  # there is nothing to build


# --- rates ----------------------------------------------------------------------------------------------------


def curriculum(start: float, steps: int) -> Schedule:
    """A replacement rate that rises evenly from ``start`` to 1 in so many steps, and stays there.

    With rate 0 a successor learns nothing, and with rate p it takes part in, and learns from, one step in 1/p: so
    the rate acts as a warm-up of the learning rate too.

    Args:
        start: Rate of the first step, in [0, 1].
        steps: Number of steps, at least 1.

    Raises:
        ValueError: ``start`` is outside [0, 1], or ``steps`` below 1.

    Source:
        Xu et al. 2020, section 3.3: p = min(1, kt + b).

    Example:
        >>> rate = curriculum(0.5, steps=100)
        >>> [float(rate(step)) for step in (0, 50, 100, 200)]
        [0.5, 0.75, 1.0, 1.0]
    """
    return _line(start, 1.0, steps)


def anti_curriculum(start: float, end: float, steps: int) -> Schedule:
    """A replacement rate that falls evenly from ``start`` to ``end`` in so many steps, and stays there.

    Args:
        start: Rate of the first step, in [0, 1].
        end: Rate after the last step, in [0, start].
        steps: Number of steps, at least 1.

    Raises:
        ValueError: A rate is outside [0, 1], ``end`` is above ``start``, or ``steps`` below 1.

    Source:
        Xu et al. 2020, section 4.5.

    Example:
        >>> rate = anti_curriculum(1.0, 0.5, steps=100)
        >>> [float(rate(step)) for step in (0, 50, 100, 200)]
        [1.0, 0.75, 0.5, 0.5]
    """
    if end > start:
        raise ValueError(f"end must be at most start = {start}, got {end}")
    return _line(start, end, steps)


def _line(start: float, end: float, steps: int) -> Schedule:
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    start, end = _checked_rate(start, "start"), _checked_rate(end, "end")
    return keras.optimizers.schedules.PolynomialDecay(start, steps, end, power=1.0)


class ReplacementRate(keras.callbacks.Callback):
    """Reports the rate after each epoch as ``replacement_rate``, and sets it before each one, if told how.

    Args:
        replacement: The layer whose rate it is.
        schedule: Rate by the number of the epoch, from 0. Without, the rate is only reported.

    Raises:
        ValueError: ``schedule`` is given, and the layer follows one of its own; or a rate is outside [0, 1].

    Example:
        >>> body = ModuleReplacement([keras.layers.Dense(1)], [keras.layers.Dense(1)], seed=0)
        >>> model = keras.Sequential([body])
        >>> model.compile("sgd", "mse")
        >>> rate = ReplacementRate(body, lambda epoch: (1 + epoch) / 2)
        >>> x = ops.ones((4, 1))
        >>> model.fit(x, x, epochs=2, verbose=0, callbacks=[rate]).history["replacement_rate"]
        [0.5, 1.0]
    """

    def __init__(self, replacement: ModuleReplacement, schedule: Callable[[int], float] | None = None):
        super().__init__()
        if schedule is not None and replacement.schedule is not None:
            raise ValueError(f"schedule: the rate follows {replacement.schedule!r} already, got {schedule!r}")
        self.replacement, self.schedule = replacement, schedule

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Sets the rate."""
        if self.schedule is not None:
            self.replacement.rate = self.schedule(epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002
        """Reports the rate."""
        if logs is not None:
            logs["replacement_rate"] = float(ops.convert_to_numpy(self.replacement.rate))


# --- modules --------------------------------------------------------------------------------------------------


def twin(layer: keras.layers.Layer) -> keras.layers.Layer:
    """A new layer of the same configuration and with the same weights, with a name of its own, and trainable.

    Its dropout begins at the seed of the configuration, wherever that of the layer is; without a seed, at one that
    ``keras.utils.set_random_seed`` decides.

    Args:
        layer: A built layer.

    Raises:
        ValueError: The layer is not built.

    Example:
        >>> dense = keras.layers.Dense(3)
        >>> x = ops.ones((2, 4))
        >>> y = dense(x)
        >>> bool(ops.all(twin(dense)(x) == y))
        True
    """
    if not layer.built:
        raise ValueError(f"layer must be built, for its weights to be there, got {layer.name!r}, which is not")
    new = type(layer).from_config({**layer.get_config(), "name": None})
    new.build_from_config(layer.get_build_config())
    new.set_weights(layer.get_weights())
    new.trainable = False  # since Keras on TensorFlow ignores a value that is there already, whatever lies within
    new.trainable = True
    return new


def _modules(name: str, modules: Iterable[keras.layers.Layer | Module]) -> list[Module]:
    """The modules, each a list of layers, one at least."""
    found = [[*module] if isinstance(module, Iterable) else [module] for module in modules]
    if not found:
        raise ValueError(f"{name} must be one module at least, got none")
    for i, module in enumerate(found):
        for layer in module or [module]:
            if not isinstance(layer, keras.layers.Layer):
                raise ValueError(f"{name}[{i}] must be a layer or a list of layers, got {layer!r}")
    return found


def _cut(layers: Module, sizes: Sequence[int]) -> list[Module]:
    """A list cut into lists of these sizes."""
    return [layers[a:b] for a, b in pairwise(accumulate(sizes, initial=0))]


def _checked_rate(rate: float, name: str = "rate") -> float:
    if callable(rate) or not 0 <= rate <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {rate!r}")
    return float(rate)


def _dtype(x: Any) -> str:
    return keras.backend.standardize_dtype(x.dtype)
