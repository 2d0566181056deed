"""A judge behind an OpenAI-compatible endpoint.

Invariant: what the endpoint can do is found out once and recorded; every reply is validated here all the same. A
question ends with scores or as unscored with its raw reply; a failure of the transport is never remembered as a reply,
so that the next run asks again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from steer_eval.errors import SteerEvalError, first_line
from steer_eval.judge.cache import CallLog, call_key
from steer_eval.judge.capabilities import Capabilities, probe_request, usable, weaker
from steer_eval.judge.estimate import Budget, Estimate, estimate, prompt_tokens
from steer_eval.judge.protocol import Prompt, prompt_of, reply_schema
from steer_eval.judge.reply import Answer, Reply, completion_to_json, encodable, read_reply
from steer_eval.judge.rubric import Rubric
from steer_eval.judge.subjects import Ask, Judgement, ProtocolName

if TYPE_CHECKING:
    import openai

KEY_VARIABLE = "STEER_EVAL_JUDGE_KEY"
ATTEMPTS = 3
"""How often a question is asked when the replies can't be used."""
RETRIES = 5
"""How often the SDK sends a request again after 408, 409, 429, 5xx or a lost connection; it honours Retry-After."""
MAX_PROBES = 10
MAX_BODY = 200_000
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class ApiJudge:
    """An endpoint and a model of it.

    Args:
        base_url: The endpoint, for example `https://api.deepseek.com/v1`.
        model: Its name for the model.
        name: What tables call the judge.
        log: Where calls are kept and found again.
        budget: What may be spent.
        concurrency: Calls that are under way at once.
        timeout: Seconds that a reply may take.
        key: The key; from the environment by default, and not needed for a server on this machine.
        retries: As `RETRIES`.
    """

    checked: bool = True

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        name: str,
        log: CallLog,
        budget: Budget | None = None,
        concurrency: int = 4,
        timeout: float = 120.0,
        key: str | None = None,
        retries: int = RETRIES,
    ) -> None:
        address = urlsplit(base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise SteerEvalError(f"{base_url} is no URL of an endpoint", "give one such as https://host/v1")
        if address.username or address.password or address.query:
            raise SteerEvalError("the URL of the endpoint holds a secret", f"put the key into {KEY_VARIABLE}")
        self.base_url = base_url.rstrip("/")
        self.model = model
        self.name = name
        self.log = log
        self.budget = budget or Budget()
        self.concurrency = concurrency
        self.timeout = timeout
        self.retries = retries
        self._key = key if key is not None else os.environ.get(KEY_VARIABLE) or None
        self._needs_key = address.hostname not in _LOOPBACK
        self.capabilities = self._recorded()
        self._seen: dict[str, set[str]] = {"served_model": set(), "fingerprint": set()}
        self.retried = 0
        self._client: openai.AsyncOpenAI | None = None
        self._locks: dict[str, asyncio.Lock] = {}

    def identity(self) -> dict[str, Any]:
        """Endpoint, model, and what was found out about them."""
        return {
            "kind": "api",
            "base_url": self.base_url,
            "model": self.model,
            **{key: sorted(values) for key, values in self._seen.items()},
            "capabilities": self.capabilities.to_json() if self.capabilities else None,
        }

    def estimate(self, asks: Sequence[Ask], rubric: Rubric, protocol: ProtocolName) -> Estimate:
        """What answering questions takes beyond what is in the log."""
        capabilities = self.capabilities or Capabilities()
        missing: dict[str, Prompt] = {}
        for ask in asks:
            prompt = prompt_of(ask, rubric, protocol)
            key = call_key(self._request(capabilities, prompt, rubric), repeat=_tag(ask), attempt=0)
            if self.log.peek(key) is None:
                # Cells with the same texts are one call.
                missing[key] = prompt
        return estimate(len(asks), missing.values(), max_tokens=capabilities.max_tokens, price=self.budget.price)

    def judge(
        self, asks: Sequence[Ask], rubric: Rubric, protocol: ProtocolName, advance: Callable[[int], None]
    ) -> list[Judgement]:
        """Answer questions; see `Judge`.

        Raises:
            SteerEvalError: The endpoint can't be used at all: no key, no such model, no access.
        """
        return asyncio.run(self._judge(asks, rubric, protocol, advance))

    async def _judge(
        self, asks: Sequence[Ask], rubric: Rubric, protocol: ProtocolName, advance: Callable[[int], None]
    ) -> list[Judgement]:
        judgements: dict[int, Judgement] = {}
        waiting = iter(enumerate(asks))
        self._locks = {}
        try:
            if self.capabilities is None and not self.log.is_replay:
                self.capabilities = await self._find_out()
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.concurrency, len(asks))):
                    group.create_task(self._work(waiting, judgements, rubric, protocol, advance))
        except ExceptionGroup as failures:
            # Workers that fail do so for one reason, which concerns them all.
            raise failures.exceptions[0] from None
        finally:
            await self._disconnect()
        return [judgements[index] for index in range(len(asks))]

    async def _work(
        self,
        waiting: Iterator[tuple[int, Ask]],
        judgements: dict[int, Judgement],
        rubric: Rubric,
        protocol: ProtocolName,
        advance: Callable[[int], None],
    ) -> None:
        for index, ask in waiting:
            judgements[index] = await self._answer(ask, rubric, protocol)
            advance(1)

    async def _answer(self, ask: Ask, rubric: Rubric, protocol: ProtocolName) -> Judgement:
        prompt = prompt_of(ask, rubric, protocol)
        request = self._request(self.capabilities or Capabilities(), prompt, rubric)
        keys: list[str] = []
        answer, raw = Answer(reason="not-in-replay"), None
        for attempt in range(ATTEMPTS):
            key = call_key(request, repeat=_tag(ask), attempt=attempt)
            # Cells with the same texts ask the same; the second waits for the first one's reply.
            async with self._locks.setdefault(key, asyncio.Lock()):
                record = self.log.find(key)
                if record is None and self.log.is_replay:
                    break
                if record is None:
                    record, failure = await self._call(key, request, prompt_tokens(prompt))
                    if failure is not None:
                        raw = failure.body if failure.body is not None else raw
                        calls = tuple(keys)
                        return Judgement(ask, {}, failure.reason, failure.detail, raw, attempts=len(keys), calls=calls)
            keys.append(key)
            reply = record["reply"]
            self._note(reply)
            raw = reply["content"] if reply["content"] is not None else reply.get("refusal")
            answer = read_reply(_reply(reply), prompt, ask, rubric)
            if not answer.reason:
                break
        return Judgement(ask, answer.scores, answer.reason, answer.detail, raw, answer.notes, len(keys), tuple(keys))

    async def _call(self, key: str, request: dict[str, Any], tokens_in: int) -> tuple[dict[str, Any], _Failure | None]:
        """Make a call and keep it, or say why there is no reply."""
        self._connected()
        import openai

        limit = request["body"].get("max_tokens") or request["body"]["max_completion_tokens"]
        reserved = self.budget.reserve(tokens_in, limit)
        if reserved is None:
            return {}, _Failure("not-asked")
        used = (0, 0)
        try:
            reply = await self._send(request)
            used = (reply["usage"].get("prompt_tokens") or tokens_in, reply["usage"].get("completion_tokens") or limit)
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise self._refused(error) from error
        except (openai.OpenAIError, NoCompletionError) as error:
            detail, sent = _described(error), _body(error)
            self.log.add(f"{key}-failed", {"kind": "failure", "request": request, "detail": detail, "body": sent})
            return {}, _Failure("transport", detail, sent)
        finally:
            self.budget.settle(reserved, *used)
        record = {"kind": "call", "request": request, "reply": reply}
        self.log.add(key, record)
        return record, None

    async def _send(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request as it is kept.

        Raises:
            openai.OpenAIError: It failed, retries included.
            NoCompletionError: What came back is no chat completion.
        """
        start = time.monotonic()
        body = dict(request["body"])
        extra = body.pop("extra_body", None)
        answer = await self._connected().chat.completions.with_raw_response.create(**body, extra_body=extra)
        self.retried += answer.retries_taken
        text = encodable(answer.http_response.text[:MAX_BODY])
        try:
            reply = completion_to_json(answer.parse())
        # The SDK builds its objects from whatever JSON comes, and finds out when they are used.
        except (ValueError, AttributeError, TypeError, LookupError) as error:
            raise NoCompletionError(text) from error
        seconds = round(time.monotonic() - start, 3)
        return {**reply, "retries": answer.retries_taken, "seconds": seconds, "body": text}

    async def _find_out(self) -> Capabilities:
        """Find out what the endpoint can do, from the most to the least."""
        capabilities = Capabilities()
        accepted: Capabilities | None = None
        problem = "it gave no usable reply"
        for _ in range(MAX_PROBES):
            request = {"base_url": self.base_url, "body": probe_request(capabilities, self.model)}
            try:
                key = call_key(request, repeat="probe", attempt=0)
                record = self.log.find(key)
                if record is None:
                    record, failure = await self._call(key, request, 200)
                    if failure is not None and failure.reason == "not-asked":
                        raise SteerEvalError(
                            "the limit leaves no call to find out what the endpoint can do", "raise it"
                        )
                    if failure is not None:
                        raise ProbeRefusedError(failure.detail)
            except ProbeRefusedError as refusal:
                problem = str(refusal)
                following = weaker(capabilities, problem) if _is_refusal(problem) else None
            else:
                reply = record["reply"]
                self._note(reply)
                if usable(reply):
                    accepted = capabilities
                    break
                accepted = accepted or capabilities
                following = weaker(capabilities, "", truncated=reply["finish"] == "length")
            if following is None:
                break
            capabilities = following
        if accepted is None:
            raise SteerEvalError(
                f"{self.base_url} does not answer as {self.model}: {problem}",
                "check --base-url, --model and the server",
            )
        found = {"kind": "endpoint", "base_url": self.base_url, "model": self.model, **accepted.to_json()}
        self.log.add(_endpoint_key(self.base_url, self.model), found)
        return accepted

    def _recorded(self) -> Capabilities | None:
        for record in self.log.endpoints():
            if (record["base_url"], record["model"]) == (self.base_url, self.model):
                return Capabilities.from_json(record)
        return None

    def _request(self, capabilities: Capabilities, prompt: Prompt, rubric: Rubric) -> dict[str, Any]:
        body = capabilities.body(self.model, prompt.system, prompt.user, reply_schema(prompt, rubric))
        return {"base_url": self.base_url, "body": body}

    def _connected(self) -> openai.AsyncOpenAI:
        """The SDK's client, which a run that finds all replies in the log never needs."""
        if self._client is not None:
            return self._client
        try:
            import openai
        except ImportError as error:
            raise SteerEvalError("judging by an endpoint needs openai", "pip install 'steer-eval[judge]'") from error
        if self._key is None and self._needs_key:
            raise SteerEvalError(f"{self.base_url} needs a key", f"put it into the variable {KEY_VARIABLE}")
        self._client = openai.AsyncOpenAI(
            base_url=self.base_url,
            api_key=self._key or "none",
            max_retries=self.retries,
            timeout=self.timeout,
            default_headers={"User-Agent": f"steer-eval/{metadata.version('steer-eval')}"},
        )
        return self._client

    async def _disconnect(self) -> None:
        # A client belongs to the event loop that it was made in.
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _note(self, reply: dict[str, Any]) -> None:
        for key, values in self._seen.items():
            if reply.get(key):
                values.add(str(reply[key]))

    def _refused(self, error: openai.APIStatusError) -> SteerEvalError:
        fix = {
            401: f"check the key in {KEY_VARIABLE}",
            403: f"check what the key in {KEY_VARIABLE} may do",
            404: "check --base-url and --model: models are retired, and a retired judge can only be replayed",
        }[error.status_code]
        return SteerEvalError(f"{self.base_url} refuses {self.model}: {_described(error)}", fix)


@dataclass(frozen=True)
class _Failure:
    """Why there is no reply, and what was sent instead."""

    reason: str
    detail: str = ""
    body: str | None = None


class NoCompletionError(Exception):
    """What an endpoint sent is no chat completion; the message is what it sent."""


class ProbeRefusedError(Exception):
    """The endpoint refused a probe; the message is its own."""


def _tag(ask: Ask) -> str:
    return f"{ask.role} {ask.repeat}"


def _endpoint_key(base_url: str, model: str) -> str:
    return call_key({"base_url": base_url, "model": model}, repeat="endpoint", attempt=0)


def _reply(record: dict[str, Any]) -> Reply:
    return Reply(record["content"], record["finish"], record.get("refusal"))


def _is_refusal(detail: str) -> bool:
    """Whether an endpoint said that the request itself is wrong."""
    return detail.startswith(("HTTP 400", "HTTP 422", "HTTP 501"))


def _described(error: Exception) -> str:
    if isinstance(error, NoCompletionError):
        return "the endpoint sent no chat completion"
    status = getattr(error, "status_code", None)
    return f"HTTP {status}: {first_line(error)[:300]}" if status else first_line(error)[:300]


def _body(error: Exception) -> str | None:
    text = (
        str(error) if isinstance(error, NoCompletionError) else getattr(getattr(error, "response", None), "text", None)
    )
    return encodable(text[:MAX_BODY]) if isinstance(text, str) else None
