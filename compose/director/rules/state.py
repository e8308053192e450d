"""Where the reading of a prompt stands: its words, the film so far, and the clause that is being read."""

from __future__ import annotations

from dataclasses import dataclass, field

from orbit4d.compose.director.rules.draft import ActorDraft, FilmDraft, PlaceDraft
from orbit4d.compose.director.rules.measures import Measured
from orbit4d.compose.director.rules.noun_phrases import NounPhrase, read_noun_phrase
from orbit4d.compose.director.rules.tokens import COMMA, ENDS, Token
from orbit4d.compose.language.nouns import GENERIC, NOUN_FORMS
from orbit4d.compose.language.verbs import KNOWN_VERBS, VERB_FORMS, canonical_action
from orbit4d.compose.language.words import (
    AUXILIARIES,
    MANNER,
    NEGATED_AUXILIARIES,
    PREPOSITIONS,
    RELATIVE,
)
from orbit4d.compose.spec import MAX_COUNT, RelationKind
from orbit4d.datasets.core.errors import InputError


@dataclass
class Clause:
    """One clause: who does what, and what was said before its subject came."""

    group: list[ActorDraft] = field(default_factory=list)
    #: The group that a relative clause interrupted.
    outer: list[ActorDraft] = field(default_factory=list)
    last: ActorDraft | None = None
    verbs: list[tuple[str, str]] = field(default_factory=list)
    sides: list[PlaceDraft] = field(default_factory=list)
    respectively: bool = False
    has_verb: bool = False
    negated: bool = False
    #: The subject is scenery or talk; what it does is nothing of ours.
    scenery: bool = False
    #: "with a hat and a jacket": what follows "and" belongs to the subject.
    belonging: bool = False
    #: Said before the subject: places, relation, path, action, speed.
    front: list[PlaceDraft] = field(default_factory=list)
    front_relation: tuple[RelationKind, ActorDraft] | None = None
    front_action: tuple[str, str, bool] | None = None
    front_speed: float | None = None
    #: Position after the scene's words, and whether an actor was named since.
    scene_end: int = -1


