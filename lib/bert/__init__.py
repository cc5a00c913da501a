"""BERT: the encoder that chapters 6 to 9 share, its pretrained weights, and the text that goes into it.

::

    layers        Embeddings, SelfAttention, Block, Encoder: token ids → one vector a token
    pretrained    files of weights (MiniLM and its kin, e5); text → ids as in their training
    alignment     tokens ↔ characters of the raw text, exactly

Needs NumPy and Keras; ``word_pieces`` and ``Characters`` also tokenizers, files of weights safetensors.
"""

from .alignment import SPECIAL, Normalized, align, character_span, normalize, token_span
from .layers import Block, ConditionalLayerNormalization, Embeddings, Encoder, SelfAttention
from .pretrained import Characters, E5File, SafetensorsFile, WeightsFile, dequantize, renumber, word_pieces

__all__ = [
    "SPECIAL",
    "Block",
    "Characters",
    "ConditionalLayerNormalization",
    "E5File",
    "Embeddings",
    "Encoder",
    "Normalized",
    "SafetensorsFile",
    "SelfAttention",
    "WeightsFile",
    "align",
    "character_span",
    "dequantize",
    "normalize",
    "renumber",
    "token_span",
    "word_pieces",
]
