"""KEDA's calls, as KEDA makes them: to any of two replicas, whichever works for the queue."""

import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from client import Client, Frames, connection, foreign, refusal, until  # noqa: E402
from metrics_page import MetricsPage  # noqa: E402
from postkeeperd import Postkeeperd  # noqa: E402
from zookeeper import Zookeeper  # noqa: E402

CALL_TIMEOUT_S = 30


def message(kind, /, **fields):
    return foreign(f"externalscaler.{kind}")(**fields)


def ref(**metadata):
    """A ScaledObjectRef as KEDA sends it, its own metadata included."""
    metadata = {"scalerAddress": "postkeeper.messaging.svc:7411", **metadata}
    return message("ScaledObjectRef", name="workers", namespace="shop", scalerMetadata=metadata)


class Scaler:
    """What KEDA does with one replica."""

    def __init__(self, client):
        self.channel = client.channel

    def unary(self, method, request, answer):
        call = self.channel.unary_unary(f"/externalscaler.ExternalScaler/{method}", type(request).SerializeToString,
                                        foreign(f"externalscaler.{answer}").FromString)
        return call(request, timeout=CALL_TIMEOUT_S)

    def is_active(self, **metadata):
        return self.unary("IsActive", ref(**metadata), "IsActiveResponse").result

    def spec(self, **metadata):
        """(name, target, target as a float)"""
        specs = self.unary("GetMetricSpec", ref(**metadata), "GetMetricSpecResponse").metricSpecs
        return [(spec.metricName, spec.targetSize, spec.targetSizeFloat) for spec in specs]

    def value(self, **metadata):
        name = self.spec(**metadata)[0][0]
        request = message("GetMetricsRequest", scaledObjectRef=ref(**metadata), metricName=name)
        values = self.unary("GetMetrics", request, "GetMetricsResponse").metricValues
        if len(values) != 1 or values[0].metricName != name or values[0].metricValue < values[0].metricValueFloat:
            raise AssertionError(values)
        return values[0].metricValueFloat

    def stream(self, **metadata):
        call = self.channel.unary_stream("/externalscaler.ExternalScaler/StreamIsActive",
                                         foreign("externalscaler.ScaledObjectRef").SerializeToString,
                                         foreign("externalscaler.IsActiveResponse").FromString)
        return Frames(call(ref(**metadata)))


class ScalerTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.zookeeper = Zookeeper()
        cls.addClassCleanup(cls.zookeeper.close)
        flags = ("--zookeeper", cls.zookeeper.hosts, "--auto-create", "on", "--balance-after", "1h")
        cls.owner = Postkeeperd(*flags, metrics_listen="127.0.0.1:0")
        cls.addClassCleanup(cls.owner.close)
        cls.client = Client(cls.owner.address)
        cls.addClassCleanup(cls.client.close)
        # It owns nothing, since all queues are made through the first one.
        cls.other = Postkeeperd(*flags, metrics_listen="127.0.0.1:0")
        cls.addClassCleanup(cls.other.close)
        cls.other_client = Client(cls.other.address)
        cls.addClassCleanup(cls.other_client.close)
        cls.scalers = (Scaler(cls.client), Scaler(cls.other_client))

    @property
    def name(self):
        return self.id().rpartition(".")[2].replace("_", "-").lower()

    # Active while there is something to do, or being done; ready messages are counted; every replica says the same.
    def test_ready_messages(self):
        wanted = {"queue": self.name, "readyMessages": "10"}
        self.client.create_queue(self.name)
        for scaler in self.scalers:
            self.assertEqual(scaler.spec(**wanted), [("postkeeper-ready-messages", 10, 10.0)])
            self.assertFalse(scaler.is_active(**wanted))
            self.assertEqual(scaler.value(**wanted), 0)
        self.client.enqueue(self.name, *range(25))
        for scaler in self.scalers:
            self.assertTrue(scaler.is_active(**wanted))
            self.assertEqual(scaler.value(**wanted), 25)
        taken = self.client.dequeue(self.name, 25)
        for scaler in self.scalers:
            self.assertTrue(scaler.is_active(**wanted), "they are being worked on")
            self.assertEqual(scaler.value(**wanted), 0)
        self.client.ack(self.name, taken)
        for scaler in self.scalers:
            self.assertFalse(scaler.is_active(**wanted))
        self.assertGreater(MetricsPage.of(self.other).sum("postkeeper_relayed_calls_total", result="answered"), 0)

    # The age of the oldest message, in seconds, grows with the clock.
    def test_oldest_age(self):
        wanted = {"queueFromEnv": f"namespaces/default/queues/{self.name}", "oldestAge": "1500ms"}
        self.client.create_queue(self.name)
        self.client.enqueue(self.name, "x")
        for scaler in self.scalers:
            self.assertEqual(scaler.spec(**wanted), [("postkeeper-oldest-age-seconds", 2, 1.5)])
            before = scaler.value(**wanted)
            self.assertGreater(before, 0)
            until(lambda s=scaler, b=before: s.value(**wanted) > b + 0.2, "the message gets older")
            self.assertLess(scaler.value(**wanted), 60)

    # What is there divided by the rate at which it is settled; while nobody settles anything, what was aimed at.
    def test_drain_time(self):
        wanted = {"queue": self.name, "drainTime": "5m"}
        self.client.create_queue(self.name)
        self.client.enqueue(self.name, *range(100))
        for scaler in self.scalers:
            self.assertEqual(scaler.spec(**wanted), [("postkeeper-drain-time-seconds", 300, 300.0)])
            self.assertEqual(scaler.value(**wanted), 300)
        self.client.ack(self.name, self.client.dequeue(self.name, 40))
        stats = until(lambda: next((s for s in [self.client.stats(self.name)] if s.settle_rate > 0), None), "there is a rate")
        self.assertEqual(stats.ready, 60)
        for scaler in self.scalers:
            self.assertGreater(scaler.value(**wanted), 0)
            self.assertLess(scaler.value(**wanted), 300, "60 messages at some 40 a minute or faster")

    # A stream says at once how it stands, and then each change.
    def test_stream(self):
        wanted = {"queue": self.name, "readyMessages": "1"}
        self.client.create_queue(self.name)
        streams = [scaler.stream(**wanted) for scaler in self.scalers]
        for stream in streams:
            self.addCleanup(stream.cancel)
            self.assertFalse(stream.next().result)
        self.client.enqueue(self.name, "x")
        for stream in streams:
            self.assertTrue(stream.next().result)
        self.client.drain(self.name)
        for stream in streams:
            self.assertFalse(stream.next().result)
            self.assertTrue(stream.is_idle())

    # Wrong metadata is told in the words of the trigger, by every method.
    def test_wrong_metadata(self):
        wrong = {
            "scalerMetadata.queue is missing: the name of the queue whose workers are scaled": {"readyMessages": "5"},
            "scalerMetadata.readyMessages is missing: give one of readyMessages, oldestAge and drainTime":
                {"queue": self.name},
            "scalerMetadata.readyMessages is to be a whole number from 1 on, not 'many'":
                {"queue": self.name, "readyMessages": "many"},
            "scalerMetadata.drainTimes is not known. Did you mean drainTime?":
                {"queue": self.name, "drainTimes": "5m"},
        }
        for text, metadata in wrong.items():
            for scaler in self.scalers:
                for call in (scaler.is_active, scaler.spec, scaler.stream, lambda s=scaler, **m: s.unary(
                        "GetMetrics", message("GetMetricsRequest", scaledObjectRef=ref(**m)), "GetMetricsResponse")):
                    refused = refusal(lambda c=call, m=metadata: c(**m))
                    self.assertEqual((refused.code, refused.reason, refused.text),
                                     ("INVALID_ARGUMENT", "INVALID_FIELD", text))

    # A queue that is not there is not made by asking for it.
    def test_unknown_queue(self):
        for scaler in self.scalers:
            for call in (scaler.is_active, scaler.value, scaler.stream):
                refused = refusal(lambda c=call: c(queue=self.name, readyMessages="5"))
                self.assertEqual((refused.code, refused.reason), ("NOT_FOUND", "QUEUE_NOT_FOUND"))

    # The ScaledObject in examples/keda is one that postkeeperd understands.
    def test_the_example(self):
        lines = (connection.ROOT / "examples/keda/scaledobject.yaml").read_text(encoding="utf-8").splitlines()
        triggers = []
        for line in lines:
            if line.strip().startswith("- type: external"):
                triggers.append({})
            key, _, value = line.split("#")[0].strip().partition(": ")
            if triggers and line.startswith(" " * 8) and value:
                triggers[-1][key] = value.strip('"')
        self.assertEqual(len(triggers), 2)
        for metadata in triggers:
            self.assertIn("scalerAddress", metadata)
            name, target, _ = self.scalers[0].spec(**metadata)[0]
            self.assertRegex(name, "^postkeeper-")
            self.assertGreater(target, 0)


if __name__ == "__main__":
    unittest.main()
