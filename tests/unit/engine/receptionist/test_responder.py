"""The receptionist's replies, on the dialogue that ships and on small ones made to be wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.engine.base import Heard
from app.engine.receptionist.responder import Receptionist
from app.engine.receptionist.script import Script
from app.engine.receptionist.script_file import DEFAULT_SCRIPT, load_script
from app.errors import ConfigError

SCRIPT = load_script()
TOOLS = ("end_call", "transfer_call")


def _heard(lm: str | None, grammar: str | None) -> Heard:
    return Heard(transcript="something", intents={"lm": lm, "grammar": grammar})


def _both(intent: str) -> Heard:
    return _heard(intent, intent)


NOTHING = _heard(None, None)
CLINIC_FILE = Path(__file__).parents[4] / "examples" / "clinic" / "receptionist.yaml"


@pytest.fixture
def receptionist() -> Receptionist:
    receptionist = Receptionist(SCRIPT, TOOLS)
    receptionist.opened = True
    return receptionist


@pytest.mark.parametrize(
    "script", [load_script(), load_script(CLINIC_FILE)], ids=["built-in", "clinic"]
)
def test_the_greeting_tells_who_answers_and_asks_and_no_more(script: Script) -> None:
    greeting = Receptionist(script).open().text
    assert script.facts["business"] in greeting
    assert "robot" in greeting
    assert greeting.endswith("How can I help you?")
    assert len(greeting.split()) <= 16  # some four seconds


@pytest.mark.parametrize("text", ["Hello?", "hi there", "Good morning!", "hello, is anyone there"])
def test_hello_is_greeted(receptionist: Receptionist, text: str) -> None:
    assert receptionist.read(text).text == "Hello! How can I help you?"
    assert receptionist.hear(_both("hello")).text == "Hello! How can I help you?"
    assert receptionist.context == "menu"


@pytest.mark.parametrize(
    ("first", "answer"),
    [
        (_both("hello"), "robot"),
        (NOTHING, "robot"),
        (_both("hours"), "We are open"),
        (_heard("hours", None), "Did you want"),
    ],
)
def test_the_first_words_of_a_caller_who_speaks_first(first: Heard, answer: str) -> None:
    receptionist = Receptionist(SCRIPT, TOOLS)
    assert answer in receptionist.hear(first).text
    receptionist.opened = True
    assert "robot" not in receptionist.hear(_both("hello")).text


def test_nobody_is_asked_whether_they_wanted_to_say_hello(receptionist: Receptionist) -> None:
    assert receptionist.hear(_heard(None, "hello")).text.startswith("Sorry, I did not understand")
    assert receptionist.context == "menu"


def test_hello_in_a_question_asks_it_again(receptionist: Receptionist) -> None:
    receptionist.hear(_heard("hours", None))
    question = "Did you want to hear our opening hours? Please say yes or no."
    assert receptionist.hear(_both("hello")).text == question


def test_choices_come_after_a_miss(receptionist: Receptionist) -> None:
    assert "You can say: opening hours, address" in receptionist.hear(NOTHING).text


def test_what_both_listeners_heard_is_done(receptionist: Receptionist) -> None:
    assert receptionist.hear(_both("hours")).text.startswith("We are open Monday")
    assert "Harbor Street" in receptionist.hear(_both("address")).text
    assert receptionist.context == "menu"


@pytest.mark.parametrize("votes", [("hours", None), (None, "hours")])
def test_what_one_listener_heard_is_asked_about(
    receptionist: Receptionist, votes: tuple[str | None, str | None]
) -> None:
    assert receptionist.hear(_heard(*votes)).text == "Did you want to hear our opening hours?"
    assert receptionist.context == "confirm"
    assert receptionist.hear(_both("yes")).text.startswith("We are open")
    assert receptionist.context == "menu"


def test_no_to_the_question_prompts_again_where_the_caller_was(receptionist: Receptionist) -> None:
    receptionist.hear(_heard("hours", None))
    reply = receptionist.hear(_both("no"))
    assert reply.text.startswith("Sorry")
    assert "opening hours" in reply.text
    assert receptionist.context == "menu"


def test_listeners_that_disagree_are_not_believed(receptionist: Receptionist) -> None:
    assert receptionist.hear(_heard("hours", "address")).text.startswith("Sorry")


def test_yes_and_no_are_never_guessed(receptionist: Receptionist) -> None:
    receptionist.hear(_heard("hours", None))
    for votes in (("yes", None), (None, "yes"), ("no", None), ("yes", "no")):
        if receptionist.context != "confirm":
            break
        assert not receptionist.hear(_heard(*votes)).text.startswith("We are open")


def test_two_prompts_then_keys_then_a_person(receptionist: Receptionist) -> None:
    assert receptionist.hear(NOTHING).text.startswith("Sorry, I did not")
    assert receptionist.hear(NOTHING).text.startswith("Sorry, I still")
    assert "Press 1" in receptionist.hear(NOTHING).text
    reply = receptionist.hear(NOTHING)
    assert [tool.name for tool in reply.tools] == ["transfer_call"]


def test_nobody_is_asked_for_ever() -> None:
    # A radio in the room is a caller who says something and never anything that is understood.
    receptionist = Receptionist(SCRIPT, ("end_call",))
    receptionist.opened = True
    replies = [receptionist.hear(NOTHING) for _ in range(8)]
    assert replies[3].text.startswith("Nobody can be reached")
    assert [reply.text for reply in replies[4:7] if "message" not in reply.text] == [
        "Let us use the keypad. Press 1 for yes, or 2 for no."
    ]
    assert [tool.name for tool in replies[7].tools] == ["end_call"]


def test_who_was_understood_in_between_is_offered_a_person_again() -> None:
    receptionist = Receptionist(SCRIPT, ("end_call",))
    receptionist.opened = True
    for _ in range(4):
        receptionist.hear(NOTHING)
    receptionist.hear(_both("no"))
    for _ in range(3):
        receptionist.hear(NOTHING)
    assert receptionist.hear(NOTHING).text.startswith("Nobody can be reached")


def test_a_person_who_did_not_answer_is_not_called_for_ever(receptionist: Receptionist) -> None:
    for _ in range(4):
        reply = receptionist.hear(NOTHING)
    assert [tool.name for tool in reply.tools] == ["transfer_call"]
    receptionist.tool_result("transfer_call", '{"error": "busy"}')
    for _ in range(4):
        reply = receptionist.hear(NOTHING)
    assert [tool.name for tool in reply.tools] == ["end_call"]


def test_a_script_may_ask_for_ever(tmp_path: Path) -> None:
    text = DEFAULT_SCRIPT.read_text(encoding="utf-8").replace("  at_last: goodbye\n", "")
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    receptionist = Receptionist(load_script(tmp_path / "mine.yaml"), ("end_call",))
    receptionist.opened = True
    assert not any(receptionist.hear(NOTHING).tools for _ in range(20))


def test_success_forgives_what_was_not_understood(receptionist: Receptionist) -> None:
    receptionist.hear(NOTHING)
    receptionist.hear(NOTHING)
    receptionist.hear(_both("hours"))
    assert receptionist.hear(NOTHING).text.startswith("Sorry, I did not")


def test_a_turn_without_words_gets_no_answer(receptionist: Receptionist) -> None:
    reply = receptionist.hear(Heard(transcript=" "))
    assert (reply.text, reply.tools) == ("", ())
    assert receptionist.read("  ").text == ""


def test_goodbye_ends_the_call_by_its_tool(receptionist: Receptionist) -> None:
    reply = receptionist.hear(_both("goodbye"))
    assert "Goodbye" in reply.text
    assert [(tool.name, tool.arguments) for tool in reply.tools] == [
        ("end_call", {"reason": "caller_said_goodbye"})
    ]


def test_without_its_tool_a_person_cannot_be_reached() -> None:
    receptionist = Receptionist(SCRIPT, ())
    reply = receptionist.hear(_both("person"))
    assert reply.text.startswith("Nobody can be reached")
    assert reply.tools == ()
    assert receptionist.context == "offer_message"


@pytest.mark.parametrize(
    "output",
    [
        '{"error": "busy"}',
        '{"ok": false}',
        "error: no answer",
        '{"result": {"outcome": "no_answer", "note": "Nobody answered."}}',
        '{"outcome": "busy"}',
    ],
)
def test_a_failed_transfer_offers_a_message(receptionist: Receptionist, output: str) -> None:
    receptionist.hear(_both("person"))
    reply = receptionist.tool_result("transfer_call", output)
    assert reply.text.startswith("Nobody answered. Would you like to leave a message?")
    assert receptionist.context == "offer_message"


def test_a_tool_that_was_not_called_needs_no_words(receptionist: Receptionist) -> None:
    receptionist.hear(_both("person"))
    assert receptionist.tool_result("other", '{"error": "x"}').text == ""
    receptionist.hear(_both("person"))
    receptionist.tool_result("transfer_call", '{"ok": true}')
    assert receptionist.tool_result("transfer_call", "error").text == ""


def test_after_a_tool_that_worked_the_dialogue_goes_on_where_it_stands(
    receptionist: Receptionist,
) -> None:
    receptionist.hear(_both("person"))
    assert (
        receptionist.tool_result("transfer_call", '{"ok": true}').text
        == SCRIPT.states["menu"].prompt
    )


CLINIC = load_script(CLINIC_FILE)


@pytest.mark.parametrize(
    ("digits", "booked", "said"),
    [
        ('{"digits": "4711", "end": "complete"}', '{"result": {}}', "You are booked for Thursday"),
        ('{"digits": "4711", "end": "complete"}', '{"error": "closed"}', "I could not book that"),
        ('{"digits": "", "end": "nothing"}', None, CLINIC.states["menu"].prompt),
    ],
)
def test_one_tool_leads_to_another(digits: str, booked: str | None, said: str) -> None:
    receptionist = Receptionist(CLINIC)
    receptionist.hear(_both("book"))
    receptionist.tool_result("transfer_to_booking", '{"agent": "booking"}')
    assert [tool.name for tool in receptionist.hear(_both("thursday")).tools] == ["collect_digits"]
    reply = receptionist.tool_result("collect_digits", digits)
    if booked is not None:
        assert [(tool.name, tool.arguments) for tool in reply.tools] == [
            ("book_appointment", {"day": "Thursday", "patient_number": "4711"})
        ]
        reply = receptionist.tool_result("book_appointment", booked)
    assert reply.text.startswith(said)


def test_tools_that_nobody_told_of_are_tried_and_missed_politely() -> None:
    receptionist = Receptionist(SCRIPT)
    assert receptionist.hear(_both("goodbye")).tools
    assert "hang up" in receptionist.tool_result("end_call", '{"error": "not available"}').text
    receptionist.offer_tools(())
    assert receptionist.hear(_both("goodbye")).tools == ()


@pytest.mark.parametrize("script", [SCRIPT, load_script(CLINIC_FILE)], ids=["built-in", "clinic"])
def test_after_the_goodbye_nothing_is_said_any_more(script: Script) -> None:
    receptionist = Receptionist(script, TOOLS)
    assert receptionist.hear(_both("goodbye")).tools
    assert receptionist.tool_result("end_call", '{"ok": true}').text == ""
    assert receptionist.hear(_both("goodbye")).text  # whoever is still here is answered


def test_a_message_is_kept_as_audio_and_may_be_added_to(receptionist: Receptionist) -> None:
    assert not receptionist.keeps_audio
    receptionist.hear(_both("message"))
    assert receptionist.keeps_audio
    reply = receptionist.hear(Heard(transcript="[spoken message]"))
    assert reply.text.startswith("I have kept your message.")
    assert not receptionist.keeps_audio
    assert receptionist.hear(_both("yes")).text == "Please go on."
    assert receptionist.keeps_audio
    receptionist.hear(Heard(transcript="[spoken message]"))
    assert "saved" in receptionist.hear(_both("no")).text
    assert receptionist.context == "menu"


def test_a_message_that_could_not_be_kept_is_not_said_to_be(
    receptionist: Receptionist, tmp_path: Path
) -> None:
    receptionist.hear(_both("message"))
    assert receptionist.not_kept().text.startswith("I am sorry, I could not keep your message.")
    assert receptionist.context == "menu"
    text = DEFAULT_SCRIPT.read_text(encoding="utf-8")
    older = re.sub(r"    not_kept:\n(      .*\n)+", "", text)
    (tmp_path / "mine.yaml").write_text(older, encoding="utf-8")
    receptionist = Receptionist(load_script(tmp_path / "mine.yaml"), TOOLS)
    receptionist.read("[keypad] 3")
    assert receptionist.not_kept().text.startswith("Sorry, I could not keep your message.")
    assert receptionist.context == "menu"


@pytest.mark.parametrize(
    ("text", "is_message"),
    [
        ("My address has changed, call me.", True),
        ("I have no idea", True),
        ("no", False),
        ("goodbye", False),
        ("[keypad] #", False),
        ("  ", False),
    ],
)
def test_which_typed_words_are_the_message(
    receptionist: Receptionist, text: str, is_message: bool
) -> None:
    assert not receptionist.is_message(text)  # nobody has asked for one
    receptionist.hear(_both("message"))
    assert receptionist.is_message(text) is is_message


def test_facts_of_the_settings_stand_in_for_those_of_the_file() -> None:
    facts = {"hours": "every day, from {noon} to six", "business": "Harbor Clinic"}
    receptionist = Receptionist(SCRIPT, TOOLS, facts=facts)
    assert "Harbor Clinic" in receptionist.open().text
    assert "open every day, from {noon} to six. What" in receptionist.hear(_both("hours")).text
    assert "Harbor Street" in receptionist.hear(_both("address")).text


def test_the_book_knows_which_tools_it_can_call() -> None:
    assert SCRIPT.tools == {"transfer_call", "end_call"}
    assert {"collect_digits", "book_appointment", "transfer_to_booking"} < CLINIC.tools


def test_repeat_says_the_last_words_again(receptionist: Receptionist) -> None:
    said = receptionist.hear(_both("address")).text
    assert receptionist.hear(_both("repeat")).text == said
    assert receptionist.repeat().text == said
    fresh = Receptionist(SCRIPT)
    fresh.opened = True
    assert fresh.hear(_both("repeat")).text == SCRIPT.states["menu"].prompt


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("1", "We are open"),
        ("2", "Our address"),
        ("3", "Please say your message"),
        ("9", "You can"),
    ],
)
def test_keys_do_what_words_do(receptionist: Receptionist, key: str, says: str) -> None:
    assert receptionist.read(f"[keypad] {key}").text.startswith(says)


def test_a_key_without_a_meaning_says_which_have_one(receptionist: Receptionist) -> None:
    assert receptionist.read("[keypad] 7").text.startswith("That key does nothing here. Press 1")
    assert receptionist.context == "menu"


def test_keys_answer_the_question_that_was_asked(receptionist: Receptionist) -> None:
    receptionist.hear(_heard("hours", None))
    assert receptionist.read("[keypad] 1").text.startswith("We are open")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("What are your opening hours?", "We are open"),
        ("where are you", "Our address"),
        ("Could I leave a message, please", "Please say your message"),
        ("my bicycle was stolen", "Sorry"),
    ],
)
def test_typed_words_work_like_spoken_ones(
    receptionist: Receptionist, text: str, says: str
) -> None:
    assert receptionist.read(text).text.startswith(says)


def test_a_typed_message_is_the_message(receptionist: Receptionist) -> None:
    receptionist.read("[keypad] 3")
    assert receptionist.read("My address has changed, call me.").text.startswith("I have kept")


def test_every_state_of_the_script_has_keys_for_its_own_intents() -> None:
    for state in SCRIPT.states.values():
        assert set(state.keys.values()) == set(state.moves) - {"hello"}, state.name
    assert set(SCRIPT.everywhere_keys.values()) == set(SCRIPT.everywhere) - {"hello"}


def test_a_question_is_asked_again_with_what_it_asks(receptionist: Receptionist) -> None:
    receptionist.hear(_heard("hours", None))
    question = "Did you want to hear our opening hours?"
    assert question in receptionist.hear(NOTHING).text
    assert f"{question} Press 1 for yes" in receptionist.hear(NOTHING).text
    assert f"{question} Press 1 for yes" in receptionist.read("[keypad] 7").text
    assert receptionist.read("[keypad] 9").text == f"{question} Please say yes or no."


def test_the_pound_key_saves_a_message_and_leaves_none_where_nothing_was_said(
    receptionist: Receptionist,
) -> None:
    receptionist.read("[keypad] 3")
    assert receptionist.read("[keypad] #").text.startswith("No message was left.")
    receptionist.read("[keypad] 3")
    receptionist.hear(Heard(transcript="[spoken message]"))
    assert receptionist.read("[keypad] #").text.startswith("Your message is saved.")


def _wrong(tmp_path: Path, old: str, new: str) -> str:
    text = DEFAULT_SCRIPT.read_text(encoding="utf-8")
    assert old in text
    file = tmp_path / "mine.yaml"
    file.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_script(file)
    assert re.match(r"mine\.yaml(:\d+)?: ", caught.value.message)
    return caught.value.message


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("start: menu", "start: menue", "did you mean `menu`"),
        ("greeting: Hello", "greting: Hello", "did you mean `greeting`"),
        ("go: offer_message", "go: offer_mesage", "did you mean `offer_message`"),
        ("{business}", "{busines}", "did you mean `business`"),
        ("  - operator", "  - operator 5", "only lower-case words"),
        ("      - goodbye\n", '      - "[goodbye]"\n', "silence would match"),
        ("      - address\n", "      - opening hours\n", "means both"),
        ("      - operator\n", "      - goodbye\n", "means both"),
        ('key: "2"', 'key: "1"', "used for `hours` already"),
        ('key: "2"', 'key: "12"', "not a telephone key"),
        ('key: ["2", "#"]', 'key: ["2", "1"]', "used for `yes` already"),
        ("yes_no: true", "yes_no: maybe", "true or false"),
        ("{confirm}?", "that?", "must hold {confirm}"),
        ("spoken: {go: more_message}", "prompt: x", "twice"),
        ("    spoken: {go: more_message}\n", "", "belong together"),
        ("  more_message:\n", "  more_message:\n    not_kept: {go: menu}\n", "needs `keeps_audio"),
        ("act: repeat, ", "", "does nothing"),
        ("act: repeat", "act: sing", "no act is called `sing`"),
        ("give_up: person", "give_up: hours", "`everywhere`"),
        ("at_last: goodbye", "at_last: hours", "`everywhere`"),
        ("voicemail: V OY", "voicemail: 5 OY", "are not phones"),
        ("off_topic:\n", "off_topic:\n  - 12 34\n", "expected a sentence"),
        ("  confirm:\n    prompt", "  confirmation:\n    prompt", "needs a state"),
        ("spoken: {go: more_message}", "spoken: {go: menu}", "nothing goes to the state"),
        ("phrases:\n      - goodbye\n", "phrases: goodbye\n    confirm2:\n", "confirm2"),
    ],
)
def test_a_wrong_script_is_refused_with_its_line(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    assert complaint in _wrong(tmp_path, old, new)


def test_all_mistakes_are_told_together_each_once(tmp_path: Path) -> None:
    text = DEFAULT_SCRIPT.read_text(encoding="utf-8")
    changes = {
        "start: menu": ("start: menue", "no state is called `menue`"),
        "{business}": ("{busines}", "no placeholder is called `busines`"),
        "  - operator": ("  - operator 5", "only lower-case words"),
        'key: "2"': ('key: "12"', "not a telephone key"),
        "go: offer_message": ("go: offer_mesage", "no state is called `offer_mesage`"),
        "yes_no: true": ("yes_no: maybe", "`yes_no` must be true or false"),
        "act: repeat": ("act: sing", "no act is called `sing`"),
        "{confirm}?": ("that?", "must hold {confirm}"),
        "give_up: person": ("give_up: [person]", "expected a text"),
        "voicemail: V OY": ("voicemail: 5 OY", "are not phones"),
        "    spoken: {go: more_message}\n": ("", "belong together"),
        "phrases:\n      - goodbye\n": ("phrases: {goodbye: 1}\n    x:\n", "expected a list"),
    }
    for old, (new, _) in changes.items():
        assert old in text
        text = text.replace(old, new, 1)
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_script(tmp_path / "mine.yaml")
    lines = caught.value.message.splitlines()
    for _, complaint in changes.values():
        assert sum(complaint in line for line in lines) == 1, complaint
    numbers = [int(line.split(":")[1]) for line in lines]
    assert numbers == sorted(numbers)


KEY = re.compile(r" *[a-z_]+: (?=\S)")


@pytest.mark.parametrize("odd", ["5", "[1]", "{a: 1}", '""', "null"])
def test_an_odd_value_anywhere_is_a_mistake_and_not_a_crash(odd: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    rows = DEFAULT_SCRIPT.read_text(encoding="utf-8").splitlines()
    # The first row of each key at each depth.
    places = {key[0]: n for n, row in reversed(list(enumerate(rows))) if (key := KEY.match(row))}
    assert len(places) > 20
    for number in places.values():
        row = rows[number].partition(":")[0] + f": {odd}"
        file.write_text("\n".join([*rows[:number], row, *rows[number + 1 :]]), encoding="utf-8")
        try:
            load_script(file)
        except ConfigError as error:
            assert all(line.startswith("mine.yaml:") for line in error.message.splitlines())


def test_the_line_named_is_the_line_of_the_mistake(tmp_path: Path) -> None:
    text = DEFAULT_SCRIPT.read_text(encoding="utf-8")
    line = text[: text.index("      - operator")].count("\n") + 1
    assert _wrong(tmp_path, "  - operator", "  - operator 5").startswith(f"mine.yaml:{line}:")


def test_a_file_that_is_not_there_is_a_setting_that_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_script(tmp_path / "none.yaml")


def test_the_recognizer_listens_for_own_intents_before_those_of_everywhere() -> None:
    script: Script = SCRIPT
    assert script.grammar.states["confirm"].exact(("no", "thank", "you")) == "no"
    assert script.grammar.states["menu"].exact(("no", "thank", "you")) == "goodbye"
    assert script.grammar.states["message"].free
