"""From a plan to the batch that a backend computes, and to the rows that are chosen from. Pure."""

from collections.abc import Collection, Iterable, Iterator

from engine_worker.backend.candidates import MaskWords
from engine_worker.backend.port import Batch
from engine_worker.constraints.guide import Guide
from engine_worker.constraints.step_masks import Wanted
from engine_worker.sampling.batch import Pick
from engine_worker.sampling.sampler import Sampler
from engine_worker.scheduling.plan import Chunk, Decode, Plan, Work, chooses
from engine_worker.text.sequence import Sequence
from gpufc.adapters import Adapters
from gpufc.sampling import SamplingParams


def batch_of(plan: Plan) -> Batch:
    """All tokens of a plan, in the order of its work."""
    batch = Batch([], [], [], [], adapters=_adapters(plan))
    for work in plan.work:
        if isinstance(work, Decode) and work.is_one_token:  # most often, and a device waits
            sequence = work.sequence
            batch.tokens.append(sequence.tokens[-1])
            batch.positions.append(sequence.n_computed)
            batch.sequences.append(sequence.slot or 0)
            batch.outputs.append(True)
            continue
        slot, start = work.slot, work.position
        tokens, n_rows = work.tokens(), work.n_rows
        n_tokens = len(tokens)
        batch.tokens += tokens
        batch.positions += range(start, start + n_tokens)
        batch.sequences += [slot] * n_tokens
        batch.outputs += [False] * (n_tokens - n_rows)
        batch.outputs += [True] * n_rows
        if plan.n_decoding and isinstance(work, Chunk):
            batch.chunks.add(slot)
            batch.in_one_pass = plan.in_one_pass
    return batch


def _adapters(plan: Plan) -> Adapters:
    """Those of the plan's sequences, which all have the same (`AdapterTurns`)."""
    for work in plan.work:
        if isinstance(work, (Decode, Chunk)):
            return work.sequence.spec.adapters
    return ()


def guided(plan: Plan) -> list[Wanted]:
    """The guides that rows of the plan have, in the order of its work."""
    return [
        Wanted(work.sequence.guide, work.draft, is_needed=_needs_mask(work.sequence, work.draft))
        for work in plan.work
        if chooses(work) and work.sequence.guide is not None
    ]


def _needs_mask(sequence: Sequence, draft: Collection[int]) -> bool:
    """Whether there must be a mask before a token is chosen: to choose within it, to check a token
    behind a guess, or to tell the probabilities after sampling."""
    wanted = sequence.spec.logprobs
    tells_chances = wanted is not None and wanted.after_sampling
    return bool(draft) or tells_chances or not sequence.draws_freely


def guides_ahead(gained: Iterable[Sequence]) -> list[Guide]:
    """The guides that need a mask in the next step, after one in which these sequences gained
    tokens. The next step is planned and begun beside these masks, and takes longer for it."""
    return [
        seq.guide
        for seq in gained
        if seq.guide is not None and seq.finish is None and not seq.draws_freely
    ]


def picks(work: Work, padding: Pick, guides_masks: Iterator[list[MaskWords | None]]) -> list[Pick]:
    """A pick for each row of work: for the token after the last computed one, and after each guess;
    `padding` for a row from which no token is chosen. `guides_masks` goes on with those of the next
    guide of `guided`."""
    if not chooses(work):
        return [padding] * work.n_rows
    sequence, draft, guide = work.sequence, work.draft, work.sequence.guide
    tokens, choice = sequence.tokens, sequence.spec.choice
    n_known, n_generated = len(tokens), sequence.n_generated
    if not draft and guide is None and sequence.rule_mask is None:  # most often
        found = [Pick(sequence.sampler, tokens, n_known, choice, n_generated)]
    else:
        history = [*tokens, *draft] if draft else tokens
        masks = [None] * (1 + len(draft)) if guide is None else next(guides_masks)
        if sequence.rule_mask is not None:
            masks = sequence.rule_mask.over(masks, n_generated)
        found = [
            Pick(
                *(sequence.sampler, history, n_known + at, choice, n_generated + at, mask),
                _check_of(sequence, at, mask),
            )
            for at, mask in enumerate(masks)
        ]
    return [*[padding] * (work.n_rows - 1), *found] if isinstance(work, Chunk) else found


def _check_of(sequence: Sequence, at: int, mask: MaskWords | None) -> Guide | None:
    """The guide that checks a token which is drawn freely, at this place behind the known tokens.

    A forced token needs no free draw. A row behind a wrong guess has no mask, and no token of it is
    taken.
    """
    guide = sequence.guide
    if guide is None or not sequence.draws_freely:
        return None
    is_checked = not guide.forced if at == 0 else mask is not None
    return guide if is_checked else None


def padding_pick(n_vocab: int) -> Pick:
    """The pick that takes the least time."""
    sampler = Sampler(SamplingParams(seed=0, temperature=0.0), n_vocab)
    return Pick(sampler, (), 0, choice=0, position=0)