class State:
    """The reading of one prompt."""

    def __init__(self, tokens: list[Token], measures: list[Measured], film: FilmDraft) -> None:
        self.tokens, self.measures, self.film = tokens, measures, film
        self.at = 0
        self.clause = Clause()
        self.last_group: list[ActorDraft] = []
        self.mentioned: list[ActorDraft] = []
        #: What stood just before: "", "np", "verb", "and", "comma", "prep", "relative", "pronoun", "aux".
        self.before = ""
        self.look: int | None = None
        #: The next verb is that of a part of the body or of clothes: "its tail wagging".
        self.skip_verb = False
        self.last_relation: RelationKind | None = None

    # Words ------------------------------------------------------------------------------------------------

    def text(self, ahead: int = 0) -> str:
        i = self.at + ahead
        return self.tokens[i].text if 0 <= i < len(self.tokens) else "."

    def texts(self, n: int) -> str:
        return " ".join(token.text for token in self.tokens[self.at : self.at + n])

    def eat(self, n: int = 1) -> None:
        for token in self.tokens[self.at : self.at + n]:
            token.used = True
        self.at += n

    def phrase(self, at: int | None = None) -> tuple[NounPhrase, int] | None:
        return read_noun_phrase(self.tokens, self.at if at is None else at)

    # Clauses ----------------------------------------------------------------------------------------------

    def new_clause(self, keep_subject: bool = False) -> None:
        """End the clause: what was said of several "respectively" is dealt out."""
        clause = self.clause
        group = clause.outer or clause.group
        many = len(group)
        if many > 1 and clause.respectively and len(clause.verbs) == many:
            for actor, (action, words) in zip(group, clause.verbs, strict=True):
                actor.action, actor.action_text, actor.then = action, words, []
        if many > 1 and len(clause.sides) == many:
            for actor, side in zip(group, clause.sides, strict=True):
                actor.start = side
        if group:
            self.last_group = list(group)
        self.clause = Clause()
        if keep_subject:
            self.clause.group = list(self.last_group)
        self.before = ""

    def take_front(self) -> None:
        """Hand what was said before the subject to it."""
        clause = self.clause
        for actor in clause.group:
            for place in clause.front:
                if actor.start is None:
                    actor.start = place
            if clause.front_relation and actor.relation is None and clause.front_relation[1] is not actor:
                actor.relation = clause.front_relation
            if clause.front_action:
                actor.act(*clause.front_action)
            if clause.front_speed is not None:
                actor.speed = clause.front_speed
        if len(clause.front) == 1 and clause.front[0].kind == "side":
            clause.sides = clause.front
        clause.front, clause.front_relation = [], None
        clause.front_action, clause.front_speed = None, None

    def targets(self) -> list[ActorDraft]:
        """Whom a place or a manner is said of: all subjects once there is a verb, before it the last one."""
        clause = self.clause
        if clause.has_verb or clause.last is None or clause.last not in clause.group:
            return clause.group
        return [clause.last]

    # Actors -----------------------------------------------------------------------------------------------

    def actor_of(self, phrase: NounPhrase) -> ActorDraft:
        """The actor that a noun phrase names: one that was named before, or a new one."""
        found = self._named_before(phrase)
        if found is None:
            found = self._new_actor(phrase)
        if phrase.participle:
            known = phrase.participle in KNOWN_VERBS
            found.act(canonical_action(phrase.participle), phrase.participle_text, known)
            found.idle_said |= canonical_action(phrase.participle) == "idle"
        for k in phrase.measures:
            self.measure(k, [found])
        phrase.use()
        self.clause.last = found
        self.mentioned = [*(m for m in self.mentioned if m is not found), found]
        if self.look is not None:
            self.film.shots[self.look].of, self.look = found, None
        return found

    def _named_before(self, phrase: NounPhrase) -> ActorDraft | None:
        definite = phrase.determiner.split(" ")[0] in ("the", "this", "that", "these", "those", "both")
        if not phrase.words or not definite:
            return None
        words = set(phrase.object.split())
        for actor in reversed(self.film.actors):
            if actor.head == phrase.head and words <= set(actor.object.split()):
                return actor
        return None

    def _new_actor(self, phrase: NounPhrase) -> ActorDraft:
        name, head, kind = phrase.object, phrase.head, phrase.kind
        if not phrase.words:
            parent = next((a for a in reversed(self.film.actors) if a.count > 1 and not a.announced), None)
            parent = parent or next((a for a in reversed(self.film.actors)), None)
            name, head = (parent.object, parent.head) if parent else ("character", "character")
            kind = "actor"
            if parent is not None and parent.count > 1:
                parent.announced = True
                if parent.action is None and phrase.count == 1 and not parent.subject:
                    parent.count = 1  # "I love foxes! Show me one": those were not to be seen
        if not 1 <= phrase.count <= MAX_COUNT:
            raise InputError(
                f"prompt: {phrase.count} of {name[:60]!r}: an actor stands for 1 to {MAX_COUNT}; "
                "write for example 'three foxes run'"
            )
        actor = ActorDraft(name or head, head, phrase.count, phrase.plural, kind == "actor")
        actor.factor = phrase.factor
        actor.announced = head in GENERIC and phrase.count > 1 and bool(phrase.words)
        self.film.actors.append(actor)
        return actor

    def other_actor(self) -> ActorDraft | None:
        """The actor that "him", "it" or "them" as an object means: the last one that is no subject here."""
        now = self.clause.group
        return next((actor for actor in reversed(self.mentioned) if actor not in now), None)

    def measure(self, k: int, actors: list[ActorDraft]) -> None:
        """Give actors a height, size, speed or distance."""
        measured = self.measures[k]
        for actor in actors:
            if measured.kind == "metres":
                actor.metres, actor.factor = measured.value, 1.0
            else:
                setattr(actor, measured.kind, measured.value)

    # Looking ahead ----------------------------------------------------------------------------------------

    def verb_follows(self, at: int) -> bool:
        """Whether the noun phrase that ends at `at` gets a verb before its clause ends."""
        i = at
        while i < len(self.tokens):
            text = self.tokens[i].text
            if text in AUXILIARIES or text in NEGATED_AUXILIARIES or text in RELATIVE or text == "not":
                return True
            if text in ENDS or text == COMMA or text in ("while", "as", "when", "then", "but"):
                return False
            if text in ("and", "or"):
                found = read_noun_phrase(self.tokens, i + 1)
                if found is None:
                    return False
                i = found[1]
            elif text in PREPOSITIONS or text in ("next", "close", "front", "away"):
                found = read_noun_phrase(self.tokens, i + 1)
                i = found[1] if found else i + 1
            elif text in VERB_FORMS and not (i > at and self.tokens[i - 1].text == "to"):
                return True
            elif text in MANNER or text.startswith("@") or text.endswith("ly"):
                i += 1
            elif text.endswith(("s", "ing", "ed")) and i == at and text not in NOUN_FORMS:
                return True
            else:
                i += 1
        return False
