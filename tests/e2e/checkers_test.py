"""Each checker finds the violation that it is there for, and finds nothing in a history without one."""

import base64
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

import checkers  # noqa: E402
import report  # noqa: E402
from faults import CLASS_OF, KILL, KILL_ALL, KINDS, LINKS, MEMBER, STOP, plan  # noqa: E402
from history import (ACK, ALREADY_SETTLED, OK, REFUSED, STALE_LEASE, UNEXPECTED, UNKNOWN, Answered, Delivered,  # noqa: E402
                     FaultBegan, FaultEnded, History, Mishap, Received, Sent, Settled, SettleSent, StreamEnded, Token,
                     lines_about)
from workload import epoch_of  # noqa: E402

TOPICS = ("t",)
SOURCE = bytes(range(16))


def token(position, epoch=1, number=1):
    data = SOURCE + epoch.to_bytes(8, "big") + position.to_bytes(8, "big") + number.to_bytes(4, "big") + b"\0" * 4
    return "t" + base64.urlsafe_b64encode(data).decode().rstrip("=")


class Story:
    """A history, told in short sentences; each happens a second after the one before it."""

    def __init__(self):
        self.history = History()
        self.clock = 0.0
        self.history.now = self._tick

    def _tick(self):
        self.clock += 1
        return self.clock

    def sends(self, call, *bodies, log="q", stream="", request_id=""):
        self.history.add(Sent, call=call, log=log, replica="r", bodies=bodies or (call,), request_id=request_id,
                         stream=stream)
        return self

    def hears(self, call, outcome, *ids):
        self.history.add(Answered, call=call, outcome=outcome, message_ids=ids)
        return self

    def accepted(self, body, message_id, **more):
        return self.sends(body, **more).hears(body, OK, message_id)

    def delivered(self, body, message_id, position, epoch=1, number=1, attempt=1, stream="s", owner_epoch=0):
        self.history.add(Delivered, source="q", consumer="c", stream=stream, replica="r", body=body, message_id=message_id,
                         token=token(position, epoch, number), attempt=attempt, owner_epoch=owner_epoch)
        return self

    def acks(self, message_id, position, epoch=1, number=1, outcome=OK):
        about = {"source": "q", "consumer": "c", "message_id": message_id, "token": token(position, epoch, number),
                 "verb": ACK}
        self.history.add(SettleSent, **about)
        self.history.add(Settled, outcome=outcome, **about)
        return self

    def worked_off(self, body, message_id, position, **more):
        return self.accepted(body, message_id, **more).delivered(body, message_id, position).acks(message_id, position)

    def received(self, body, message_id, position, subscriber="s"):
        self.history.add(Received, topic="t", subscriber=subscriber, stream="s", replica="r", body=body,
                         message_id=message_id, position=position)
        return self

    def also(self, kind, /, **fields):
        self.history.add(kind, **fields)
        return self

    def judged_by(self, checker):
        return checker(checkers.Reading(self.history.events), TOPICS)


