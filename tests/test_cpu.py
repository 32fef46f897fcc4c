import pytest

from launchers.cpu import engine_cores, engine_threads


@pytest.mark.parametrize(
    ("usable", "engine", "threads"),
    [
        pytest.param({0}, (0,), 1, id="a single core is shared"),
        pytest.param({0, 1}, (0,), 1, id="one each"),
        pytest.param({4, 5, 6, 7}, (4, 5, 6), 1, id="one for the others"),
        pytest.param(set(range(16)), tuple(range(12)), 10, id="a quarter for the others"),
    ],
)
def test_the_engine_leaves_cores_to_the_load_generator(usable, engine, threads):
    assert engine_cores(usable) == engine
    assert engine_threads(usable) == threads
