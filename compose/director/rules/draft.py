"""What the grammar has understood so far: actors while their sentence is read, and the film around them."""

from __future__ import annotations

from dataclasses import dataclass, field

from orbit4d.compose.spec import PathShape, RelationKind


@dataclass(eq=False)
class ActorDraft:
    """An actor as it is read; places and relations name other drafts, which get their ids at the end."""

    object: str
    head: str
    count: int = 1
    plural: bool = False
    known: bool = False
    action: str | None = None
    action_text: str = ""
    #: False where an action was only drawn from another actor's.
    weak_action: str | None = None
    idle_said: bool = False
    then: list[str] = field(default_factory=list)
    factor: float = 1.0
    metres: float | None = None
    start: PlaceDraft | None = None
    end: PlaceDraft | None = None
    shape: PathShape = "straight"
    around: PlaceDraft | None = None
    path_words: list[str] = field(default_factory=list)
    speed: float = 1.0
    mps: float | None = None
    distance_m: float | None = None
    relation: tuple[RelationKind, ActorDraft] | None = None
    announced: bool = False
    #: Whether it stands as the subject of its clause: an unknown noun is an actor only with a known verb.
    subject: bool = False
    verb_known: bool = False

    def act(self, action: str, words: str, known: bool = True) -> None:
        """Do `action`: its first one, or a further one."""
        self.verb_known |= known
        if self.action is None:
            self.action, self.action_text = action, words
        elif action != (self.then or [self.action])[-1]:
            self.then.append(action)


@dataclass
class PlaceDraft:
    """A place of kind side, landmark or actor; see `orbit4d.compose.Place`."""

    kind: str
    value: str | ActorDraft
    relation: str = "at"


@dataclass
class ShotDraft:
    """One shot as it is read; `looks` where words say at whom, and `of` once that actor is known."""

    move: str | None = None
    shot: str | None = None
    angle: str | None = None
    looks: bool = False
    of: ActorDraft | None = None


@dataclass
class FilmDraft:
    """Everything read from a prompt."""

    actors: list[ActorDraft] = field(default_factory=list)
    scene: str | None = None
    scene_known: bool = False
    weather: list[str] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)
    shots: list[ShotDraft] = field(default_factory=list)
    seconds: float | None = None
    #: "in slow motion": whoever has no pace of its own is slow.
    slow: bool = False
    #: Whether any noun or verb of the tables was met.
    known_words: int = 0
