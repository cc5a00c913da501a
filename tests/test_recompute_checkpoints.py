"""Truths about ``lib.recompute.checkpoints``: a forecast is a walk over the chain, and no plan beats the best."""

import math
from functools import cache
from itertools import combinations, pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib.recompute import (
    Cost,
    Plan,
    chen,
    equal_cuts,
    forecast,
    frontier,
    nothing,
    plan,
    saving,
    smallest,
    sqrt_cuts,
    units,
)
from lib.recompute.checkpoints import checked_kept

small = st.integers(0, 9)
links = st.builds(
    lambda boundary, inner, working, tail, rest: Cost(boundary, inner, working, tail + rest, tail),
    *(small, small, small, small, small),
)
chains = st.lists(links, min_size=1, max_size=6)


def random_chain(n: int, seed: int = 0) -> list[Cost]:
    rng = np.random.default_rng(seed)
    costs = rng.integers(1, 9, (n, 3)).tolist()
    return [Cost(*cost, seconds=float(x), tail=float(x) / 4) for cost, x in zip(costs, rng.random(n), strict=True)]


def walked(costs, cuts, kept):
    """Peak and seconds of a forward and a backward pass, walked segment by segment."""
    parts = [costs[i:j] for i, j in pairwise((*cuts, len(costs)))]
    held, peak, seconds = 0, 0, 0
    for part, keep in zip(parts, kept, strict=True):
        held += part[0].boundary
        held += sum(cost.inner for cost in part) if keep else 0
    for part, keep in reversed(list(zip(parts, kept, strict=True))):
        if not keep:
            held += sum(cost.inner for cost in part)
            seconds += sum(cost.seconds for cost in part) - part[-1].tail
        peak = max(peak, held + max(cost.working for cost in part))
        held -= part[0].boundary + sum(cost.inner for cost in part)
    assert held == 0
    return peak, seconds


def segmentations(n):
    """All cuts with all choices of what is kept: 2 · 3ⁿ⁻¹."""
    for count in range(n):
        for cuts in combinations(range(1, n), count):
            for kept in product((False, True), repeat=count + 1):
                yield (0, *cuts), kept


def everything(costs):
    """Peak and seconds of every segmentation."""
    return [walked(costs, *each) for each in segmentations(len(costs))]


def value(plan):
    return plan.peak, plan.seconds


# --- what a segmentation takes ----------------------------------------------------------------------------------


@given(chains, st.data())
def test_a_forecast_is_what_a_walk_forward_and_back_holds(costs, data):
    cuts = (
        (0, *sorted(data.draw(st.sets(st.integers(1, 5).filter(lambda i: i < len(costs)))))) if costs[1:] else (0,)
    )
    kept = tuple(data.draw(st.lists(st.booleans(), min_size=len(cuts), max_size=len(cuts))))
    assert value(forecast(costs, cuts, kept)) == walked(costs, cuts, kept)
    assert forecast(costs, np.array(cuts), np.array(kept)) == forecast(costs, cuts, kept)


