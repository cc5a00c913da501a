"""Sequence labelling as a model: an encoder that scores every tag at every step, and a head that normalizes.

The model is trained on tags and predicts tags. In between are the emissions, which is what calling it returns.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops, tree
from numpy.typing import NDArray

from .._arguments import finite
from .._layers import BringsItsLoss
from .decoding import Decode
from .heads import Head
from .metrics import TagMetric, TokenAccuracy

__all__ = ["Tagger"]

Tensor = Any


@keras.saving.register_keras_serializable(package="proof_by_running")
class Tagger(BringsItsLoss):
    """An encoder and a head as one model, from tokens to tags.

    ``compile`` needs an optimizer and no loss: the loss is the mean of the head's over the sequences of a batch,
    each times its ``sample_weight`` if there are any, plus what regularizers add. ``fit(x, tags)`` takes padded
    tags as −1 and tags that are not known as −100. ``evaluate`` returns that loss and the metrics, which see
    decoded tags. ``predict`` returns tags, and so does what ``export`` writes. Calling the model returns the
    emissions.

    A ``.keras`` file brings back all. A legacy ``.h5`` file comes back if the loader is told the class, which that
    format knows by no other name: ``load_model(file, custom_objects={"Tagger": Tagger})``.

    Sequences of one batch must have one length; pad all batches to one length where one can, because XLA compiles
    the model again for every new one.

    Args:
        encoder: Model or layer from x to emissions (batch, time, tags).
        head: The head.
        padding: The number in x (batch, time) that marks a padded step, such as 0. None takes the mask that Keras
            hands on from ``mask_zero=True`` or ``Masking``; a convolution, for one, loses it.
        **kwargs: Arguments of every Keras model.

    Raises:
        ValueError: ``encoder`` or ``head`` is none; ``padding`` is no number, or x has no shape (batch, time) to
            look for it in; ``compile`` is given a loss, or metrics of something else than tags; ``fit`` is given a
            ``class_weight``, or a ``sample_weight`` that is not (batch,); otherwise as the head.

    Example:
        >>> from lib.tagging import Softmax
        >>> encoder = keras.Sequential([keras.layers.Embedding(100, 8, mask_zero=True), keras.layers.Dense(3)])
        >>> tagger = Tagger(encoder, Softmax(3))
        >>> tagger.compile("adam", metrics=["accuracy"])
        >>> emissions = tagger(ops.convert_to_tensor([[5, 17, 2], [8, 0, 0]]))
        >>> (ops.convert_to_numpy(emissions[1, :, 0]) == -float("inf")).tolist()
        [False, True, True]
    """

    def __init__(self, encoder: keras.layers.Layer, head: Head, *, padding: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        if not isinstance(encoder, keras.layers.Layer):
            raise ValueError(f"encoder must be a Keras model or layer, got {encoder!r}")
        if not isinstance(head, Head):
            raise ValueError(f"head must be a Head, such as CRF, got {head!r}")
        if padding is not None:
            finite("padding", padding)
        self.encoder = encoder
        self.head = head
        self.padding = padding

    def build(self, input_shape: Any) -> None:
        """Builds the encoder and the head."""
        if not self.encoder.built:
            self.encoder.build(input_shape)
        if not self.head.built:
            self.head.build(self.encoder.compute_output_shape(input_shape))

    def call(self, x: Tensor, training: bool = False) -> Tensor:
        """Returns the emissions (batch, time, tags), −∞ at padded steps."""
        emissions = self.encoder(x, training=training)
        if self.padding is None:
            return self.head(emissions)
        if tree.is_nested(x) or len(x.shape) != 2:
            raise ValueError(f"padding must be None unless x is one tensor (batch, time), got {self.padding!r}")
        return self.head(emissions, mask=ops.not_equal(x, self.padding))

    # Training.

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: None = None,
        *,
        metrics: Sequence[Any] | None = None,
        weighted_metrics: Sequence[Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Sets the optimizer and the metrics.

        Args:
            optimizer: As in ``keras.Model.compile``.
            loss: None: the model brings its own.
            metrics: A list of :class:`~lib.tagging.TagMetric`: :class:`~lib.tagging.TokenAccuracy`,
                :class:`~lib.tagging.SpanF1` or one of your own. "accuracy" is TokenAccuracy under that name.
            weighted_metrics: The same, weighted by ``sample_weight``.
            **kwargs: Further arguments of ``keras.Model.compile``.

        Raises:
            ValueError: A loss or ``loss_weights`` is given, or another metric, which would see no tags but
                emissions or padding.
        """
        if kwargs.get("loss_weights") is not None:
            raise ValueError(f"loss_weights must be left out, there is one loss, got {kwargs['loss_weights']!r}")
        metrics, weighted = _of_tags("metrics", metrics), _of_tags("weighted_metrics", weighted_metrics)
        super().compile(optimizer, loss, metrics=metrics, weighted_metrics=weighted, **kwargs)
        if self._compile_metrics is not None:
            tags = keras.KerasTensor((None, None), "int32")
            self._compile_metrics.build(tags, tags)  # which Keras does at their first update, outside of the loss

    def fit(self, *args: Any, **kwargs: Any) -> Any:
        """As ``keras.Model.fit``; raises ValueError if given a ``class_weight``."""
        _refuse_class_weight(super().fit, args, kwargs)
        return super().fit(*args, **kwargs)

    def train_on_batch(self, *args: Any, **kwargs: Any) -> Any:
        """As ``keras.Model.train_on_batch``; raises ValueError if given a ``class_weight``."""
        _refuse_class_weight(super().train_on_batch, args, kwargs)
        return super().train_on_batch(*args, **kwargs)

    def compute_loss(
        self,
        x: Tensor = None,
        y: Tensor = None,
        y_pred: Tensor = None,
        sample_weight: Tensor | None = None,
        training: bool = True,  # noqa: ARG002
    ) -> Tensor:
        """Returns the mean loss of the batch, a scalar, and updates the metrics with the decoded tags.

        On JAX the scores of the head, which decoding needs, can be read here and no longer in
        :meth:`compute_metrics`.
        """
        loss = self.head.loss(y, y_pred, sample_weight)
        if self._compile_metrics is not None:
            tags, _ = self.head.decode(ops.stop_gradient(y_pred))
            super().compute_metrics(x, y, tags, sample_weight)
        return sum(map(self.part_of, self.losses), loss)  # which Keras has divided among the devices already

    def compute_metrics(
        self,
        x: Tensor,  # noqa: ARG002
        y: Tensor,  # noqa: ARG002
        y_pred: Tensor,  # noqa: ARG002
        sample_weight: Tensor | None = None,  # noqa: ARG002
    ) -> dict[str, Tensor]:
        """Returns the values of the metrics, which :meth:`compute_loss` has updated."""
        return self.get_metrics_result()

    # Tags.

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> NDArray:
        """The best tags, batch by batch.

        Args:
            x: Input of the encoder, as in ``keras.Model.predict``.
            *args: Further arguments of ``keras.Model.predict``.
            **kwargs: The same by name.

        Returns:
            Tags (samples, time), int32, −1 at padded steps.
        """
        return super().predict(x, *args, **kwargs)

    def predict_step(self, *arguments: Any) -> Any:
        """The tags of a batch, where ``keras.Model.predict_step`` has emissions."""
        if len(arguments) == 1:
            return self.head.decode(super().predict_step(*arguments))[0]
        (trainable, non_trainable), _ = arguments  # JAX hands the weights over, and wants the changed ones back
        emissions, changed = super().predict_step(*arguments)
        weights = (*self.trainable_variables, *self.non_trainable_variables)
        with keras.StatelessScope(list(zip(weights, (*trainable, *non_trainable), strict=True))):
            return self.head.decode(emissions)[0], changed

    def export(self, filepath: str, **kwargs: Any) -> Any:
        """Writes a model for serving that gives tags (batch, time), int32, −1 at padded steps.

        Args:
            filepath: As in ``keras.Model.export``.
            **kwargs: Further arguments of ``keras.Model.export``. The encoder knows its inputs if it is a
                functional model, or a sequential one; without a ``keras.Input`` that one knows the length of its
                first batch. Otherwise, and for other lengths, give ``input_signature``.

        Raises:
            ValueError: It is not known what x is.
        """
        signature = kwargs.get("input_signature")
        known = _inputs_of(self.encoder) if signature is None else signature[0]
        if known is None:
            raise ValueError("input_signature must be given, as the encoder does not know its inputs")

        def symbol(x: Any) -> keras.KerasTensor:
            return keras.Input(batch_shape=(None, *x.shape[1:]), dtype=x.dtype, name=x.name)

        inputs = tree.map_structure(symbol, known)
        return keras.Model(inputs, Decode(self.head)(self(inputs))).export(filepath, **kwargs)

    # Saving.

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that rebuild this model."""
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "head": keras.saving.serialize_keras_object(self.head),
            "padding": self.padding,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Tagger:
        """The model that :meth:`get_config` describes."""
        parts = {part: keras.saving.deserialize_keras_object(config[part]) for part in ("encoder", "head")}
        return cls(**{**config, **parts})


# --- arguments ------------------------------------------------------------------------------------------------


def _inputs_of(encoder: keras.layers.Layer) -> Any:
    """The symbols that a functional or sequential model was built with; None if there are none."""
    if isinstance(encoder, keras.Sequential):
        return encoder.inputs[0] if encoder.inputs else None
    return encoder.input if isinstance(encoder, keras.Model) and encoder.inputs else None


def _of_tags(name: str, metrics: Sequence[Any] | None) -> list[TagMetric] | None:
    """The metrics, if all are of tags; "accuracy" is one."""
    if metrics is None:
        return None
    if not isinstance(metrics, list | tuple):
        raise ValueError(f"{name} must be a list, got {metrics!r}")
    metrics = [TokenAccuracy(name=metric) if metric in ("accuracy", "acc") else metric for metric in metrics]
    for metric in metrics:
        if not isinstance(metric, TagMetric):
            raise ValueError(
                f"{name} must hold 'accuracy', TokenAccuracy, SpanF1 or another TagMetric, got {metric!r}: "
                "one that knows nothing of padding would count it"
            )
    return metrics


def _refuse_class_weight(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    given = inspect.signature(function).bind(*args, **kwargs).arguments
    if given.get("class_weight") is not None:
        raise ValueError(
            "class_weight must be left out: a sequence of tags is of no class. Give sample_weight (batch,), one "
            f"weight a sequence, got {given['class_weight']!r}"
        )
