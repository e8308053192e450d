"""A director behind any OpenAI-compatible chat endpoint, and the same director replayed from a recording."""

from __future__ import annotations

import base64
import io
import time
from dataclasses import dataclass, field
from typing import Any

from orbit4d.compose.director.recording import Recording, image_stand_in, key_of
from orbit4d.compose.director.replies import InvalidReply, read_reply
from orbit4d.compose.director.steps import OWN_FIELDS, SYSTEM, Step, spec_step
from orbit4d.compose.director.transport import Refused, Transport, check_url
from orbit4d.compose.schema import Schema
from orbit4d.compose.spec import MAX_PROMPT, Spec
from orbit4d.compose.strict_json import canonical_json, printable
from orbit4d.datasets.core.errors import InputError, WorkError

#: Forms of `response_format`, from the strictest to none; an endpoint that refuses one gets the next.
_FORMS = ("json_schema", "json_object", "none")


@dataclass(frozen=True)
class ChatSettings:
    """How an endpoint is asked. The key comes from the environment and from nowhere else."""

    url: str = ""
    """Base URL, as https://host/v1."""
    model: str = ""
    """Name of the model, as the endpoint knows it."""
    timeout: float = 60.0
    """Seconds for a whole request."""
    repairs: int = 2
    """How often an invalid reply goes back with its first fault."""
    seed: int = 0
    """Sent along; endpoints need not honour it."""