class CheckersTest(unittest.TestCase):
    def assert_kept(self, checker, story, judged):
        verdict = story.judged_by(checker)
        self.assertEqual((verdict.violations, verdict.judged), ([], judged))
        return verdict

    def assert_broken(self, checker, story, *words):
        verdict = story.judged_by(checker)
        self.assertEqual(len(verdict.violations), 1, verdict.violations)
        for word in words:
            self.assertIn(word, verdict.violations[0].text)
        return verdict

    # A run in which all is well is well to every checker, and every one has judged something.
    def test_good_history(self):
        story = Story().worked_off("a", "ma", 1).accepted("n", "mn", log="t").received("n", "mn", "p1")
        story.sends("u", "u1", "u2").hears("u", UNKNOWN).also(StreamEnded, who="c", replica="r", detail="")
        story.also(FaultBegan, number=1, kind=KILL, target="r", is_alone=True)
        for kind in KINDS:
            story.also(FaultEnded, number=1, kind=kind, had_effect=True)
        verdicts = checkers.judge(story.history.events, TOPICS)
        self.assertEqual([verdict.violations for verdict in verdicts.values()], [[]] * len(checkers.CHECKERS))
        self.assertEqual(report.what_is_missing(story.history.events, verdicts), [])
        self.assertEqual(report.violations(story.history.events, verdicts), [])

    # Accepted and never delivered, though others were; also if only another copy of it was.
    def test_lost(self):
        self.assert_kept(checkers.nothing_is_lost, Story().worked_off("a", "ma", 1).sends("b").hears("b", UNKNOWN), 1)
        self.assert_broken(checkers.nothing_is_lost, Story().accepted("a", "ma"), "never delivered")
        other = Story().accepted("a", "ma").delivered("a", "mb", 1).acks("mb", 1)
        self.assert_broken(checkers.nothing_is_lost, other, "never delivered", "mb")
        self.assert_broken(checkers.nothing_is_lost, Story().accepted("a", "ma", log="t"), "never delivered")

    # Delivered, and gone without anybody's ack; an ack repeated until ALREADY_SETTLED is one, a stale one is none.
    def test_gone_without_an_ack(self):
        given = Story().accepted("a", "ma").delivered("a", "ma", 1)
        self.assert_broken(checkers.nothing_is_lost, given, "without an ack")
        given.acks("ma", 1, outcome=STALE_LEASE)
        self.assert_broken(checkers.nothing_is_lost, given, "without an ack")
        given.acks("ma", 1, outcome=UNKNOWN).acks("ma", 1, outcome=ALREADY_SETTLED)
        self.assert_kept(checkers.nothing_is_lost, given, 1)
        nobody = Story().accepted("a", "ma").delivered("a", "ma", 1)
        nobody.also(Settled, source="q", consumer="c", message_id="ma", token=token(1), verb="nack",
                    outcome=ALREADY_SETTLED)
        self.assertEqual([violation.text.partition(" ")[2] for violation in
                          nobody.judged_by(checkers.nothing_is_lost).violations],
                         ["was accepted and delivered, and is gone without an ack", "is called settled, and nobody has acked it"])

    # Delivered again after the ack, by the same owner or by the next one.
    def test_delivered_after_ack(self):
        self.assert_broken(checkers.ack_is_final, Story().worked_off("a", "ma", 1).delivered("a", "ma", 1, number=2),
                           "number 2")
        self.assert_broken(checkers.ack_is_final,
                           Story().worked_off("a", "ma", 1).delivered("a", "ma", 1, epoch=2, owner_epoch=2), "epoch 2")

    # What was given out before the delivery that was acked, or by a deposed owner, is only late.
    def test_late_deliveries(self):
        late = Story().accepted("a", "ma").delivered("a", "ma", 1, number=2).acks("ma", 1, number=2)
        late.delivered("a", "ma", 1, number=1)
        self.assertEqual(sum(self.assert_kept(checkers.ack_is_final, late, 1).counts.values()), 1)
        deposed = Story().worked_off("a", "ma", 1).delivered("a", "ma", 1, number=2, owner_epoch=2)
        self.assert_kept(checkers.ack_is_final, deposed, 1)
        seen = Story().worked_off("a", "ma", 1).delivered("b", "mb", 2, epoch=2).delivered("a", "ma", 1, number=2)
        self.assert_kept(checkers.ack_is_final, seen, 1)

    # Two deliveries of one message that both settled it.
    def test_settled_twice(self):
        story = Story().worked_off("a", "ma", 1)
        self.assert_kept(checkers.held_by_one, story, 1)
        self.assert_broken(checkers.held_by_one, story.acks("ma", 1, number=2), "two deliveries")

    # One body under two ids, or one id at two places, without a repeat of the client.
    def test_written_twice(self):
        self.assert_kept(checkers.written_once, Story().worked_off("a", "ma", 1).delivered("a", "ma", 1, number=2), 1)
        self.assert_broken(checkers.written_once, Story().worked_off("a", "ma", 1).delivered("a", "mb", 2), "2 times")
        self.assert_broken(checkers.written_once, Story().worked_off("a", "ma", 1).delivered("a", "ma", 2), "2 times")
        topic = Story().accepted("a", "ma", log="t").received("a", "ma", "p1").received("a", "mb", "p2")
        self.assert_broken(checkers.written_once, topic, "2 times")

    # The same by a repeat with a request_id, whoever answered it.
    def test_written_twice_by_a_repeat(self):
        story = Story().sends("a", request_id="1").hears("a", UNKNOWN).accepted("a", "ma", request_id="1")
        story.delivered("a", "ma", 1).delivered("a", "mb", 2)
        self.assert_broken(checkers.written_once, story, "with a request_id")

    # Half of a call whose outcome nobody knew.
    def test_half_a_call(self):
        story = Story().sends("c", "a", "b").hears("c", UNKNOWN)
        self.assert_kept(checkers.calls_are_whole, story, 1)
        self.assert_broken(checkers.calls_are_whole, story.delivered("a", "ma", 1), "['b'] were not")
        self.assert_kept(checkers.calls_are_whole, story.delivered("b", "mb", 2), 1)

    # Sent after another was accepted, and before it in the log; what was sent meanwhile may stand anywhere.
    def test_order_of_calls(self):
        wrong = Story().accepted("a", "ma").accepted("b", "mb").delivered("b", "mb", 1).delivered("a", "ma", 2)
        self.assert_broken(checkers.log_order, wrong, "b was sent after a")
        side_by_side = Story().sends("a").sends("b").hears("a", OK, "ma").hears("b", OK, "mb")
        self.assert_kept(checkers.log_order, side_by_side.delivered("b", "mb", 1).delivered("a", "ma", 2), 2)

    # Within one stream, though neither answer had come when the other was sent.
    def test_order_of_frames(self):
        story = Story().sends("a", stream="s").sends("b", stream="s").hears("a", OK, "ma").hears("b", OK, "mb")
        self.assert_broken(checkers.log_order, story.delivered("b", "mb", 1).delivered("a", "ma", 2), "in stream s")

    # Within one call.
    def test_order_in_a_call(self):
        story = Story().sends("c", "a", "b").hears("c", OK, "ma", "mb").delivered("b", "mb", 1).delivered("a", "ma", 2)
        self.assert_broken(checkers.log_order, story, "one call")

    # A first attempt behind a later message on the same stream; what comes again may come at any time.
    def test_order_of_deliveries(self):
        again = Story().delivered("a", "ma", 1).delivered("b", "mb", 2).delivered("a", "ma", 1, number=2, attempt=2)
        self.assert_kept(checkers.delivery_order, again, 2)
        self.assert_kept(checkers.delivery_order, again.delivered("a", "ma", 1, stream="other"), 3)
        self.assert_broken(checkers.delivery_order, Story().delivered("b", "mb", 2).delivered("a", "ma", 1), "a came on s")

    # A subscriber that goes back, that gets one twice, that misses what others got, or the last that was accepted.
    def test_gaps(self):
        good = Story().accepted("a", "ma", log="t").received("a", "ma", "p1").received("b", "mb", "p2")
        self.assert_kept(checkers.no_silent_gap, good, 2)
        self.assert_broken(checkers.no_silent_gap, good.received("a", "ma", "p1"), "when it stood at p2")
        self.assert_broken(checkers.no_silent_gap, Story().received("a", "ma", "p1").received("a", "ma", "p1"), "stood at p1")
        missed = Story().received("a", "ma", "p1").received("b", "mb", "p2").received("b", "mb", "p2", subscriber="other")
        self.assert_broken(checkers.no_silent_gap, missed, "other never got a")
        self.assert_broken(checkers.no_silent_gap, Story().received("a", "ma", "p1").accepted("b", "mb", log="t"),
                           "never got b")

    # Refused and delivered; a call that was once unknown may have been written.
    def test_refused_and_written(self):
        story = Story().sends("a").hears("a", REFUSED)
        self.assert_kept(checkers.known_or_said, story, 1)
        self.assert_broken(checkers.known_or_said, story.delivered("a", "ma", 1), "refused")
        maybe = Story().sends("a").hears("a", UNKNOWN).sends("a").hears("a", REFUSED).delivered("a", "ma", 1)
        self.assertEqual(list(self.assert_kept(checkers.known_or_said, maybe, 1).counts.values()), [1, 1])

    # A call that nobody answered, and answers that no promise covers.
    def test_never_answered(self):
        self.assert_broken(checkers.known_or_said, Story().sends("a"), "never answered")
        self.assert_broken(checkers.known_or_said, Story().sends("a").hears("a", UNEXPECTED), "no promise covers")
        self.assert_broken(checkers.known_or_said, Story().acks("ma", 1, outcome=UNEXPECTED), "ack of ma")

    # A mishap is told as it is.
    def test_mishaps(self):
        self.assert_broken(checkers.all_goes_on, Story().also(Mishap, what="postkeeperd-1 ended by itself"), "by itself")

    # Every checker is held to what it finds by a test above.
    def test_all_checkers_are_tested(self):
        source = pathlib.Path(__file__).read_text(encoding="utf-8")
        for checker in checkers.CHECKERS:
            self.assertIn(f"assert_broken(checkers.{checker.__name__},", source)


