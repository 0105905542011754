"""A failed model is tried again once its files are others, and still."""

from supervisor.roster.file_watch import FileWatch

OLD, NEW, NEWER = ((1, 1, 1),), ((2, 2, 2),), ((3, 3, 3),)


def test_the_same_files_change_nothing() -> None:
    renewed: list[str] = []
    watch = FileWatch(dict, renewed.append)
    for _ in range(5):
        watch.look({"a": OLD})
    assert renewed == []


def test_other_files_count_once_they_are_still() -> None:
    renewed: list[str] = []
    watch = FileWatch(dict, renewed.append)
    for found in (OLD, NEW, NEWER):
        watch.look({"a": found})
    assert renewed == []
    watch.look({"a": NEWER})
    assert renewed == ["a"]


def test_files_that_are_gone_are_no_reason_to_try() -> None:
    renewed: list[str] = []
    watch = FileWatch(dict, renewed.append)
    for found in (OLD, (None,), (None,)):
        watch.look({"a": found})
    assert renewed == []


def test_a_second_failure_is_compared_anew() -> None:
    renewed: list[str] = []
    watch = FileWatch(dict, renewed.append)
    for found in ({"a": OLD}, {}, {"a": NEW}, {"a": NEW}):
        watch.look(found)
    assert renewed == []
