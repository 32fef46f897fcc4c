"""What prompts are made of: fresh text, a shared system text, and documents that several prompts use. Pure."""

import numpy as np

from tuner.config.workload import SharedPrefix
from tuner.requests import IntArray, Segment
from tuner.workload.streams import SEEDS_BELOW, Purpose, stream

Segments = tuple[Segment, ...]


def fresh_prompts(seed: int, tokens: IntArray) -> tuple[Segments, ...]:
    """One prompt of text never seen before for each count in `tokens`, (n,)."""
    seeds = draw_seeds(seed, Purpose.PROMPT_TEXT, len(tokens))
    return tuple(zip(map(Segment._make, zip(seeds.tolist(), tokens.tolist(), strict=True)), strict=True))


def sharing_prompts(seed: int, shared: SharedPrefix, tokens: IntArray) -> tuple[Segments, ...]:
    """Prompts that begin with the system text, go on with documents, and end with fresh text.

    `tokens`, (n,), is what each prompt has beyond the system text: as many whole documents as fit and leave at
    least one token of fresh text.
    """
    system = system_text(seed, shared)
    library = _library(seed, shared)
    chosen = _documents(seed, shared, len(tokens))
    seeds = draw_seeds(seed, Purpose.PROMPT_TEXT, len(tokens)).tolist()
    prompts = []
    for fresh_seed, wanted, row in zip(seeds, tokens.tolist(), chosen, strict=True):
        documents = [library[index] for index in dict.fromkeys(row)]
        room = (wanted - 1) // shared.document_tokens if documents else 0
        used = documents[:room]
        fresh = Segment(fresh_seed, wanted - len(used) * shared.document_tokens)
        prompts.append((*system, *used, fresh))
    return tuple(prompts)


def system_text(seed: int, shared: SharedPrefix) -> Segments:
    """The system text that every prompt begins with; nothing where it has no tokens."""
    if not shared.system_tokens:
        return ()
    return (Segment(int(draw_seeds(seed, Purpose.SHARED_TEXT, 1)[0]), shared.system_tokens),)


def draw_seeds(seed: int, purpose: Purpose, shape: int | tuple[int, int]) -> IntArray:
    """Seeds of texts that are all different."""
    return stream(seed, purpose).integers(SEEDS_BELOW, size=shape)


def _library(seed: int, shared: SharedPrefix) -> list[Segment]:
    seeds = draw_seeds(seed, Purpose.SHARED_TEXT, 1 + shared.documents)[1:]
    return [Segment(text_seed, shared.document_tokens) for text_seed in seeds.tolist()]


def _documents(seed: int, shared: SharedPrefix, count: int) -> list[list[int]]:
    """Indices of the documents of each prompt, drawn by Zipf's law; repeats within a prompt are possible."""
    if not shared.documents or not shared.document_tokens:
        return [[]] * count
    weights = np.arange(1, shared.documents + 1) ** -shared.zipf
    edges = np.cumsum(weights) / weights.sum()
    uniform = stream(seed, Purpose.DOCUMENTS).random((count, shared.documents_per_request))
    drawn: list[list[int]] = np.searchsorted(edges[:-1], uniform, side="right").tolist()
    return drawn