class ReportTest(unittest.TestCase):
    # A run whose faults did not take effect, or whose checkers had nothing to judge, is told so.
    def test_what_is_missing(self):
        story = Story().also(FaultEnded, number=1, kind=KILL, had_effect=False)
        missing = report.what_is_missing(story.history.events, checkers.judge(story.history.events, TOPICS))
        self.assertEqual(len(missing), len(KINDS) + len(checkers.CHECKERS))

    # The pause after a fault is that of the reader who waited longest, until the next fault; only of faults alone.
    def test_pauses(self):
        story = Story().delivered("a", "ma", 1).also(FaultBegan, number=1, kind=KILL, target="r", is_alone=True)
        story.clock += 10
        story.delivered("b", "mb", 2).also(FaultBegan, number=2, kind=STOP, target="r", is_alone=False)
        story.clock += 20
        story.delivered("c", "mc", 3)
        self.assertEqual(report.pauses_after(story.history.events, KILL), [12.0])
        self.assertEqual(report.pauses_after(story.history.events, STOP), [])

    # A broken promise is shown with the events about its message, and the faults around them, and no others.
    def test_lines_about(self):
        story = Story().worked_off("a", "ma", 1)
        story.clock += 100
        story.also(FaultBegan, number=1, kind=KILL, target="r", is_alone=True).accepted("b", "mb")
        told = [type(event).__name__ for event in lines_about(story.history.events, ("b",))]
        self.assertEqual(told, ["FaultBegan", "Sent", "Answered"])
        lines = report.violations(story.history.events, checkers.judge(story.history.events, TOPICS))
        self.assertEqual(len(lines), 5, lines)
        self.assertIn("BROKEN: G1, G2", lines[0])

    # The table has a line for each kind of fault and each figure.
    def test_table(self):
        story = Story().worked_off("a", "ma", 1).accepted("n", "mn", log="t").received("n", "mn", "p1")
        rows = dict(report.rows(story.history.events, checkers.judge(story.history.events, TOPICS), TOPICS))
        self.assertEqual([rows["enqueued (answered OK)"], rows["published (answered OK)"], rows["acked"], rows["lost"]],
                         [1, 1, 1, 0])
        self.assertIn("| acked ", report.table(rows.items()))


