"""The timeline stands in the order of what happened, and the bar shows who did which step last."""

from demo.screen_parts import COLOURS, DONE, OPEN, REPEATED, bar, fits
from demo.timeline import Entry, Source, Timeline, as_text
from demo.training import Training


def test_an_entry_that_is_heard_of_late_stands_where_it_belongs() -> None:
    timeline = Timeline(100.0)
    for time, text in ((101.0, "a"), (103.0, "c"), (102.0, "b")):
        timeline.add(Entry(time, Source.TRAINER, text))
    assert [entry.text for entry in timeline.entries()] == ["a", "b", "c"]


def test_entries_of_one_moment_stay_in_the_order_in_which_they_came() -> None:
    timeline = Timeline(0.0)
    for text in ("z", "a"):
        timeline.add(Entry(1.0, Source.NODE, text))
    assert [entry.text for entry in timeline.entries()] == ["z", "a"]


def test_minor_entries_are_kept_and_can_be_left_out() -> None:
    timeline = Timeline(0.0)
    timeline.add(Entry(1.0, Source.NODE, "major"))
    timeline.add(Entry(2.0, Source.NODE, "minor", is_minor=True))
    assert len(timeline.entries()) == 2
    assert [entry.text for entry in timeline.entries(with_minor=False)] == ["major"]


def test_text_has_seconds_since_the_start_who_and_what() -> None:
    text = as_text([Entry(112.34, Source.OPERATOR, "Launching: x", job="digits")], 100.0)
    assert text == "   12.3 s  operator  [digits] Launching: x\n"


def test_the_bar_shows_last_execution_repeats_and_what_is_still_to_do() -> None:
    training = Training()
    for incarnation, capacity, step in ((1, "spot", 1), (1, "spot", 2), (2, "on-demand", 2)):
        training.add(
            {
                "event": "step",
                "step": step,
                "incarnation": incarnation,
                "capacityType": capacity,
                "time": "2026-11-24T00:00:00Z",
                "loss": 1.0,
            }
        )
    cells = bar(training, total_steps=4, width=4)
    assert [character for character, _ in cells] == [DONE, REPEATED, OPEN, OPEN]
    assert [colour for _, colour in cells[:2]] == [COLOURS["spot"][1], COLOURS["on-demand"][0]]


def test_the_newest_entries_are_shown_where_room_is_scarce() -> None:
    entries = [Entry(float(number), Source.DEMO, str(number)) for number in range(5)]
    assert [entry.text for entry in fits(entries, 2)] == ["3", "4"]
    assert fits(entries, 0) == []