@given(chains)
def test_to_keep_the_last_segment_takes_no_memory_and_is_the_default(costs):
    cuts = equal_cuts(len(costs), (len(costs) + 1) // 2)
    last = (False,) * (len(cuts) - 1)
    assert forecast(costs, cuts) == forecast(costs, cuts, (*last, True))
    assert forecast(costs, cuts).peak == forecast(costs, cuts, (*last, False)).peak


def test_to_recompute_all_at_once_takes_a_forward_pass_and_saves_nothing():
    costs = random_chain(9)
    again = forecast(costs, (0,), (False,))
    assert again.peak == nothing(costs).peak
    assert again.seconds == pytest.approx(sum(cost.seconds for cost in costs) - costs[-1].tail, rel=1e-14)
    assert nothing(costs).seconds == saving(costs, nothing(costs)) == saving(costs, again) == 0


@given(st.integers(1, 30), small, small, small)
def test_each_link_for_itself_takes_all_boundaries_and_one_link(n, boundary, inner, working):
    costs = [Cost(boundary, inner, working)] * n
    assert forecast(costs, range(n)).peak == n * boundary + inner + working


def test_a_link_without_inner_bytes_has_nothing_to_drop():
    costs = [Cost(boundary=3, inner=0)] * 8
    assert smallest(costs) == nothing(costs)
    assert saving(costs, forecast(costs, range(8))) == 1 - 8
    assert saving([Cost(0, 0)], nothing([Cost(0, 0)])) == 0


def test_the_savings_of_a_transformer_layer_by_layer():
    # Bytes in units of s·b·h (Korthikanti et al. 2022): 2 at the input, 44 or 74 in all; 12 layers of BERT-base.
    for all_of_it, ratio in ((44, 8.0), (74, 9.25)):
        costs = [Cost(boundary=2, inner=all_of_it - 2)] * 12
        full = 12 * all_of_it
        assert full / forecast(costs, range(12)).peak == ratio


def test_tail_is_spared_at_the_end_of_a_recomputed_segment_only():
    costs = [Cost(1, 1, seconds=8, tail=3)] * 6
    assert forecast(costs, (0, 2, 4)).seconds == 2 * (16 - 3)
    assert forecast(costs, (0, 2, 4), (True, False, False)).seconds == 2 * (16 - 3)
    assert forecast(costs, range(6)).seconds == 5 * (8 - 3)


def test_a_plan_has_slices_and_a_line_of_text():
    made = forecast([Cost(1000, 1000, seconds=0.25)] * 7, (0, 3, 5), (False, True, False))
    parts = [list("abcdefg")[segment] for segment in made.segments]
    assert parts == [list("abc"), list("de"), list("fg")]
    assert str(made) == "segments from 0, 3 (kept), 5: 7,000 bytes, 1.25 s again"
    assert made == Plan((0, 3, 5), (False, True, False), 7000, 1.25)


# --- equal links ------------------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.data())
def test_equal_cuts_differ_by_one_link_and_the_longer_are_first(n, data):
    segments = data.draw(st.integers(1, n))
    cuts = equal_cuts(n, segments)
    lengths = [j - i for i, j in pairwise((*cuts, n))]
    assert len(lengths) == segments
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] - lengths[-1] <= 1


@pytest.mark.parametrize(("n", "least"), [(12, 7), (24, 10), (48, 14), (100, 20)])
def test_about_the_root_of_n_segments_take_the_least_units(n, least):
    cuts = sqrt_cuts(n)
    assert units(n, len(cuts)) == least == min(units(n, k) for k in range(1, n + 1))
    assert abs(len(cuts) - math.sqrt(n)) < 1 + math.sqrt(n) / 10
    assert not any(units(n, k) == least for k in range(1, len(cuts)))


@given(st.integers(1, 60), st.data())
def test_units_are_the_peak_of_equal_segments_and_a_bound_of_nearly_equal_ones(n, data):
    segments = data.draw(st.integers(1, n))
    peak = forecast([Cost(1, 1)] * n, equal_cuts(n, segments)).peak
    assert units(n, segments) - (n % segments > 0) <= peak <= units(n, segments)


@pytest.mark.parametrize(("n", "least"), [(12, 6), (24, 8), (48, 11), (100, 15)])
def test_segments_that_shrink_take_the_root_of_2n_and_not_twice_that_of_n(n, least):
    best = smallest([Cost(1, 1)] * n)
    assert best.peak == least == next(P for P in range(n + 2) if n <= P * (P - 1) / 2)
    assert abs(best.peak - math.sqrt(2 * n)) < 1.5


# --- unequal links ----------------------------------------------------------------------------------------------


