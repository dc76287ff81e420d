from storage.errors import UserError
from vocsep.mapping import Outcome, pooled


def halved(number: int, by: int) -> int:
    if number % by:
        raise UserError(f"{number}: odd")
    return by // number


def test_item_that_fails_in_another_process_is_named_and_costs_the_others_nothing() -> None:
    done: list[int] = []
    outcomes = pooled(2)(halved, [0, 1, 2], (2,), on_outcome=lambda _, count: done.append(count))
    expected = [
        Outcome(0, None, "ZeroDivisionError: integer division or modulo by zero"),
        Outcome(1, None, "1: odd"),
        Outcome(2, 1, None),
    ]
    assert sorted(outcomes, key=lambda outcome: outcome.item) == expected
    assert done == [1, 2, 3]
