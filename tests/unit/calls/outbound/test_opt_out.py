"""The words that put a callee on the do-not-call list, and those that must not, by language."""

from __future__ import annotations

import pytest

from app.calls.outbound.opt_out import opts_out

NEVER_AGAIN: dict[str, tuple[str, ...]] = {
    "en": (
        "Don't call me again!",
        "Do not call me.",
        "Please don't call here any more.",
        "Don't ever call me again.",
        "Never call this number again.",
        "Stop calling me.",
        "Would you stop calling?",
        "I told you not to call me again.",
        "I have asked you to stop calling me.",
        "Do not call me back.",
        "Don't call me at all.",
        "Don't call me again at this number.",
        "Don't call me now, or ever again.",
        "You must not call me again.",
        "No more calls, please.",
        "I don't want any more calls from you.",
        "I don't want you to call me again.",
        "I do not wish to be called.",
        "Please take me off your list.",
        "Take my number off of your call list.",
        "Remove my number from your database, please.",
        "Delete my number.",
        "Lose my number!",
        "Put me on your do not call list.",
        "Put us on the do-not-call list, would you?",
        "Unsubscribe me.",
        "I am busy now. Do not contact us again.",
    ),
    "de": (
        "Rufen Sie mich bitte nicht mehr an.",
        "Rufen Sie mich nie wieder an!",
        "Rufen Sie mich nicht an.",
        "Bitte rufen Sie hier nicht mehr an.",
        "Ruft uns nicht mehr an.",
        "Rufen Sie nie wieder bei mir an.",
        "Ich will, dass Sie mich nicht mehr anrufen.",
        "Ich möchte nicht mehr angerufen werden.",
        "Ich will keine Anrufe mehr.",
        "Ich möchte keine weiteren Anrufe.",
        "Hören Sie auf, mich anzurufen.",
        "Streichen Sie mich von der Liste.",
        "Nehmen Sie mich bitte aus Ihrem Verteiler.",
        "Löschen Sie bitte meine Nummer.",
        "Rufen Sie mich heute nicht an, und auch sonst nie wieder.",
    ),
    "es": (
        "No me llame más.",
        "No me llamen nunca más.",
        "No me vuelva a llamar.",
        "No vuelvan a llamarme.",
        "Ya no me llamen, por favor.",
        "No me llame.",
        "Nunca más me llame.",
        "Deje de llamarme.",
        "Dejen de llamar a este número.",
        "No quiero más llamadas.",
        "No quiero que me llamen.",
        "No quiero recibir sus llamadas.",
        "Quíteme de su lista.",
        "Bórreme de la base de datos.",
        "Borre mi número.",
        "Deme de baja.",
        "No me llame ahora ni nunca más.",
    ),
    "fr": (
        "Ne m'appelez plus.",
        "Ne me rappelez plus jamais.",
        "Ne nous appelez pas.",
        "N'appelez plus ici.",
        "Ne me téléphonez plus.",
        "Arrêtez de m'appeler.",
        "Cessez de nous appeler !",
        "Je ne veux plus être appelé.",
        "Je ne veux plus que vous m'appeliez.",
        "Je ne souhaite plus recevoir d'appels.",
        "Retirez-moi de votre liste.",
        "Supprimez mon numéro.",
        "Ne m'appelez pas maintenant, ni plus jamais.",
    ),
}

NOT_NOW: dict[str, tuple[str, ...]] = {
    "en": (
        "Don't call me now.",
        "Don't call me before nine.",
        "Please don't call me back today.",
        "Don't call me tomorrow, call me on Friday.",
        "Don't call me again until Monday.",
        "Never call me at work.",
        "Do not call us after six.",
        "Don't call me on Sundays.",
        "Stop calling me at this hour.",
        "Don't call me this late.",
        "Do not call me at night, please.",
        "I don't want you to call me before ten.",
        "Don't call me later, tell me now.",
        "Don't call me Sir.",
        "Don't call me a liar.",
        "They never call me.",
        "You never call me back.",
        "If you don't call me by Friday, I will be cross.",
        "Can you call me again later?",
        "I will call you again.",
        "Take me off speaker, I can't hear you.",
        "Put me on the list, please.",
        "",
    ),
    "de": (
        "Rufen Sie mich jetzt nicht an.",
        "Rufen Sie mich nicht vor neun an.",
        "Rufen Sie mich heute nicht mehr an.",
        "Rufen Sie mich bitte nicht am Sonntag an.",
        "Rufen Sie mich nicht so spät an.",
        "Rufen Sie mich nicht an, wenn ich arbeite.",
        "Sie können mich heute nicht mehr anrufen.",
        "Ich möchte vor neun Uhr nicht mehr angerufen werden.",
        "Rufen Sie mich morgen noch einmal an.",
        "Ich konnte Sie nicht mehr anrufen.",
        "Das geht Sie nicht mehr an.",
        "Nehmen Sie mich bitte ernst.",
        "Nehmen Sie meine Nummer auf.",
    ),
    "es": (
        "No me llame ahora.",
        "No me llame ahora, llámeme mañana.",
        "No me llame antes de las nueve.",
        "No me llame hoy, por favor.",
        "No me llame más tarde.",
        "No me llamen por la noche.",
        "No me llame los domingos.",
        "No me llame a estas horas.",
        "No me llame al trabajo.",
        "No me vuelva a llamar hasta el lunes.",
        "No me llame tan temprano.",
        "No me llame señora.",
        "No me llamo Juan.",
        "Llámeme más tarde.",
        "Quíteme una duda.",
        "Sáqueme una cita.",
        "Apunte mi número.",
    ),
    "fr": (
        "Ne m'appelez pas maintenant.",
        "Ne m'appelez pas avant neuf heures.",
        "Ne m'appelez plus le soir.",
        "Ne me rappelez pas aujourd'hui.",
        "Ne m'appelez pas au travail.",
        "Ne m'appelez pas si tard.",
        "Ne m'appelez pas à cette heure-ci.",
        "Ne m'appelez pas madame.",
        "Ne me rappelez plus tard, rappelez demain.",
        "Rappelez-moi plus tard.",
        "Retirez-moi un doute.",
        "Il ne m'appelle plus.",
    ),
}


def rows(table: dict[str, tuple[str, ...]]) -> list[str]:
    return [f"{language}: {words}" for language, some in table.items() for words in some]


@pytest.mark.parametrize("row", rows(NEVER_AGAIN))
def test_those_who_want_no_more_calls_are_found(row: str) -> None:
    assert opts_out(row.partition(": ")[2])


@pytest.mark.parametrize("row", rows(NOT_NOW))
def test_another_time_or_name_is_no_opt_out(row: str) -> None:
    assert opts_out(row.partition(": ")[2]) == ""


def test_every_language_of_the_phrases_has_both_kinds_of_rows() -> None:
    assert set(NEVER_AGAIN) == set(NOT_NOW) == {"en", "de", "es", "fr"}
