// What happened, in the domain's words. Nobody but prometheus.cc (with its prometheus_series.h) knows who counts it,
// and how.
//
// The rule of use: resolve once, count often. A queue asks for its QueueMetrics when it is opened and keeps the
// handle; counting is then an atomic addition without a lock or a look-up. What has a value rather than a history
// (messages by state, oldest age) is not pushed but read, through a callback, when somebody scrapes.
//
// Units are in the names of the Prometheus metrics only; here they are in the types.
#ifndef POSTKEEPER_METRICS_METRICS_H_
#define POSTKEEPER_METRICS_METRICS_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace postkeeper {

// How a Nack ended an attempt.
enum class NackedAs { kRetry, kRelease };

// A queue as it stands now.
struct QueueGauges {
  std::int64_t ready = 0;
  std::int64_t delayed = 0;
  std::int64_t leased = 0;
  std::int64_t bytes = 0;
  std::int64_t consumers = 0;
  std::int64_t consumers_with_credit = 0;  // of them, those that would get the next message
  std::chrono::nanoseconds oldest_age{};   // 0 = no message
};

// Counts for one queue. Thread-safe.
//
// Lifetime: the handle keeps its queue's series alive; when it goes, they go, unless they are part of `_other`, which
// never goes back. It must not outlive its Metrics.
class QueueMetrics {
 public:
  virtual ~QueueMetrics() = default;
  virtual void Enqueued(std::int64_t messages, std::int64_t bytes) = 0;
  virtual void Delivered(std::int64_t first, std::int64_t redelivered) = 0;
  virtual void Acked(std::int64_t messages) = 0;
  virtual void Nacked(NackedAs kind, std::int64_t messages) = 0;
  virtual void Lapsed(std::int64_t messages) = 0;
  virtual void Purged(std::int64_t messages) = 0;
  virtual void Deleted(std::int64_t messages) = 0;  // went with their queue
  // From append to settling, of one acked message.
  virtual void TimeInQueue(std::chrono::nanoseconds time) = 0;
};

// A topic as it stands now.
struct TopicGauges {
  std::int64_t messages = 0;
  std::int64_t bytes = 0;
  std::int64_t subscribers = 0;
  std::int64_t subscribers_behind = 0;  // of them, those that have not taken all there is
};

// Counts for one topic. Thread-safe; lifetime as of QueueMetrics.
class TopicMetrics {
 public:
  virtual ~TopicMetrics() = default;
  virtual void Published(std::int64_t messages, std::int64_t bytes) = 0;
  // `age`: since the append of the newest of them.
  virtual void Delivered(std::int64_t messages, std::chrono::nanoseconds age) = 0;
  virtual void Trimmed(std::int64_t messages) = 0;
  virtual void Deleted(std::int64_t messages) = 0;
};

// The logs of this replica. Thread-safe.
class LogMetrics {
 public:
  virtual ~LogMetrics() = default;
  // One batch is durable.
  virtual void BatchWritten(std::int64_t messages, std::int64_t bytes) = 0;
};

// The comings and goings of the logs that this replica works for. Thread-safe.
class OwnershipMetrics {
 public:
  virtual ~OwnershipMetrics() = default;
  // It works for one more log. `loading`: from becoming its owner to serving it. `ownerless`: from when this replica
  // first saw that the log had no owner any more to serving it; nullopt = it never had one, or it was this process.
  virtual void Taken(std::chrono::nanoseconds loading, std::optional<std::chrono::nanoseconds> ownerless) = 0;
  virtual void Retaken() = 0;     // under a new session
  virtual void HandedOver() = 0;  // in good order
  virtual void Lost() = 0;
};

// How it ended that a call or stream was passed on to the replica that works for its log.
enum class RelayResult {
  kAnswered,  // with whatever the other replica had to say
  kBroken,    // the connection broke: nobody knows what was carried out
  kNoOwner,   // no replica was found in time that works for the log
};