@given(chains)
def test_the_frontier_is_that_of_all_segmentations(costs):
    taken = set(everything(costs))
    best = {(p, t) for p, t in taken if not any(q <= p and u <= t and (q, u) != (p, t) for q, u in taken)}
    plans = frontier(costs)
    assert [value(each) for each in plans] == sorted(best, reverse=True)
    assert all(each == forecast(costs, each.cuts, each.kept) for each in plans)
    assert smallest(costs) == plans[-1]
    assert value(smallest(costs)) == min(taken)


@given(chains, st.integers(1, 120))
def test_a_plan_is_the_fastest_of_all_segmentations_in_its_budget(costs, budget):
    taken = everything(costs)
    least = min(taken)[0]
    if budget < least:
        with pytest.raises(ValueError, match=f"^memory_budget must be at least {least} bytes, .* got {budget}$"):
            plan(costs, budget)
    else:
        seconds, peak = min((t, p) for p, t in taken if p <= budget)
        assert value(plan(costs, budget)) == (peak, seconds)
        assert plan(costs, budget + 0.5) == plan(costs, budget)


@pytest.mark.parametrize("share", [0, 0.3, 0.6])
def test_a_plan_for_many_links_is_that_of_a_table_over_all_budgets(share):
    costs = [cost._replace(seconds=8 * k % 11 + 2, tail=k % 3) for k, cost in enumerate(random_chain(24))]
    budget = int((1 - share) * smallest(costs).peak + share * nothing(costs).peak)

    @cache
    def least(i, free):
        """Seconds of the links from i on with so many bytes to use."""
        if i == len(costs):
            return 0
        found, inner, working, seconds = math.inf, 0, 0, 0
        for j in range(i, len(costs)):
            inner, seconds = inner + costs[j].inner, seconds + costs[j].seconds
            working = max(working, costs[j].working)
            if costs[i].boundary + inner + working <= free:
                kept = least(j + 1, free - costs[i].boundary - inner)
                again = least(j + 1, free - costs[i].boundary) + seconds - costs[j].tail
                found = min(found, kept, again)
        return found

    assert plan(costs, budget).seconds == least(0, budget) > 0


def test_of_plans_that_take_the_same_the_one_with_the_longest_segments_is_taken_and_kept():
    costs = [Cost(0, 0, seconds=0)] * 5
    assert frontier(costs) == [nothing(costs)] == [smallest(costs)] == [plan(costs, 1)]


def test_more_memory_never_takes_more_time():
    costs = random_chain(20)
    plans = [plan(costs, budget) for budget in range(smallest(costs).peak, nothing(costs).peak + 1)]
    assert all(less.seconds >= more.seconds for less, more in pairwise(plans))
    assert all(less == more or less.seconds > more.seconds for less, more in pairwise(plans))
    assert set(plans) == set(frontier(costs))
    assert plans[-1].seconds == 0


@given(chains, st.integers(1, 10**9), st.integers(-30, 30))
def test_bytes_and_seconds_have_no_unit(costs, scale, power):
    scaled = [
        Cost(*(scale * x for x in cost[:3]), *(math.ldexp(x, power) for x in (cost.seconds, cost.tail)))
        for cost in costs
    ]
    plans = [
        Plan(each.cuts, each.kept, scale * each.peak, math.ldexp(each.seconds, power)) for each in frontier(costs)
    ]
    assert frontier(scaled) == plans


def test_equal_seconds_tie_though_their_sums_round():
    assert 0.1 + 0.1 + 0.1 - 0.1 != 0.1 + 0.1
    costs = random_chain(16)
    tenths, ones = ([cost._replace(seconds=x, tail=0) for cost in costs] for x in (0.1, 1))
    assert [each.cuts for each in frontier(tenths)] == [each.cuts for each in frontier(ones)]
    assert [each.seconds for each in frontier(tenths)] == pytest.approx(
        [each.seconds / 10 for each in frontier(ones)]
    )


# --- the heuristic ----------------------------------------------------------------------------------------------


