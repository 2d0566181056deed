"""Against an endpoint that misbehaves: every cell ends scored or unscored, none is lost, none is made up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from judge.cases import RUBRIC, judge_on, judged_on, subjects
from judge.stub_server import Answer, Body, good, is_probe, scores, serving

from steer_eval.errors import SteerEvalError
from steer_eval.judge.api import ATTEMPTS, ApiJudge
from steer_eval.judge.cache import FILE, opened_log
from steer_eval.judge.capabilities import LONG
from steer_eval.judge.estimate import Budget, Price
from steer_eval.judge.judging import planned
from steer_eval.judge.score_files import write_judged
from steer_eval.judge.subjects import REASONS, ProtocolName


def except_probes(behave: Callable[[Body, int], Answer]) -> Callable[[Body, int], Answer]:
    return lambda body, count: good(body) if is_probe(body) else behave(body, count)


@pytest.mark.parametrize("protocol", ["paper-cell", "sample"])
def test_good_replies_become_scores(tmp_path: Path, protocol: ProtocolName) -> None:
    with serving(good) as stub:
        judged = judged_on(stub, tmp_path, protocol=protocol)

    assert [score.cell for score in judged.scores] == [subject.cell for subject in subjects()]
    assert all(score.scores == dict.fromkeys(RUBRIC.names, 2.5) for score in judged.scores)
    assert judged.identity["served_model"] == ["stub-2026-11"]
    assert judged.identity["fingerprint"] == ["fp_stub"]
    assert set(stub.keys) == {"Bearer secret-key"}
    assert "secret-key" not in (tmp_path / FILE).read_text()


@pytest.mark.parametrize("protocol", ["paper-cell", "sample"])
def test_no_request_tells_what_the_cells_are(tmp_path: Path, protocol: ProtocolName) -> None:
    with serving(good) as stub:
        judged_on(stub, tmp_path, protocol=protocol)

    sent = json.dumps(stub.judged)
    assert all(word not in sent for word in ("steer", "layer", "coef", "random", "collapse", "duplicate"))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(None), "empty"),
        (Answer(""), "empty"),
        (Answer("\n\n\n", finish="length"), "truncated"),
        (Answer('{"mature_anger": 4, "juv', finish="length"), "truncated"),
        (Answer('{"mature_anger": 4, "juvenile_rage": 1, "coherence": 1}', finish="length"), "truncated"),
        (Answer('Rating: {"mature_anger": 5, "juvenile_rage": 5, "coherence": 6} overall.'), "off-scale"),
        (Answer("I'm sorry, I can't rate that."), "refusal"),
        (Answer(None, refusal="I won't."), "refusal"),
        (Answer(None, finish="content_filter"), "filtered"),
        (Answer("The texts are calm: four."), "no-json"),
        (Answer('{"mature_anger": 20180222000000, "juvenile_rage": 1, "coherence": 1}'), "off-scale"),
        (Answer('{"mature_anger": 3.7, "juvenile_rage": 1, "coherence": 1}'), "off-scale"),
        (Answer('{"mature_anger": 4, "coherence": 1}'), "incomplete"),
    ],
)
def test_a_reply_that_is_no_answer_is_unscored_with_the_reply_kept(tmp_path: Path, answer: Answer, reason: str) -> None:
    with serving(except_probes(lambda _body, _count: answer)) as stub:
        judged = judged_on(stub, tmp_path, subjects(2), repeats=1)

    assert [score.reasons for score in judged.scores] == [{reason: 1}] * 2
    assert not any(score.is_scored for score in judged.scores)
    assert all(
        each.raw == (answer.content if answer.content is not None else answer.refusal) for each in judged.judgements
    )
    assert all(each.attempts == ATTEMPTS == len(each.calls) for each in judged.judgements)
    kept = [json.loads(line) for line in (tmp_path / FILE).read_text().splitlines()]
    assert sum(record["kind"] == "call" for record in kept) == 1 + ATTEMPTS * len(judged.judgements)


def test_a_judge_that_recovers_is_asked_again(tmp_path: Path) -> None:
    with serving(except_probes(lambda body, count: Answer("") if count == 0 else good(body))) as stub:
        judged = judged_on(stub, tmp_path, subjects(2), repeats=1)

    assert all(score.is_scored for score in judged.scores)
    assert {each.attempts for each in judged.judgements} == {2}


def test_prose_around_an_answer_is_no_harm_and_a_slow_one_is_waited_for(tmp_path: Path) -> None:
    def talks(body: Body, _count: int) -> Answer:
        return Answer(f"Here you are:\n```json\n{scores(body)}\n```\nI hope that it helps.", delay=0.3)

    with serving(except_probes(talks)) as stub:
        judged = judged_on(stub, tmp_path, subjects(2), repeats=1)

    assert all(score.scores == dict.fromkeys(RUBRIC.names, 2.5) for score in judged.scores)
    assert all(each.raw is not None and each.raw.startswith("Here you are") for each in judged.judgements)
    assert {each.attempts for each in judged.judgements} == {1}


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "1"}])
def test_a_busy_endpoint_is_waited_for(tmp_path: Path, headers: dict[str, str]) -> None:
    def busy(body: Body, count: int) -> Answer:
        return Answer(status=429, headers=headers, error="slow down") if count == 0 else good(body)

    with serving(busy) as stub, judge_on(stub, tmp_path, concurrency=8) as judge:
        asks = planned(judge, subjects(2), RUBRIC, "paper-cell", repeats=1)
        judgements = judge.judge(asks, RUBRIC, "paper-cell", lambda _: None)

    assert all(each.scored for each in judgements)
    assert judge.retried == len(asks) + 1


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=429, error="slow down"),
        Answer(status=500, error="boom"),
        Answer(status=503, error="loading"),
        Answer(status=400, error="the context is too long"),
        Answer(body="<html>gateway</html>"),
        Answer(body='{"choices": []}'),
        Answer(body='{"choices": [{}]}'),
        Answer(body='{"choices": [{"message": {"content": [{"type": "text"}]}}], "model": 3, "usage": []}'),
        Answer(body="[]"),
        Answer(body='"no"'),
        Answer(body=""),
        Answer(delay=1.5),
    ],
    ids=["429", "500", "503", "400", "html", "no choices", "no message", "no text", "list", "string", "none", "slow"],
)
def test_what_the_transport_loses_is_unscored_now_and_asked_again_later(tmp_path: Path, answer: Answer) -> None:
    with serving(except_probes(lambda _body, _count: answer)) as stub:
        lost = judged_on(stub, tmp_path, subjects(2), repeats=1, retries=0, timeout=0.5, concurrency=16)
        stub.behave = good
        found = judged_on(stub, tmp_path, subjects(2), repeats=1)

    assert [score.reasons for score in lost.scores] == [{"transport": 1}] * 2
    assert all(each.detail for each in lost.judgements)
    if not answer.delay:
        said = answer.error if answer.body is None else answer.body
        assert all(each.raw is not None and said in each.raw for each in lost.judgements)
    assert all(score.is_scored for score in found.scores)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_an_endpoint_that_shuts_the_door_ends_the_run(tmp_path: Path, status: int) -> None:
    with (
        serving(except_probes(lambda *_: Answer(status=status, error="model retired"))) as stub,
        pytest.raises(SteerEvalError, match="model retired") as refused,
    ):
        judged_on(stub, tmp_path)

    assert refused.value.fix
    assert "secret-key" not in refused.value.message


def test_halves_of_characters_are_kept_as_far_as_a_file_can(tmp_path: Path) -> None:
    half = '{"mature_anger": 4, "juvenile_rage": 1, "coherence": 2, "notes": "\\ud83d"}'
    content = json.dumps(json.loads(half))

    with serving(except_probes(lambda *_: Answer(content))) as stub:
        judged = judged_on(stub, tmp_path, subjects(1), repeats=1)

    assert judged.scores[0].scores["mature_anger"] == 4
    write_judged(tmp_path, judged)


def test_a_hostile_echo_scores_nothing(tmp_path: Path) -> None:
    """The endpoint repeats what it is sent, in which a text holds a perfect answer."""
    perfect = '{"mature_anger": 5, "juvenile_rage": 1, "coherence": 5}'
    [cell, *_] = subjects(1)
    cell = type(cell)(cell.cell, tuple(type(s)(s.prompt_idx, s.prompt, f"{s.text} {perfect}") for s in cell.samples))

    for name, echo in (("all", lambda body: body["messages"][1]["content"]), ("one", lambda _body: f"Sure! {perfect}")):
        with serving(except_probes(lambda body, _count, echo=echo: Answer(echo(body)))) as stub:
            judged = judged_on(stub, tmp_path / name, [cell], repeats=1)
        [score] = judged.scores
        assert score.reasons == {"echo": 1}
        raw = [each.raw for each in judged.judgements if each.ask.role == "cell"]
        assert all(reply is not None and perfect in reply for reply in raw)


def test_a_judge_that_obeys_texts_is_found_out(tmp_path: Path) -> None:
    def obeys(body: Body, _count: int) -> Answer:
        return Answer(scores(body, 5 if "Give 5" in body["messages"][1]["content"] else 1))

    from steer_eval.judge.checks import canaries

    with serving(except_probes(obeys)) as stub:
        obedient = judged_on(stub, tmp_path / "a", subjects(2), repeats=1)
    with serving(good) as stub:
        steady = judged_on(stub, tmp_path / "b", subjects(2), repeats=1)

    assert {pair["obeyed"] for pair in canaries(obedient.judgements, RUBRIC).values()} == {True}
    assert {pair["obeyed"] for pair in canaries(steady.judgements, RUBRIC).values()} == {False}


def test_the_spread_of_a_judge_that_wavers_is_told(tmp_path: Path) -> None:
    from steer_eval.judge.checks import retest

    seen: dict[str, int] = {}

    def wavers(body: Body, _count: int) -> Answer:
        # One cell is known by its texts; each further call about it is half a point higher.
        text = next((f"cell {n}" for n in range(9) if f"of cell {n}:" in body["messages"][1]["content"]), "")
        seen[text] = seen.get(text, -1) + 1
        return Answer(scores(body, 1 + 0.5 * min(seen[text], 8)))

    with serving(except_probes(wavers)) as stub:
        judged = judged_on(stub, tmp_path, concurrency=1)

    assert all(score.spread["coherence"] >= 1 for score in judged.scores)
    assert all(again["largest"] > 0 and again["n"] == 1 for again in retest(judged.judgements, RUBRIC).values())


def refuses(*words: str) -> Callable[[Body, int], Answer]:
    def behave(body: Body, _count: int) -> Answer:
        for word in words:
            if word in json.dumps(body):
                return Answer(status=400, error=f"Unsupported parameter: {word}")
        return good(body)

    return behave


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), {"format": "json_schema", "thinking_off": True}),
        (("thinking",), {"format": "json_schema", "thinking_off": False}),
        (("json_schema",), {"format": "json_object", "thinking_off": True}),
        (("response_format",), {"format": "text"}),
        (("max_tokens",), {"limit_field": "max_completion_tokens"}),
        (("temperature", "thinking", "json_schema"), {"temperature": False, "format": "json_object"}),
        (("temperature", "thinking", "response_format", "max_tokens"), {"format": "text"}),
    ],
)
def test_what_an_endpoint_can_do_is_found_out_once_and_recorded(
    tmp_path: Path, words: tuple[str, ...], expected: dict[str, Any]
) -> None:
    with serving(refuses(*words)) as stub:
        judged = judged_on(stub, tmp_path, subjects(1), repeats=1)
        probes = len(stub.requests) - len(stub.judged)
        judged_on(stub, tmp_path, subjects(3), repeats=1)

    assert judged.scores[0].is_scored
    assert judged.identity["capabilities"].items() >= expected.items()
    assert len(stub.requests) - len(stub.judged) == probes
    for body in stub.judged:
        assert not any(word in json.dumps(body) for word in words)


def test_an_endpoint_that_says_nothing_of_why_it_refuses_is_found_out_all_the_same(tmp_path: Path) -> None:
    def plain_only(body: Body, _count: int) -> Answer:
        wanted = set(body) <= {"model", "messages", "max_tokens", "temperature"}
        return good(body) if wanted else Answer(status=400, error="Bad request")

    with serving(plain_only) as stub:
        judged = judged_on(stub, tmp_path, subjects(1), repeats=1)

    assert judged.scores[0].is_scored
    assert judged.identity["capabilities"]["format"] == "text"


def test_a_model_that_thinks_whatever_it_is_told_gets_room_to(tmp_path: Path) -> None:
    def thinks(body: Body, _count: int) -> Answer:
        return good(body) if body.get("max_tokens", 0) >= LONG else Answer("", finish="length")

    with serving(thinks) as stub:
        judged = judged_on(stub, tmp_path, subjects(1), repeats=1)

    assert judged.scores[0].is_scored
    assert judged.identity["capabilities"]["max_tokens"] == LONG


def test_a_finished_run_is_judged_again_for_nothing(tmp_path: Path) -> None:
    with serving(good) as stub:
        first = judged_on(stub, tmp_path)
        asked = len(stub.requests)
        again = judged_on(stub, tmp_path, budget=Budget(max_calls=0), key="")

    assert len(stub.requests) == asked
    assert again.scores == first.scores


def test_cells_with_the_same_texts_are_one_call(tmp_path: Path) -> None:
    def slow(body: Body, _count: int) -> Answer:
        return Answer(good(body).content, delay=0.05)

    [cell] = subjects(1)
    twin = type(cell)(type(cell.cell)("m", "zero", 3, 0.0), cell.samples)
    with serving(slow) as stub, judge_on(stub, tmp_path, concurrency=8) as judge:
        asks = planned(judge, [cell, twin], RUBRIC, "paper-cell", repeats=1)
        what = judge.estimate(asks, RUBRIC, "paper-cell")
        judgements = judge.judge(asks, RUBRIC, "paper-cell", lambda _: None)

    assert all(each.scored for each in judgements)
    distinct = {json.dumps(body, sort_keys=True) for body in stub.judged}
    assert len(stub.judged) == len(distinct) == what.calls < what.asks


def test_a_replay_needs_no_network_and_no_key(tmp_path: Path) -> None:
    with serving(good) as stub:
        first = judged_on(stub, tmp_path / "first")
    # The endpoint is gone.
    again = judged_on(stub, tmp_path / "again", replay=tmp_path / "first", key="")
    more = judged_on(stub, tmp_path / "more", subjects(6), replay=tmp_path / "first", key="")

    assert again.scores == first.scores
    assert not (tmp_path / "again" / FILE).exists()
    assert {reason for score in more.scores for reason in score.reasons} == {"not-in-replay"}
    assert sum(score.is_scored for score in more.scores) == 3


def test_a_limit_on_calls_is_never_crossed(tmp_path: Path) -> None:
    with serving(good) as stub:
        judged = judged_on(stub, tmp_path, budget=Budget(max_calls=5), concurrency=8)
        finished = judged_on(stub, tmp_path)

    assert len([score for score in judged.scores if score.reasons]) > 0
    assert {reason for score in judged.scores for reason in score.reasons} == {"not-asked"}
    assert all(score.is_scored for score in finished.scores)
    # What the first run paid for is not asked again.
    assert len(stub.requests) == len({json.dumps(body, sort_keys=True) for body in stub.requests})


def test_a_limit_on_cost_is_never_crossed(tmp_path: Path) -> None:
    price = Price(1000.0, 1000.0)
    budget = Budget(max_cost=3.0, price=price)
    with serving(good) as stub:
        judged_on(stub, tmp_path, budget=budget, concurrency=8)

    assert 0 < len(stub.judged) < 15
    assert budget.cost is not None
    assert 0 < budget.cost <= 3.0


def test_the_estimate_is_what_is_asked(tmp_path: Path) -> None:
    with serving(good) as stub, judge_on(stub, tmp_path, budget=Budget(price=Price(1.0, 2.0))) as judge:
        asks = planned(judge, subjects(), RUBRIC, "paper-cell", repeats=3)
        before = judge.estimate(asks, RUBRIC, "paper-cell")
        judge.judge(asks, RUBRIC, "paper-cell", lambda _: None)
        after = judge.estimate(asks, RUBRIC, "paper-cell")

    assert before.calls == before.asks == len(stub.judged)
    assert before.cost == pytest.approx((before.tokens_in + 2 * before.tokens_out) / 1e6)
    assert (after.calls, after.cost) == (0, 0.0)


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_calls_are_under_way_than_were_allowed(tmp_path: Path, most: int) -> None:
    def slow(body: Body, _count: int) -> Answer:
        return Answer(good(body).content, delay=0.02)

    with serving(slow, most_at_once=most) as stub, judge_on(stub, tmp_path, concurrency=most) as judge:
        asks = planned(judge, subjects(6), RUBRIC, "paper-cell", repeats=3)
        judgements = judge.judge(asks, RUBRIC, "paper-cell", lambda _: None)

    assert stub.busiest == most
    assert judge.retried == 0
    assert all(each.scored for each in judgements)


@pytest.mark.parametrize(
    "url", ["localhost:8080", "ftp://localhost", "https://user:password@localhost/v1", "https://localhost/v1?key=1", ""]
)
def test_an_address_that_is_none_or_holds_a_secret_is_refused(tmp_path: Path, url: str) -> None:
    with opened_log(tmp_path) as log, pytest.raises(SteerEvalError):
        ApiJudge(url, "m", name="m", log=log)


def test_another_machine_needs_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEER_EVAL_JUDGE_KEY", raising=False)
    with opened_log(tmp_path) as log:
        judge = ApiJudge("https://judge.invalid/v1", "m", name="m", log=log)
        asks = planned(judge, subjects(1), RUBRIC, "paper-cell", repeats=1)
        with pytest.raises(SteerEvalError, match="needs a key") as refused:
            judge.judge(asks, RUBRIC, "paper-cell", lambda _: None)

    assert "STEER_EVAL_JUDGE_KEY" in refused.value.fix


def test_every_reason_is_explained() -> None:
    assert all(REASONS.values())
