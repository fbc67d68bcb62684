"""The words by which a callee asks never to be called again. Pure.

Phrases are written as `plain` makes them. All languages are looked for at once, since a person may
answer in another one than the agent's. "Do not call me now" is a wish for another time, and "do not
call me Sir" one for another name: neither is an opt-out. For words that no phrase has, agents have
the tool `do_not_call`. To add a language, add a row to the table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from app.calls.outbound.answered_by_phrases import plain

__all__ = ["opts_out"]


@dataclass(frozen=True, slots=True)
class _Language:
    """Phrases that opt out, unless a row of `otherwise` is inside them or follows them.

    `words` are alternatives by name, which stand in phrases as `{name}`; `{when}` stands for those
    of `otherwise`, in languages that have them inside the phrase. With words of `for_ever`, in the
    phrase or later in the sentence, it is meant for all time whatever else is said.
    """

    words: Mapping[str, str]
    phrases: tuple[str, ...]
    otherwise: tuple[str, ...]
    for_ever: str


_ENGLISH: Final = _Language(
    words={
        "do_not": "do not|dont|never",
        "call": "call|phone|ring|contact",
        "calling": "call|calling|phone|phoning|ring|ringing|contact|contacting",
        "me": "me|us|here|this number|my number|our number",
        "again": "again|any ?more|ever",
        "calls": "(?:phone )?calls?(?: me| us| here)?|be called",
        "strike": "take|remove|delete|get|strike|cross",
        "entry": "me|us|my (?:phone )?number|my name|this number|our number",
        "list": "lists?|database|system|records",
    },
    phrases=(
        r"(?:(?<!you )(?<!they )(?<!we ){do_not}|not to|stop|quit) (?:ever )?{calling} {me}"
        r"(?: back)?(?: (?:again|at all))?",
        r"(?:{do_not}|not to) (?:ever )?{call}(?: here)? {again}",
        r"you (?:do not|dont|must not|may not|can not|cannot|cant) (?:ever )?{call} "
        r"(?:me|us|here|this number) {again}",
        r"(?:stop|quit) (?:calling|phoning|ringing)$",
        r"no more (?:phone )?calls",
        r"{do_not} (?:want|wish) (?:you |to |any )*(?:more )?(?:get |receive )?(?:any )?"
        r"(?:more )?{calls}(?: again)?",
        r"{strike} {entry}(?: off| from| out of)+ (?:of )?(?:your|the|this|that|any|all) "
        r"(?:\w+ )?{list}",
        r"(?:take|remove|delete|lose|erase) (?:my|our|this) (?:phone )?number",
        r"(?:put|add|place) (?:me|us|my number|this number) (?:on|to) (?:(?:your|the|a) )?"
        r"(?:do not call|dnc|no call)",
        r"unsubscribe me",
    ),
    otherwise=(
        "now|right now|today|tonight|tomorrow|later|yet|before|after|until|till|between|during",
        "when|while|next|in the|on (?:the weekend|weekends|a \\w+day|\\w+days?\\b)",
        "this (?:late|early|week|weekend|month|morning|afternoon|evening|minute)",
        "(?:so|too|that) (?:late|early)",
        "at (?:work|home|night|lunch|dinner|the office|my job|(?:this|that) (?:time|hour))",
        "at (?:\\d+|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)",
        "at (?:noon|midnight)",
        # a name
        "a|an|that|names|sir|madam|maam|miss|mrs|mr|ms|honey|darling|dear|love|baby|crazy|stupid",
    ),
    for_ever="ever(?! since)|any ?more|never again",
)

_GERMAN: Final = _Language(
    words={
        "us": "mich|uns|hier|diese nummer|bei (?:mir|uns)",
        "never": "nie|niemals|nicht",
        "again": "mehr|wieder|noch ?mal|noch einmal",
        "want": "mochte|will|mochten|wollen|wunsche",
        "strike": "streichen|loschen|nehmen|entfernen",
        "number": "(?:meine|diese|unsere) (?:telefon)?nummer",
        "list": r"\w*liste\w*|\w*verteiler\w*|\w*datenbank\w*|\w*kartei\w*|\w*system\w*",
    },
    phrases=(
        r"ruf(?:en sie|t|e)? (?:(?:bitte|doch|{us}) )*(?:{when} )*(?:{never}|nimmer)"
        r"(?: {again})*(?: {when})*(?: an)?\b",
        r"{us} (?:bitte )?(?:{when} )*{never} {again}(?: {when})* "
        r"(?:an(?:zu)?rufen|(?:zu )?kontaktieren)",
        r"{want} (?:ich |wir )?(?:bitte )?(?:von ihnen )?(?:{when} )*(?:nie|nicht) (?:mehr|wieder)"
        r"(?: von ihnen)?(?: {when})* (?:angerufen|kontaktiert) werden",
        r"(?:bitte|{want}) (?:ich |wir )?keine (?:weiteren )?anrufe(?: mehr)?",
        r"keine (?:weiteren )?anrufe mehr",
        r"(?:horen sie|hort|hor) (?:bitte |endlich |damit )?auf (?:mich|uns|hier) (?:\w+ )?"
        r"anzurufen",
        r"{strike} sie (?:bitte )?(?:mich|uns|meinen namen|{number})(?: bitte)? "
        r"(?:von|aus) (?:\w+ )?{list}",
        r"(?:streichen|loschen|entfernen|vergessen) sie (?:bitte )?{number}",
    ),
    otherwise=(
        "jetzt|gerade|heute|morgen|ubermorgen|abends|nachts|morgens|mittags|sonntags|samstags",
        r"(?:am|im|um|vor|nach|bis|wahrend|zwischen|ab|bei der|auf der|in der|in den) \w+",
        r"(?:so|zu) (?:spat|fruh)|(?:um|zu) diese\w* \w+|diese\w* (?:woche|monat)",
        "spater|mitten|wenn",
    ),
    for_ever="nie wieder|nie mehr|niemals",
)

_SPANISH: Final = _Language(
    words={
        "never": "no|nunca|ya no|jamas",
        "more": "mas(?! tarde)|nunca",
        "call_again": "vuelva[ns]? a (?:llamar|contactar|molestar)",
        "call": "llame[ns]?|contacte[ns]?|moleste[ns]?|telefonee[ns]?",
        "here": "aqui|a este numero",
        "us": "me|nos",
        "strike": "(?:quit|borr|elimin|sac|saqu)[ae]n?",
        "list": "listas?|bases? de datos|registros?|sistema",
    },
    phrases=(
        r"{never}(?: mas)? {us} (?:{call_again}|{call})\b(?: aqui)?(?: (?:{more}|jamas))*",
        r"(?:no|nunca) (?:vuelva[ns]? a llamar{us}?|llame[ns]?(?: {here})? mas(?! tarde))"
        r"(?: {more})?",
        r"deje[ns]? de (?:llamar|contactar|molestar)(?:{us}|\b)(?: {here})?",
        r"no quiero (?:mas|recibir|recibir mas) (?:sus )?llamadas",
        r"no quiero que {us} (?:vuelvan? a llamar|llamen?)(?: {more})?",
        r"{strike}{us} (?:ya )?(?:de|del) (?:(?:su|sus|la|las|esa|esta|tu) )?{list}",
        r"(?:quit|borr|elimin)[ae]n? (?:mi|este|nuestro) (?:numero|telefono|nombre)",
        r"den?me de baja",
    ),
    otherwise=(
        "ahora|hoy|manana|antes|despues|hasta|luego|cuando|mientras|durante|entre|todavia|aun",
        r"esta (?:noche|tarde|manana|semana)|a (?:esta|estas) horas?|a las? \w+|mas tarde",
        "por la|por las|en (?:la|el) (?:trabajo|oficina|noche|manana|tarde)",
        "al (?:trabajo|mediodia)",
        "(?:el|los) (?:fin|fines|lunes|martes|miercoles|jueves|viernes|sabados?|domingos?)",
        "tan (?:tarde|temprano|pronto)",
        # a name
        "senora?|senorita|asi|eso|de usted|tonto",
    ),
    for_ever="nunca mas|jamas|nunca",
)

_FRENCH: Final = _Language(
    words={
        "never": "plus|pas|jamais",
        "call": "r?appelez|telephonez|contactez|derangez",
        "to_call": "appeler|telephoner|contacter|harceler|deranger",
        "want": "veux|veut|voulons|souhaite|souhaitons",
        "called": "r?appelee?s?|contactee?s?|derangee?s?",
        "list": "listes?|fichiers?|base|bases|registres?|systeme",
    },
    phrases=(
        r"(?<!vous )ne? ?(?:me |nous |m ?)?{call}(?: moi)? (?:plus(?! tard)|jamais|pas)"
        r"(?: (?:ici|jamais))?",
        r"ne (?:me|nous) (?:re)?telephonez {never}",
        r"(?:arretez|cessez) d(?:e )?(?:m ?|me |nous )?{to_call}",
        r"{want} (?:plus|pas) que vous (?:m ?|nous )?(?:r?appeliez)",
        r"{want} (?:plus|pas) (?:d?etre {called}|recevoir (?:dappels?|vos appels)|dappels?|"
        r"de vos appels)",
        r"(?:retirez|enlevez|supprimez|rayez|effacez|otez) (?:moi|nous) (?:de|du|des) (?:\w+ )?"
        r"{list}",
        r"(?:retirez|enlevez|supprimez|rayez|effacez|oubliez) (?:mon|notre|ce) "
        r"(?:numero|nom|telephone)",
    ),
    otherwise=(
        "maintenant|aujourdhui|demain|tout de suite|encore|avant|apres|plus tard",
        r"jusqua\w*|pendant|quand|entre|durant|(?:si|aussi|trop) (?:tard|tot)",
        "ce (?:soir|matin|week ?end)|cet (?:apres ?midi|semaine)|cette (?:nuit|semaine)",
        r"a (?:cette|cet|ces) \w+|a \w+ heures?|au (?:travail|bureau)|en (?:soiree|journee)",
        "(?:le|la|les) (?:soir|matin|nuit|midi|week ?end)s?",
        "(?:le|la|les) (?:lundi|mardi|mercredi|jeudi|vendredi|samedi|dimanche)s?",
        # a name
        "monsieur|madame|mademoiselle|comme|ainsi",
    ),
    for_ever="plus jamais|jamais plus|jamais",
)

_POLITE: Final = r"(?: (?:please|back|bitte|por favor|sil vous plait|an)\b)*"


def _compiled(language: _Language) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    when = f"(?:{'|'.join(language.otherwise)})"
    phrases = "|".join(language.phrases).replace("{when}", when)
    for name, words in language.words.items():
        phrases = phrases.replace(f"{{{name}}}", f"(?:{words})")
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