@given(chains, st.integers(0, 60))
def test_a_segment_of_chen_is_closed_as_soon_as_it_exceeds_the_budget(costs, budget):
    made = chen(costs, budget)
    sizes = [[cost.inner for cost in costs[segment]] for segment in made.segments]
    assert all(sum(size) > budget for size in sizes[:-1])
    assert all(sum(size[:-1]) <= budget for size in sizes)
    assert made == forecast(costs, made.cuts)


@given(chains)
def test_the_best_of_chen_is_the_best_of_all_budgets_and_no_better_than_the_optimum(costs):
    best = value(chen(costs))
    assert best == min(value(chen(costs, budget)) for budget in range(sum(cost.inner for cost in costs) + 1))
    assert best >= value(smallest(costs))


@pytest.mark.parametrize("n", [4, 12, 24, 48, 100])
def test_chen_takes_about_twice_the_root_of_n_for_equal_links(n):
    peak = chen([Cost(1, 1)] * n).peak
    assert abs(peak - 2 * math.sqrt(n)) <= 1
    assert peak >= smallest([Cost(1, 1)] * n).peak


def test_the_optimum_is_better_than_chen_where_links_differ():
    costs = random_chain(24)
    assert smallest(costs).peak < chen(costs).peak
    assert plan(costs, chen(costs).peak).seconds < chen(costs).seconds


# --- the largest numbers ----------------------------------------------------------------------------------------


def test_what_is_kept_is_told_by_booleans_or_by_0_and_1():
    assert checked_kept([True, 0, np.bool_(True), np.int64(0)]) == (True, False, True, False)


def test_the_most_bytes_are_counted_to_the_byte():
    third = (2**63 - 1) // 3
    costs = [Cost(third, third, third - 1)]
    assert nothing(costs).peak == 3 * third - 1
    costs = [Cost(1, third), Cost(1, third), Cost(1, third - 3)]
    assert nothing(costs).peak == 3 * third - 2
    assert smallest(costs).peak == third + 2
    assert plan(costs, 2**64).peak == nothing(costs).peak
    assert plan(costs, math.inf) == plan(costs, 1e300) == nothing(costs)
    assert plan(costs, 3 * third - 2) == nothing(costs)
    assert plan(costs, 3 * third - 3).peak < nothing(costs).peak
    assert chen(costs, 2**70) == chen(costs, math.inf) == forecast(costs, (0,))


# --- bad input --------------------------------------------------------------------------------------------------

TWO = [Cost(1, 1), Cost(1, 1)]


@pytest.mark.parametrize("function", [nothing, smallest, frontier, chen, lambda costs: plan(costs, 9)])
@pytest.mark.parametrize(
    ("costs", "message"),
    [
        ([], "costs must be of one link at least, got none"),
        ([Cost(-1, 1)], r"costs: bytes must be integers, none negative, got Cost\(boundary=-1.* for link 0"),
        ([*TWO, Cost(1, 2.5)], "costs: bytes must be .* got .*inner=2.5.* for link 2"),
        ([Cost(1, 1, -3)], "costs: bytes must be .* got .*working=-3"),
        ([Cost(1, 1, 0, -1.0)], "costs: seconds must be finite with 0 ≤ tail ≤ seconds, got .*seconds=-1.0"),
        ([Cost(1, 1, 0, math.nan)], "costs: seconds must be finite .*nan"),
        ([Cost(1, 1, 0, 1.0, 1.5)], "costs: seconds must be .*tail=1.5.* for link 0"),
        ([Cost(1, 1, 0, 1.0, -0.5)], "costs: seconds must be .*tail=-0.5"),
        ([Cost(1, 1, 0, math.inf)], "costs: seconds must be finite .*inf"),
        ([Cost(1, 1, 0, "1")], "costs: seconds must be finite .*seconds='1'"),
        ([Cost(1, 1, 0, True)], "costs: seconds must be finite .*seconds=True"),
        ([Cost(1, True)], "costs: bytes must be .* got .*inner=True"),
        ([Cost(1e308, 1)], "costs: bytes must be .* got .*boundary=1e"),
        ([(1, 1)], r"costs\[0\] must be a Cost, got \(1, 1\)"),
        ([*TWO, (1, 1, 0, 1.0, 0.0)], r"costs\[2\] must be a Cost, got \(1, 1, 0, 1.0, 0.0\)"),
        ([Cost(1, 2**63)], "costs: bytes must be below 2..63 together, got 9223372036854775809"),
        ([Cost(2**61, 2**61)] * 2, "costs: bytes must be below 2..63 together, got 9223372036854775808"),
        ([Cost(np.int64(2**62), np.int64(2**62))], "costs: bytes must be below 2..63 together, got 922"),
        ([Cost(1, 1, 0, 1e308)] * 2, "costs: seconds must be at most 1e.300 together, got inf"),
    ],
)
def test_costs_are_bytes_and_seconds(function, costs, message):
    with pytest.raises(ValueError, match=message):
        function(costs)


