from hypervigil.checks.views import each_hidden
from hypervigil.core.evidence import Span
from hypervigil.facts.kernel import Tasks
from hypervigil.facts.views import Member

SPAN = (Span("memory", 0, 64),)
VIEWS = ("list", "tree", "queue")


def member(*views: str, excused: tuple[str, ...] = ()) -> Member:
    return Member(key=0x40, name="evil", views=views, span=SPAN, excused=excused)


def hidden(*members: Member) -> list[str]:
    return [v.message for v in each_hidden(Tasks(views=VIEWS, members=members), "task")]


def test_what_every_view_shows_is_not_hidden() -> None:
    assert hidden(member(*VIEWS)) == []
    assert hidden() == []


def test_what_a_view_lacks_is_hidden_from_it() -> None:
    assert hidden(member("tree", "queue")) == ["task evil is hidden from list; tree, queue shows it"]
    assert hidden(member("queue")) == ["task evil is hidden from list, tree; queue shows it"]


def test_an_excuse_is_of_one_view() -> None:
    assert hidden(member("tree", "queue", excused=("list: it exits",))) == []
    assert hidden(member("queue", excused=("list: it exits",))) == ["task evil is hidden from tree; queue shows it"]
    assert len(hidden(member("tree", "queue", excused=("lists: x", "queue: list: x")))) == 1


def test_what_no_view_shows_accuses_nobody() -> None:
    assert hidden(member()) == []


def test_a_violation_cites_the_structure() -> None:
    (found,) = each_hidden(Tasks(views=VIEWS, members=(member("tree", "queue"),)), "task")
    assert (found.object, found.address, found.spans) == ("task evil", 0x40, SPAN)
    assert (found.found, found.expected) == ("seen by tree, queue", "seen by tree, queue, list")
