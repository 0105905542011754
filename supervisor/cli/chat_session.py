"""One conversation at a terminal: its turns, its slash commands, its prompt."""

import contextlib
import textwrap
from collections.abc import Callable
from typing import TextIO

import click

from supervisor import program
from supervisor.cli.answer_view import AnswerView
from supervisor.cli.chat_client import ChatClient, ChatFailed, Turn
from supervisor.cli.terminal import columns, duration, input_mode
from supervisor.control.client import NotRunning

PROMPT = "> "
BANNER_COLUMNS = 80

HELP = """\
/system TEXT  set the system prompt and begin anew; without TEXT, show it
/reset        forget the conversation
/stats        figures of the last answer
/help         this list
/quit         end (so does Ctrl-D)
Ctrl-C ends an answer; its beginning stays in the conversation."""


class ChatSession:
    """Owns the turns. A turn without an answer is removed, so that it can be asked again."""

    def __init__(
        self,
        client: ChatClient,
        out: TextIO,
        *,
        system: str | None = None,
        command: Callable[[str], str] = program.command,
    ) -> None:
        """`command` spells a command of the front."""
        self._client = client
        self._command_line = command
        self._out = out
        self._system = system
        self._turns: list[Turn] = []

    def ask(self, prompt: str) -> None:
        """Send a turn and print its answer as it arrives. Raises `ChatFailed` or `NotRunning`.

        Ctrl-C during the answer cancels the request and is raised again.
        """
        self._turns.append({"role": "user", "content": prompt})
        said: list[str] = []
        view = AnswerView(self._out)
        try:
            # typed characters would appear in the middle of the answer
            with input_mode(echo=False, lines=True):
                self._receive(said, view)
        finally:
            view.end()
            if said:
                self._turns.append({"role": "assistant", "content": "".join(said)})
            else:
                self._turns.pop()
            if said and not said[-1].endswith("\n"):
                self._out.write("\n")
            self._out.flush()

    def _receive(self, said: list[str], view: AnswerView) -> None:
        with contextlib.closing(self._client.answer(self._messages())) as pieces:
            for piece in pieces:
                if piece:
                    said.append(piece)
                    view.text(piece)
                else:
                    view.alive()

    def converse(self, model: str) -> None:
        """Alternate prompts and answers until the end of input or of the service."""
        _enable_editing()
        banner = f"{model} at {self._client.base_url}. /help names the commands, Ctrl-D ends."
        self._say(_wrapped(banner))
        while (line := self._read()) is not None:
            if line.startswith("/"):
                if not self._command(line):
                    return
            elif line:
                self._ask_on(line)

    def _ask_on(self, prompt: str) -> None:
        try:
            self.ask(prompt)
        except KeyboardInterrupt:
            self._say("(broken off)")
        except ChatFailed as err:
            self._say(f"error: {err}", fg="red")
        except NotRunning as err:
            self._say(f"error: {err}", fg="red")
            self._say(f"Ask again when `{self._command_line('status')}` says that it is ready.")

    def _read(self) -> str | None:
        """Read one line; None at the end of input. Ctrl-C clears the line, as in a shell."""
        while True:
            try:
                return input(PROMPT).strip()
            except KeyboardInterrupt:
                self._out.write("\n")
            except EOFError:
                self._out.write("\n")
                return None

    def _command(self, line: str) -> bool:
        """Run a slash command. False ends the conversation."""
        name, _, rest = line.partition(" ")
        match name:
            case "/quit" | "/exit":
                return False
            case "/system":
                self._set_system(rest.strip())
            case "/reset":
                self._turns.clear()
                self._say("(forgotten)")
            case "/stats":
                self._say(self.stats())
            case "/help":
                self._say(HELP)
            case _:
                self._say(f"there is no {name}; /help names the commands")
        return True

    def _set_system(self, text: str) -> None:
        if text:
            self._system = text
            self._turns.clear()
            self._say("(system prompt set, conversation begun anew)")
        else:
            self._say(self._system or "(no system prompt)")

    def stats(self) -> str:
        """The last answer's figures as one line."""
        figures = self._client.figures
        if figures.first_token_s is None:
            return "broken off before the first token" if figures.broken_off else "no answer yet"
        end = ", broken off" if figures.broken_off else ""
        prompt = f"{figures.prompt_tokens} tokens of prompt; " if figures.prompt_tokens else ""
        return (
            f"{figures.completion_tokens} tokens in {duration(figures.total_s)}{end}, first after "
            f"{duration(figures.first_token_s)}, then {figures.tokens_per_second:.1f} tokens/s; "
            f"{prompt}{len(self._turns)} turns kept"
        )

    def _messages(self) -> list[Turn]:
        head = [{"role": "system", "content": self._system}] if self._system else []
        return head + self._turns

    def _say(self, text: str, fg: str | None = None) -> None:
        click.secho(text, fg=fg, dim=fg is None, file=self._out)


def _wrapped(text: str) -> str:
    width = min(columns(), BANNER_COLUMNS)
    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def _enable_editing() -> None:
    """Give `input` line editing and history, if Python was built with readline."""
    with contextlib.suppress(ImportError):
        import readline

        readline.parse_and_bind("set enable-bracketed-paste on")
