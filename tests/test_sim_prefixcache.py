from launchers.sim.prefixcache import hold, keep, leading_hits, release, take, tidy, unused, with_room


def a_cache_with(*prompts: list[int], blocks: int = 10):
    """A cache whose `prompts` were computed and freed one after the other."""
    cache = with_room(blocks)
    for prompt in prompts:
        take(cache, len(prompt))
        keep(cache, prompt)
        release(cache, prompt, unnamed=0, partial=0)
    return cache


def test_blocks_without_content_are_taken_before_cached_ones():
    cache = a_cache_with([1, 2, 3], blocks=5)
    take(cache, 2)
    assert leading_hits(cache, [1, 2, 3], 3) == 3


def test_what_was_freed_first_is_forgotten_first_and_its_tail_before_its_beginning():
    cache = a_cache_with([1, 2, 3], [4, 5], blocks=5)
    take(cache, 2)
    assert leading_hits(cache, [1, 2, 3], 3) == 1
    take(cache, 2)
    assert (leading_hits(cache, [1], 1), leading_hits(cache, [4, 5], 2)) == (0, 1)


def test_blocks_used_again_since_they_were_freed_move_to_the_end_of_the_queue():
    cache = a_cache_with([1, 2, 3], [4, 5], blocks=5)
    assert hold(cache, [1, 2]) == 2
    release(cache, [1, 2], 0, 0)
    take(cache, 3)
    assert leading_hits(cache, [1, 2, 3], 3) == 2
    assert leading_hits(cache, [4], 1) == 0


def test_a_block_is_unused_until_somebody_holds_it_and_free_when_the_last_has_gone():
    cache = a_cache_with([1, 2], blocks=4)
    assert unused(cache, [1, 2]) == 2
    assert (hold(cache, [1, 2]), hold(cache, [1])) == (2, 0)
    assert unused(cache, [1, 2]) == 0
    assert release(cache, [1, 2], 1, 0) == 1 + 1
    assert release(cache, [1], 0, 0) == 1


def test_of_a_text_computed_twice_one_copy_is_kept():
    cache = with_room(4)
    take(cache, 4)
    assert keep(cache, [1, 2]) == [1, 2]
    assert keep(cache, [1, 2]) == []


def test_a_block_that_is_not_full_is_the_first_to_be_taken_again():
    cache = a_cache_with([1, 2], blocks=4)
    take(cache, 2)
    assert release(cache, [], unnamed=1, partial=1) == 2
    take(cache, 1)
    assert leading_hits(cache, [1, 2], 2) == 2
    take(cache, 1)
    assert leading_hits(cache, [1, 2], 2) == 1, "full blocks wait their turn behind those freed before"


def test_what_is_used_again_and_again_does_not_pile_up_and_is_forgotten_in_the_same_order():
    def after(tidy_above: int) -> tuple[int, list[int]]:
        cache = a_cache_with([1, 2, 3], [4, 5, 6], blocks=8)
        cache.tidy_above = tidy_above
        for text in ([1, 2, 3], [4, 5]) * 50:
            hold(cache, text)
            release(cache, text, 0, 0)
            tidy(cache)
        piled_up = len(cache.freed)
        left = []
        for _ in range(8):
            take(cache, 1)
            left.append(leading_hits(cache, [1, 2, 3], 3) + leading_hits(cache, [4, 5, 6], 3))
        return piled_up, left

    (untidy, plain), (tidied, same) = after(1000), after(4)
    assert untidy > 100 and tidied <= 8
    assert plain == same == [6, 6, 5, 4, 3, 2, 1, 0]
