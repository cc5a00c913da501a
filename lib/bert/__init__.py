"""BERT: an encoder that makes one vector of each token, its pretrained weights, and the text that goes into it.

::

    layers        its parts: Embeddings, SelfAttention, Block
    encoder       Encoder: token ids → one vector a token, with random or pretrained weights
    conditional   ConditionalLayerNormalization: how a head is told what to look for
    pretrained    files of weights: any BERT of PyTorch, such as MiniLM, and e5
    vocabulary    text → ids as in their training
    alignment     tokens ↔ characters of the raw text, exactly
    _unicode      what the tokenizer of BERT takes a character for

Needs NumPy and Keras; ``word_pieces`` and ``Characters`` also tokenizers, files of weights safetensors.
"""

from .alignment import SPECIAL, Normalized, align, character_span, normalize, token_span
from .conditional import ConditionalLayerNormalization
from .encoder import Encoder
from .layers import Block, Embeddings, SelfAttention
from .pretrained import E5File, SafetensorsFile, WeightsFile, dequantize
from .vocabulary import Characters, renumber, word_pieces

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