class PlanTest(unittest.TestCase):
    # One seed, one plan; each kind before any comes again; no two of one class at a time.
    def test_plan(self):
        first, again, other = plan(7, 4), plan(7, 4), plan(8, 4)
        steps = [next(first) for _ in range(60)]
        self.assertEqual(steps, [next(again) for _ in range(60)])
        self.assertNotEqual(steps, [next(other) for _ in range(60)])
        faults = [fault for step in steps for fault in step.faults]
        self.assertEqual(sorted(fault.kind for fault in faults[:len(KINDS)]), sorted(KINDS))
        for step in steps:
            classes = [CLASS_OF[fault.kind] for fault in step.faults]
            self.assertEqual(len(set(classes)), len(classes))
            if {STOP, KILL_ALL} & {fault.kind for fault in step.faults}:
                self.assertEqual(len(step.faults), 1)
        self.assertTrue(any(len(step.faults) == 2 for step in steps))
        self.assertTrue({LINKS, MEMBER} < {CLASS_OF[fault.kind] for fault in faults})


class StoredTest(unittest.TestCase):
    # A lease token is read as zkstore/text_id.h writes it; a later giving-out of a message has a higher order.
    def test_token(self):
        read = Token.read(token(77, epoch=3, number=2))
        self.assertEqual((read.source, read.epoch, read.position, read.number), (SOURCE.hex(), 3, 77, 2))
        self.assertLess(read.order, Token.read(token(1, epoch=4, number=1)).order)

    # The epoch is found in an OwnerRecord, whatever stands before it; an empty record has none.
    def test_epoch(self):
        self.assertEqual(epoch_of(b"\x08\x02\x10\xac\x02\x1a\x02ab"), 300)
        self.assertEqual(epoch_of(b"\x1a\x02ab\x10\x05"), 5)
        self.assertEqual(epoch_of(b""), 0)


if __name__ == "__main__":
    unittest.main()