// Thread-safe.
class RelayMetrics {
 public:
  virtual ~RelayMetrics() = default;
  virtual void CallRelayed(RelayResult result) = 0;
  virtual void StreamRelayed(RelayResult result) = 0;
};

// One operation on ZooKeeper that ended, and how. Codes and operations are ZooKeeper's names in lower case: "multi",
// "ok", "connection_loss".
class ZookeeperMetrics {
 public:
  virtual ~ZookeeperMetrics() = default;
  virtual void Requested(std::string_view operation, std::string_view code, std::chrono::nanoseconds time) = 0;
  virtual void SessionExpired() = 0;
};

// The ZooKeeper session as it stands now.
struct ZookeeperGauges {
  bool is_connected = false;
  std::int64_t requests_in_flight = 0;
  std::int64_t watches = 0;
  std::int64_t watched_path_bytes = 0;
};

// The cluster as this replica sees it now.
struct ClusterGauges {
  std::int64_t replicas = 0;              // registered, this one among them
  std::int64_t unreachable_replicas = 0;  // of them, from here
};

// What this replica holds now.
struct ReplicaGauges {
  std::int64_t queues = 0;  // that it knows of
  std::int64_t topics = 0;
  std::int64_t queues_owned = 0;  // of them, those that it works for
  std::int64_t topics_owned = 0;
  std::int64_t polling_logs = 0;  // those whose tail it looks at from time to time, for want of room for a watch
  std::int64_t stored_bytes = 0;  // of the messages of those that it works for, about
  std::int64_t corruptions = 0;   // damaged or missing batches that it has met so far
};

// One RPC of the API. Thread-safe; lives as long as its Metrics.
class MethodMetrics {
 public:
  virtual ~MethodMetrics() = default;
  virtual void Started() = 0;
  // `grpc_code` is the number of gRPC's status code.
  virtual void Handled(int grpc_code, std::chrono::nanoseconds time) = 0;
  virtual void MessageReceived() = 0;
  virtual void MessageSent() = 0;
};

// Of a method, as the gRPC ecosystem labels it.
struct MethodName {
  std::string type;     // unary, client_stream, server_stream, bidi_stream
  std::string service;  // postkeeper.v1.MessageService
  std::string method;   // Enqueue
};

// Where everything is counted. One per process. Thread-safe. Outlives all handles.
//
// The callbacks for gauges are called on the scraper's thread, one at a time, and must not block for long; a callback
// of a queue or topic is not running any more, and never again, when the handle's destructor returns.
class Metrics {
 public:
  virtual ~Metrics() = default;

  // `name` is the full name. Asking twice for one name is allowed: both handles count into the same series, and the
  // gauges are added up.
  virtual std::unique_ptr<QueueMetrics> ForQueue(std::string_view name, std::function<QueueGauges()> gauges) = 0;
  virtual std::unique_ptr<TopicMetrics> ForTopic(std::string_view name, std::function<TopicGauges()> gauges) = 0;
  // The method's series exist, at 0, from this call on.
  virtual MethodMetrics& ForMethod(const MethodName& method) = 0;
  virtual LogMetrics& logs() = 0;
  virtual OwnershipMetrics& ownership() = 0;
  virtual RelayMetrics& relays() = 0;
  virtual ZookeeperMetrics& zookeeper() = 0;
  // In these three, the callback is dropped by an empty one, and is not running any more when the call returns.
  virtual void SetZookeeperGauges(std::function<ZookeeperGauges()> gauges) = 0;
  virtual void SetClusterGauges(std::function<ClusterGauges()> gauges) = 0;
  virtual void SetReplicaGauges(std::function<ReplicaGauges()> gauges) = 0;
};

// Counts nothing; for tests, and for a server that is asked to have no metrics.
std::unique_ptr<Metrics> MakeNullMetrics();

}  // namespace postkeeper

#endif  // POSTKEEPER_METRICS_METRICS_H_