@pytest.mark.parametrize(
    "cuts", [(), (1,), (0, 0), (0, 2), (0, 1, 1), (0, 0.5), (-1, 0), (0, True), (False,), (0, "1")]
)
def test_cuts_begin_at_0_and_increase(cuts):
    with pytest.raises(
        ValueError, match=r"^cuts must be 0 and then increasing, below the number of links, 2, got \("
    ):
        forecast(TWO, cuts)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: forecast(TWO, (0, 1), (True,)), "kept must have one entry a segment, 2, got 1"),
        (lambda: plan(TWO, 0), "memory_budget must be positive, in bytes, got 0"),
        (lambda: plan(TWO, math.nan), "memory_budget must be positive, in bytes, got nan"),
        (lambda: chen(TWO, -1), "budget must be bytes, none or more, or None for the best, got -1"),
        (lambda: plan(TWO, "9"), "memory_budget must be positive, in bytes, got '9'"),
        (lambda: plan(TWO, True), "memory_budget must be positive, in bytes, got True"),
        (lambda: chen(TWO, "9"), "budget must be bytes, none or more, or None for the best, got '9'"),
        (lambda: chen(TWO, math.nan), "budget must be bytes, none or more, or None for the best, got nan"),
        (lambda: forecast(TWO, 0), "cuts must be a list, got 0"),
        (lambda: forecast(TWO, (0,), ("no",)), r"kept\[0\] must be True or False, got 'no'"),
        (lambda: forecast(TWO, (0,), (2,)), r"kept\[0\] must be True or False, got 2"),
        (lambda: forecast(TWO, (0,), True), "kept must be a list, got True"),
        (lambda: saving(TWO, 3), "plan must be a Plan, got 3"),
        (lambda: sqrt_cuts(True), "n must be a positive integer, got True"),
        (lambda: units(3, True), "segments must be an integer, 1 to 3, got True"),
        (lambda: sqrt_cuts(0), "n must be a positive integer, got 0"),
        (lambda: equal_cuts(2.0, 1), "n must be a positive integer, got 2.0"),
        (lambda: equal_cuts(3, 4), "segments must be an integer, 1 to 3, got 4"),
        (lambda: units(3, 0), "segments must be an integer, 1 to 3, got 0"),
        (lambda: units(3, 1.5), "segments must be an integer, 1 to 3, got 1.5"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        call()


def test_numbers_of_numpy_do_not_wrap():
    assert units(np.uint8(255), np.uint8(255)) == 256
    assert equal_cuts(np.uint8(200), np.uint8(3)) == (0, 67, 134)
    assert {type(cut) for cut in (*equal_cuts(np.uint8(200), np.uint8(3)), *sqrt_cuts(np.uint8(200)))} == {int}