@dataclass
class ChatDirector:
    """Asks steps and records what was answered; `notes` are lines for the end of a run."""

    settings: ChatSettings
    recording: Recording = field(default_factory=Recording)
    transport: Transport | None = None
    notes: list[str] = field(default_factory=list)
    name: str = "chat"
    _form: int = 0
    _sees: bool = True
    _held: frozenset[str] = frozenset()
    _posted: int = 0

    def __post_init__(self) -> None:
        self._held = frozenset(self.recording.replies)
        if self.name == "recorded":
            return
        if not self.settings.url:
            raise InputError("--director chat: needs --chat-url, as https://host/v1, and --chat-model")
        address = check_url(self.settings.url)
        if not self.settings.model:
            raise InputError("--director chat: needs --chat-model, the name that the endpoint knows")
        if not 0 < self.settings.timeout <= 3600:
            raise InputError(f"--chat-timeout {self.settings.timeout:g}: is outside (0, 3600] seconds")
        if not 0 <= self.settings.repairs <= 10:
            raise InputError(f"--chat-repairs {self.settings.repairs}: is outside [0, 10]")
        if self.transport is None:
            self.transport = Transport(address, self.settings.timeout)

    def spec(self, prompt: str) -> Spec:
        """The spec of a prompt.

        Raises:
            InputError: the prompt is empty or too long, or (recorded) there is no reply for it.
            WorkError: the endpoint cannot be used, or its replies stay invalid after the repairs.
        """
        if not prompt.strip():
            raise InputError("prompt: is empty; write for example 'a fox walks through a forest'")
        if len(prompt) > MAX_PROMPT:
            raise InputError(f"prompt: {len(prompt)} characters, more than {MAX_PROMPT}; shorten it")
        value = self.ask(spec_step(prompt))
        return Spec.from_json({**value, "version": 1, "prompt": prompt, "director": self.name}, "director")

    def ask(self, step: Step, image: Any = None, landmarks: str = "") -> Any:
        """The checked value of a step's reply.

        `image` [H, W, 3] uint8 goes along as a PNG; an endpoint that takes no images gets `landmarks`, the
        same in words. Recorded replies that were invalid to the end are forgotten, and asked for again.
        """
        held = {key for key in self._held if self.recording.replies[key]["step"] == step.name}
        posted = self._posted
        try:
            return self._repaired(step, image, landmarks)
        except WorkError:
            if self.name == "recorded" or self._posted > posted or not held:
                raise
        self._held -= held
        self.recording.forget(held)
        self.notes.append(f"step {step.name}: the replies of an earlier run were invalid, asked again")
        return self._repaired(step, image, landmarks)

    def _repaired(self, step: Step, image: Any, landmarks: str) -> Any:
        """The checked value of a step's reply, which goes back with its first fault while repairs last."""
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": f"{SYSTEM}\n{canonical_json(step.schema)}"},
            {"role": "user", "content": step.text},
        ]
        fault = ""
        for attempt in range(self.settings.repairs + 1):
            text = self._reply(step, messages, image, landmarks)
            try:
                return read_reply(text, self._taken(step), lambda value: self._checked(step, value))
            except InvalidReply as error:
                fault = printable(error, 160)
                messages = [
                    *messages[:2],
                    {"role": "assistant", "content": text[:8000]},
                    {
                        "role": "user",
                        "content": f"Repair {attempt + 1}: that is not valid: {fault}. Answer again.",
                    },
                ]
        raise WorkError(
            f"director step {step.name}: the reply is still invalid after {self.settings.repairs} repairs: "
            f"{fault}"
        )

    def _taken(self, step: Step) -> Schema:
        """The schema a reply is read by; a spec may also bring the fields that we fill in."""
        if step.name != "spec":
            return step.schema
        free: dict[str, Schema] = {name: {} for name in OWN_FIELDS}
        return {**step.schema, "properties": {**free, **step.schema["properties"]}}

    def _checked(self, step: Step, value: Any) -> str | None:
        if step.name == "spec":
            for name in OWN_FIELDS:
                value.pop(name, None)
        return step.check(value) if step.check is not None else None

    def _reply(self, step: Step, messages: list[dict[str, Any]], image: Any, landmarks: str) -> str:
        """The text that answers these messages, from the recording where this director is a recorded one."""
        request: dict[str, Any] = {
            "messages": messages,
            "model": self.settings.model or self.recording.model,
            "response_format": _response_format("json_schema", step),
            "seed": self.settings.seed,
            "temperature": 0,
        }
        if image is not None:
            request["image"] = image_stand_in(image)
            request["landmarks"] = landmarks
        if self.name == "recorded":
            return self.recording.reply(step.name, request)
        if key_of(request) in self._held:  # a stopped run resumes: nothing is asked twice
            return self.recording.reply(step.name, request)
        self._posted += 1
        began = time.perf_counter()
        answer = self._post(step, messages, image, landmarks)
        text = self._text_of(step, answer)
        self.recording.add(step.name, request, text, self.settings.model, time.perf_counter() - began)
        return text

    def _post(self, step: Step, messages: list[dict[str, Any]], image: Any, landmarks: str) -> Any:
        assert self.transport is not None
        while True:
            body: dict[str, Any] = {
                "model": self.settings.model,
                "messages": _with_image(messages, image, landmarks, self._sees),
                "temperature": 0,
                "seed": self.settings.seed,
            }
            if _FORMS[self._form] != "none":
                body["response_format"] = _response_format(_FORMS[self._form], step)
            try:
                return self.transport.post(body)
            except Refused as refused:
                said = refused.text.lower()
                if refused.status == 400 and self._form + 1 < len(_FORMS) and "response_format" in said:
                    self._form += 1
                elif image is not None and self._sees and ("image" in said or "vision" in said):
                    self._sees = False
                    self.notes.append("the endpoint takes no images: steps were asked in words")
                else:
                    raise WorkError(
                        f"chat endpoint {self.transport.host}: HTTP {refused.status}: "
                        f"{self.transport.clean(refused.text, 120)}"
                    ) from None

    def _text_of(self, step: Step, answer: Any) -> str:
        assert self.transport is not None
        try:
            message = answer["choices"][0]["message"]
            refusal, text = message.get("refusal"), message.get("content")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise WorkError(
                f"chat endpoint {self.transport.host}: its answer has no choices[0].message; "
                "give an OpenAI-compatible --chat-url"
            ) from None
        if isinstance(text, list):
            parts = [part.get("text", "") for part in text if isinstance(part, dict)]
            text = "".join(part for part in parts if isinstance(part, str))
        if refusal or not isinstance(text, str) or not text:
            said = self.transport.clean(refusal or "it sent no text", 120)
            raise WorkError(
                f"director step {step.name}: the model refused: {said}; word the prompt otherwise"
            )
        return text.replace(self.transport.key, "***") if self.transport.key else text


def recorded_director(path: Any, seed: int = 0) -> ChatDirector:
    """A director that answers from a replies.jsonl and from nothing else; it opens no socket.

    `seed` is that of the run that was recorded: it was sent along.
    """
    return ChatDirector(ChatSettings(repairs=10, seed=seed), Recording.load(path), name="recorded")


def _response_format(form: str, step: Step) -> dict[str, Any]:
    if form == "json_object":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": step.name, "strict": True, "schema": step.schema}}


def _with_image(
    messages: list[dict[str, Any]], image: Any, landmarks: str, sees: bool
) -> list[dict[str, Any]]:
    if image is None:
        return messages
    first = messages[1]
    if not sees:
        there = printable(landmarks, 4000) or "nothing named"
        words = f"{first['content']}\n\nWhat stands in the picture: {there}"
        return [messages[0], {"role": "user", "content": words}, *messages[2:]]
    parts = [
        {"type": "text", "text": first["content"]},
        {"type": "image_url", "image_url": {"url": _data_url(image)}},
    ]
    return [messages[0], {"role": "user", "content": parts}, *messages[2:]]


def _data_url(image: Any) -> str:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image[..., :3].astype("uint8")).save(out, format="PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode("ascii")
