"""Text and ordered latents in one causal sequence model.

The way of a prompt, with the file of each step:
1. generator.py, SeqGenerator.sample: prompts become ids, every row its own random numbers.
2. sequences/layout.py lays text and latents out in slots; sequences/next_token.py draws one latent after the other.
3. backbone.py reads the slots; sequences/cache.py keeps keys and values of those already read.
4. heads/flow.py leads noise to the next latent, by the hidden state; sampling.py holds what it is told.
5. The latents, denormalised, are what the tokenizer's `decode` takes.
The way back, SeqGenerator.caption: the sequence reads the latents (sequences/reading.py), text/writing.py chooses the
words. SeqGenerator.states shows the hidden states of the same reading.
Documents of several texts and pictures: documents/layout.py lays them out, documents/continuing.py goes on with them.
In training objective.py asks the same sequence for slots and targets, and the head for its loss. A new head or
sequence is a file in its folder and its lines in that folder's build.py.
"""

from ar_model.config import GeneratorConfig, GeneratorObjectiveConfig
from ar_model.documents.continuing import draw_next, write_next
from ar_model.documents.objective import DocumentObjective, DocumentObjectiveConfig
from ar_model.generator import SeqGenerator
from ar_model.heads.flow import FlowHeadConfig
from ar_model.objective import GeneratorObjective
from ar_model.sampling import SampleConfig
from ar_model.text.writing import CaptionConfig

__all__ = [
    "CaptionConfig",
    "DocumentObjective",
    "DocumentObjectiveConfig",
    "FlowHeadConfig",
    "GeneratorConfig",
    "GeneratorObjective",
    "GeneratorObjectiveConfig",
    "SampleConfig",
    "SeqGenerator",
    "draw_next",
    "write_next",
]
