"""The words by which a callee asks never to be called again. Pure.

Phrases are written as `plain` makes them. All languages are looked for at once, since a person may
answer in another one than the agent's. "Do not call me now" is a wish for another time, and "do not
call me Sir" one for another name: neither is an opt-out. For words that no phrase has, agents have
the tool `do_not_call`. To add a language, add a row to the table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from app.calls.outbound.answered_by_phrases import plain

__all__ = ["opts_out"]


@dataclass(frozen=True, slots=True)
class _Language:
    """Phrases that opt out, unless `otherwise` is inside them or follows them.

    `for_ever`, there or later in the sentence, says that it is meant for all time all the same.
    `{when}` stands for words of `otherwise`, in languages that have them inside the phrase.
    """

    phrases: tuple[str, ...]
    otherwise: str
    for_ever: str


_HOURS: Final = r"\d+|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|noon|midnight"
_ENGLISH: Final = _Language(
    phrases=(
        r"(?:(?<!you )(?<!they )(?<!we )(?:do not|dont|never)|not to|stop|quit) (?:ever )?"
        r"(?:call|calling|phone|phoning|ring|ringing|contact|contacting) "
        r"(?:me|us|here|this number|my number|our number)(?: back)?(?: (?:again|at all))?",
        r"(?:do not|dont|never|not to) (?:ever )?(?:call|phone|ring|contact)(?: here)? "
        r"(?:again|any ?more|ever)",
        r"you (?:do not|dont|must not|may not|can not|cannot|cant) (?:ever )?"
        r"(?:call|phone|ring|contact) (?:me|us|here|this number) (?:again|any ?more|ever)",
        r"(?:stop|quit) (?:calling|phoning|ringing)$",
        r"no more (?:phone )?calls",
        r"(?:do not|dont|never) (?:want|wish) (?:you |to |any )*(?:more )?(?:get |receive "
        r")?(?:any )?"
        r"(?:more )?(?:(?:phone )?calls?(?: me| us| here)?|be called)(?: again)?",
        r"(?:take|remove|delete|get|strike|cross) (?:me|us|my (?:phone )?number|my name|"
        r"this number|our number)(?: off| from| out of)+ (?:of )?(?:your|the|this|that|any|all) "
        r"(?:\w+ )?(?:lists?|database|system|records)",
        r"(?:take|remove|delete|lose|erase) (?:my|our|this) (?:phone )?number",
        r"(?:put|add|place) (?:me|us|my number|this number) (?:on|to) (?:(?:your|the|a) )?"
        r"(?:do not call|dnc|no call)",
        r"unsubscribe me",
    ),
    otherwise=(
        r"now|right now|today|tonight|tomorrow|later|yet|before|after|until|till|between|during|"
        r"when|while|next|this (?:late|early|week|weekend|month|morning|afternoon|evening|"
        r"minute)|"
        r"(?:so|too|that) (?:late|early)|in the|on (?:the weekend|weekends|a \w+day|\w+days?\b)|"
        rf"at (?:work|home|night|lunch|dinner|the office|my job|(?:this|that) (?:time|hour)|"
        rf"{_HOURS})|"
        # a name
        r"a|an|that|names|sir|madam|maam|miss|mrs|mr|ms|honey|darling|dear|love|baby|crazy|stupid"
    ),
    for_ever=r"ever(?! since)|any ?more|never again",
)

_GERMAN_WHEN: Final = (
    r"jetzt|gerade|heute|morgen|ubermorgen|abends|nachts|morgens|mittags|sonntags|samstags|"
    r"(?:am|im|um|vor|nach|bis|wahrend|zwischen|ab|bei der|auf der|in der|in den) \w+|"
    r"(?:so|zu) (?:spat|fruh)|(?:um|zu) diese\w* \w+|diese\w* (?:woche|monat)|spater|mitten|wenn"
)
_GERMAN: Final = _Language(
    phrases=(
        r"ruf(?:en sie|t|e)? (?:(?:bitte|doch|mich|uns|hier|bei (?:mir|uns)|diese nummer) )*"
        r"(?:{when} )*(?:nie|niemals|nicht|nimmer)(?: (?:mehr|wieder|noch ?mal|noch einmal))*"
        r"(?: {when})*(?: an)?\b",
        r"(?:mich|uns|hier|diese nummer|bei (?:mir|uns)) (?:bitte )?(?:{when} )*(?:nie|"
        r"niemals|nicht) "
        r"(?:mehr|wieder|noch ?mal|noch einmal)(?: {when})* (?:an(?:zu)?rufen|(?:zu "
        r")?kontaktieren)",
        r"(?:mochte|will|mochten|wollen|wunsche) (?:ich |wir )?(?:bitte )?(?:von ihnen "
        r")?(?:{when} )*"
        r"(?:nie|nicht) (?:mehr|wieder)(?: von ihnen)?(?: {when})* (?:angerufen|kontaktiert) "
        r"werden",
        r"(?:bitte |will |mochte |mochten |wollen |wunsche )(?:ich |wir )?keine (?:weiteren "
        r")?anrufe(?: mehr)?",
        r"keine (?:weiteren )?anrufe mehr",
        r"(?:horen sie|hort|hor) (?:bitte |endlich |damit )?auf (?:mich|uns|hier) (?:\w+ "
        r")?anzurufen",
        r"(?:streichen|loschen|nehmen|entfernen) sie (?:bitte )?(?:mich|uns|meinen namen|"
        r"(?:meine|diese|unsere) (?:telefon)?nummer)(?: bitte)? (?:von|aus) (?:\w+ )?"
        r"(?:\w*liste\w*|\w*verteiler\w*|\w*datenbank\w*|\w*kartei\w*|\w*system\w*)",
        r"(?:streichen|loschen|entfernen|vergessen) sie (?:bitte )?(?:meine|diese|unsere) "
        r"(?:telefon)?nummer",
    ),
    otherwise=_GERMAN_WHEN,
    for_ever=r"nie wieder|nie mehr|niemals",
)

_SPANISH: Final = _Language(
    phrases=(
        r"(?:no|nunca|ya no|jamas)(?: mas)? (?:me|nos) (?:vuelva[ns]? a (?:llamar|contactar|"
        r"molestar)|"
        r"llame[ns]?|contacte[ns]?|moleste[ns]?|telefonee[ns]?)\b(?: aqui)?(?: (?:mas(?! "
        r"tarde)|nunca|jamas))*",
        r"(?:no|nunca) (?:vuelva[ns]? a llamar(?:me|nos)?|llame[ns]?(?: (?:aqui|a este "
        r"numero))? mas(?! tarde))"
        r"(?: mas(?! tarde)| nunca)?",
        r"deje[ns]? de (?:llamar|contactar|molestar)(?:me|nos|\b)(?: aqui| a este numero)?",
        r"no quiero (?:mas (?:sus )?llamadas|(?:recibir )(?:mas )?(?:sus )?llamadas|"
        r"que (?:me|nos) (?:vuelvan? a llamar|llamen?)(?: mas(?! tarde)| nunca)?)",
        r"(?:quit|borr|elimin|sac|saqu)[ae]n?(?:me|nos) (?:ya )?(?:de|del) (?:(?:su|sus|la|"
        r"las|esa|esta|tu) )?"
        r"(?:listas?|bases? de datos|registros?|sistema)",
        r"(?:quit|borr|elimin)[ae]n? (?:mi|este|nuestro) (?:numero|telefono|nombre)",
        r"den?me de baja",
    ),
    otherwise=(
        r"ahora|hoy|manana|esta (?:noche|tarde|manana|semana)|a (?:esta|estas) horas?|a las? "
        r"\w+|antes|"
        r"despues|hasta|mas tarde|luego|por la|por las|en (?:la|el) (?:trabajo|oficina|noche|"
        r"manana|tarde)|"
        r"al (?:trabajo|mediodia)|(?:el|los) (?:fin|fines|lunes|martes|miercoles|jueves|"
        r"viernes|sabados?|"
        r"domingos?)|tan (?:tarde|temprano|pronto)|cuando|mientras|durante|entre|todavia|aun|"
        r"senora?|senorita|asi|eso|de usted|tonto"
    ),
    for_ever=r"nunca mas|jamas|nunca",
)

_FRENCH: Final = _Language(
    phrases=(
        r"(?<!vous )ne? ?(?:me |nous |m ?)?(?:r?appelez|telephonez|contactez|derangez)(?: moi)? "
        r"(?:plus(?! tard)|jamais|pas)(?: (?:ici|jamais))?",
        r"ne (?:me|nous) (?:re)?telephonez (?:plus|pas|jamais)",
        r"(?:arretez|cessez) d(?:e )?(?:m ?|me |nous )?(?:appeler|telephoner|contacter|"
        r"harceler|deranger)",
        r"(?:veux|veut|voulons|souhaite|souhaitons) (?:plus|pas) (?:que vous (?:m ?|nous "
        r")?(?:r?appeliez)|"
        r"d?etre (?:r?appelee?s?|contactee?s?|derangee?s?)|recevoir (?:dappels|vos appels|"
        r"dappel)|"
        r"dappels?|de vos appels)",
        r"(?:retirez|enlevez|supprimez|rayez|effacez|otez) (?:moi|nous) (?:de|du|des) (?:\w+ )?"
        r"(?:listes?|fichiers?|base|bases|registres?|systeme)",
        r"(?:retirez|enlevez|supprimez|rayez|effacez|oubliez) (?:mon|notre|ce) (?:numero|nom|"
        r"telephone)",
    ),
    otherwise=(
        r"maintenant|aujourdhui|demain|ce (?:soir|matin|week ?end)|cet (?:apres ?midi|semaine)|"
        r"cette (?:nuit|semaine)|avant|apres|jusqua\w*|pendant|quand|entre|durant|"
        r"(?:si|aussi|trop) (?:tard|tot)|plus tard|tout de suite|a (?:cette|cet|ces) \w+|a "
        r"\w+ heures?|"
        r"au (?:travail|bureau)|"
        r"(?:le|la|les) (?:soir|matin|nuit|midi|week ?end|lundi|mardi|mercredi|jeudi|vendredi|"
        r"samedi|"
        r"dimanche)s?|en (?:soiree|journee)|encore|monsieur|madame|mademoiselle|comme|ainsi"
    ),
    for_ever=r"plus jamais|jamais plus|jamais",
)

_POLITE: Final = r"(?: (?:please|back|bitte|por favor|sil vous plait|an)\b)*"


def _compiled(language: _Language) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    when = rf"(?:{language.otherwise})"
    phrases = "|".join(one.replace("{when}", when) for one in language.phrases)
    return (
        re.compile(rf"\b(?:{phrases})"),
        re.compile(rf"\b{when}\b"),
        re.compile(rf"\b(?:{language.for_ever})\b"),
    )


_LANGUAGES: Final = tuple(map(_compiled, (_ENGLISH, _GERMAN, _SPANISH, _FRENCH)))
_FOLLOWS: Final = re.compile(rf"{_POLITE} ?")


def opts_out(words: str) -> str:
    """The words by which a callee asks never to be called again; empty where there are none."""
    sentences = [plain(sentence) for sentence in re.split(r"[.!?;:]", words)]
    return next((found for said in sentences for found in _found_in(said)), "")


def _found_in(said: str) -> Iterator[str]:
    for phrases, otherwise, for_ever in _LANGUAGES:
        for found in phrases.finditer(said):
            follows = _FOLLOWS.match(said, found.end())
            behind = found.end() if follows is None else follows.end()
            another = otherwise.match(said, behind) or otherwise.search(found[0])
            if another is None or for_ever.search(said, found.start()):
                yield found[0]
