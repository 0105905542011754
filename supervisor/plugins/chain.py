"""All plugins in their order: each hook's results, checked, and what a failure means."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from gpufc.config import OnError
from gpufc.errors import (
    AuthenticationFailed,
    InternalError,
    InvalidRequest,
    PermissionDenied,
    RequestError,
)
from gpufc.protocol import Prompt, TextPrompt
from supervisor.dispatch.dispatcher import Dispatcher
from supervisor.dispatch.request import GenerationRequest, Principal, Scope
from supervisor.plugins.process import PluginFailed, PluginProcess, PluginRefused
from supervisor.plugins.requests import Nonsense, changed, shown
from supervisor.plugins.structs import Answer, Delta, Event, Identity, Info, Request

logger = logging.getLogger(__name__)

T = TypeVar("T")

MOST_KEPT = 64 * 1024
"""Characters that a plugin may hold back."""

MOST_GROWTH, SPARE_CHARS = 8, 16 * 1024
"""A text that a plugin makes longer than this factor, and these characters, is a flood."""

BY_PLUGIN = "#plugin"
"""Ends the name of a principal that a plugin names, as a key's digest ends that of a key's."""

UNCHANGED = object()
"""No result, because the plugin returned None, or failed and the request goes on."""


class Chain:
    """The plugins. Holds nothing of a request."""

    def __init__(self, plugins: Sequence[PluginProcess]) -> None:
        self.plugins = tuple(plugins)

    def of(self, hook: str) -> list[PluginProcess]:
        """The plugins with a hook, in their order."""
        return [one for one in self.plugins if hook in one.hooks]

    async def authenticate(self, headers: Mapping[str, str], address: str) -> Principal | None:
        """The principal that the first plugin names. Raises `AuthenticationFailed`."""
        for plugin in self.of("authenticate"):
            try:
                found = await _ask(
                    plugin,
                    "authenticate",
                    lambda value: msgspec.convert(value, Identity),
                    headers=dict(headers),
                    address=address,
                )
            except PermissionDenied as err:
                raise AuthenticationFailed(err.message) from None
            if isinstance(found, Identity):
                try:
                    scopes = frozenset(map(Scope, found.scopes))
                except ValueError:
                    raise failed(plugin) from None
                # a client may have chosen the name: it opens nothing of a key, a group or others
                name, scope = f"{found.name}{BY_PLUGIN}", f"plugin {found.name}"
                return Principal(name, scopes, cache_scope=scope, models=found.models)
        return None

    async def before_admission(self, request: GenerationRequest, who: str) -> GenerationRequest:
        """The request as the plugins want it. Raises `RequestError`."""
        for plugin in self.of("before_admission"):
            now = request

            def check(value: Any, now: GenerationRequest = now) -> GenerationRequest:
                return changed(now, msgspec.convert(value, Request))

            found = await _ask(plugin, "before_admission", check, request=shown(now, who))
            request = found if isinstance(found, GenerationRequest) else now
        return request

    async def on_prompt(
        self, dispatcher: Dispatcher, request: GenerationRequest, info: Info
    ) -> GenerationRequest:
        """The request with the prompts that the plugins want. A worker renders them."""
        plugins = self.of("on_prompt")
        if not plugins:
            return request
        prompts: list[Prompt] = []
        for prompt in request.prompts:
            tokens = await dispatcher.asking.prepare(request.model, prompt, request.max_tokens or 0)
            pieces = await dispatcher.asking.detokenize(request.model, [tokens])
            before = text = pieces[0].decode(errors="replace")
            for plugin in plugins:
                found = await _ask(plugin, "on_prompt", _text, info=info, text=text)
                text = found if isinstance(found, str) else text
            same = text == before
            prompts.append(prompt if same else TextPrompt(text, add_special=False))
        return msgspec.structs.replace(request, prompts=tuple(prompts))

    def on_finish(self, info: Info, answer: Answer) -> None:
        """Tell of the end of a choice."""
        for plugin in self.of("on_finish"):
            plugin.notify("on_finish", info=info, answer=answer)

    def on_event(self, event: Event) -> None:
        """Tell of a worker."""
        for plugin in self.of("on_event"):
            plugin.notify("on_event", event=event)

    def require_possible(self, request: GenerationRequest) -> None:
        """Raises `InvalidRequest` for what filters of text cannot be applied to."""
        if request.logprobs is not None and (found := self.of("on_delta")):
            raise InvalidRequest(
                f"log probabilities would show text that the plugin {found[0].name} filters",
                param="logprobs",
            )


class Filter:
    """The text of one choice on its way through the plugins. Invariant: what a plugin holds back is
    kept here, so that a plugin may die and lose nothing."""

    def __init__(self, chain: Chain, info: Info, index: int) -> None:
        self._plugins = chain.of("on_delta")
        self._held = [""] * len(self._plugins)
        self._info = info
        self._index = index

    async def feed(self, text: str, *, final: bool) -> str:
        """The text for the client. Raises `RequestError`."""
        for n, plugin in enumerate(self._plugins):
            given = self._held[n] + text
            if not given and not final:
                return ""

            def check(value: Any, given: str = given) -> Delta:
                return _delta(value, given, final=final)

            found = await _ask(
                plugin,
                *("on_delta", check),
                info=self._info,
                index=self._index,
                text=given,
                final=final,
            )
            delta = found if isinstance(found, Delta) else Delta(given)
            text, self._held[n] = delta.text, given[len(given) - delta.keep :]
        return text


def failed(plugin: PluginProcess) -> RequestError:
    """The error of a request whose plugin has failed."""
    return InternalError(f"The plugin {plugin.name} failed")


async def _ask(
    plugin: PluginProcess, hook: str, check: Callable[[Any], T], **arguments: Any
) -> T | object:
    """A checked result, or `UNCHANGED`. Raises `PermissionDenied`, or the failure's error."""
    try:
        value = await plugin.call(hook, **arguments)
        return UNCHANGED if value is None else check(value)
    except PluginRefused as refusal:
        raise PermissionDenied(str(refusal) or "Refused by a policy of this service") from None
    except PluginFailed as err:
        reason: Exception = err
    except (Nonsense, msgspec.ValidationError) as err:
        plugin.counts.failures += 1
        reason = err
    logger.warning("plugin_failed plugin=%s hook=%s error=%s", plugin.name, hook, reason)
    if plugin.config.on_error is OnError.FAIL:
        raise failed(plugin)
    return UNCHANGED


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise Nonsense(f"it returned a {type(value).__name__} for a text")
    return value


def _delta(value: Any, given: str, *, final: bool) -> Delta:
    delta = Delta(value) if isinstance(value, str) else msgspec.convert(value, Delta)
    most = 0 if final else min(len(given), MOST_KEPT)
    if not 0 <= delta.keep <= most:
        raise Nonsense(f"it holds {delta.keep} characters back, of at most {most}")
    if len(delta.text) > MOST_GROWTH * len(given) + SPARE_CHARS:
        raise Nonsense(f"it made {len(delta.text)} characters of {len(given)}")
    return delta
