from launchers.sim.sharing import shared_block_names
from tuner.requests import Segment

SYSTEM, DOCUMENT, OTHER = Segment(1, 32), Segment(2, 40), Segment(3, 40)


def fresh(seed: int) -> Segment:
    return Segment(1000 + seed, 50)


def test_prompts_without_a_common_beginning_share_nothing():
    assert shared_block_names([(fresh(1),), (fresh(2), SYSTEM), (fresh(3), SYSTEM)], 16) is None


def test_prompts_share_the_full_blocks_of_their_common_beginning():
    first, second, third = shared_block_names(
        [(SYSTEM, DOCUMENT, fresh(1)), (SYSTEM, DOCUMENT, fresh(2)), (SYSTEM, OTHER, fresh(3))], 16
    )
    assert first == second
    assert len(first) == (32 + 40) // 16
    assert third == first[: 32 // 16]


def test_a_block_across_two_segments_belongs_to_what_comes_first_and_second():
    system = Segment(1, 24)
    prompts = [(system, DOCUMENT), (system, DOCUMENT), (system, OTHER), (system, OTHER)]
    one, _, other, _ = shared_block_names(prompts, 16)
    assert one[0] == other[0]
    assert set(one[1:]).isdisjoint(other[1:])
    assert len(one) == len(other) == 4


def test_the_same_document_behind_different_texts_is_not_the_same_prefix():
    names = shared_block_names([(SYSTEM, DOCUMENT), (SYSTEM, DOCUMENT), (OTHER, DOCUMENT), (OTHER, DOCUMENT)], 16)
    assert set(names[0]).isdisjoint(names[2])
