"""Faults that tools/mutate.py plants."""

import random

import mutate_faults

SOURCE = b'''"""Nothing here changes: 1 < 2."""
LIMIT: float = 0.5


@decorated(1)
def capped(value: float, *, is_loud: bool = False) -> float:
    if is_loud:
        print("capped at 7", 7)
    if not value >= LIMIT:
        raise ValueError(f"{value + 1} is too large")
    value = min(value, LIMIT)
    return value * 2
'''


def faults():
    return mutate_faults.faults_of("capped.py", SOURCE, random.Random(0))


def test_every_place_has_its_faults_but_messages_and_types():
    changes = sorted((fault.line, fault.kind, fault.before, fault.after) for fault in faults())
    two = next(after for line, _, before, after in changes if (line, before) == (12, "2"))
    assert two in ("1", "3")
    assert changes == [
        (2, "default", "0.5", "1.0"),
        (6, "default", "False", "True"),
        (7, "negated condition", "is_loud", "(not is_loud)"),
        (9, "boundary", "value >= LIMIT", "(value > LIMIT)"),
        (9, "comparison", "value >= LIMIT", "(value <= LIMIT)"),
        (9, "dropped not", "not value >= LIMIT", "(value >= LIMIT)"),
        (11, "deleted assignment", "value = min(value, LIMIT)", "pass"),
        (11, "min/max", "min", "max"),
        (12, "arithmetic", "value * 2", "(value / 2)"),
        (12, "off by one", "2", two),
        (12, "return None", "value * 2", "None"),
    ]


def test_a_fault_changes_its_place_alone_and_names_its_function():
    for fault in faults():
        changed = fault.applied(SOURCE)
        place = SOURCE.splitlines()[fault.line - 1]
        assert changed.splitlines() == [
            place.replace(fault.before.encode(), fault.after.encode()) if number == fault.line else line
            for number, line in enumerate(SOURCE.splitlines(), 1)
        ]
        assert fault.function == (mutate_faults.IMPORT if fault.line == 2 else 5)
        compile(changed, "capped.py", "exec")


def test_folders_are_drawn_by_the_square_root_of_their_size():
    small = [mutate_faults.Fault("small/a.py", i, 0, "boundary", i, i + 1, "<", "<=") for i in range(25)]
    large = [mutate_faults.Fault("large/a.py", i, 0, "boundary", i, i + 1, "<", "<=") for i in range(400)]
    drawn = mutate_faults.draw(small + large, 15, random.Random(0))
    assert sum(fault.path == "large/a.py" for fault in drawn) == 12  # 20 against 5
    assert drawn == mutate_faults.draw(small + large, 15, random.Random(0))
