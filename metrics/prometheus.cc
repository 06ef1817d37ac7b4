#include "metrics/prometheus.h"

#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/exposer.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "metrics/listen_address.h"
#include "metrics/prometheus_process.h"
#include "metrics/prometheus_series.h"

namespace postkeeper {
namespace {

using prometheus::Counter;
using prometheus::Histogram;
using prometheus::Labels;
using CounterFamily = prometheus::Family<Counter>;
using HistogramFamily = prometheus::Family<Histogram>;
using Buckets = Histogram::BucketBoundaries;

double Seconds(std::chrono::nanoseconds time) { return std::chrono::duration<double>(time).count(); }

Buckets CallSeconds() { return {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30, 60}; }
Buckets TakeOverSeconds() { return {0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60, 300}; }
Buckets BatchMessages() { return {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4096}; }
Buckets BatchBytes() { return {256, 1024, 4096, 16384, 65536, 131072, 262144, 524288, 1048576}; }

// The names that the Go, Java and Python libraries for these metrics agree on, by number.
constexpr std::array<const char*, 17> kGrpcCodes = {
    "OK",       "Canceled",       "Unknown",          "InvalidArgument",   "DeadlineExceeded",
    "NotFound", "AlreadyExists",  "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
    "Aborted",  "OutOfRange",     "Unimplemented",    "Internal",          "Unavailable",
    "DataLoss", "Unauthenticated"};
constexpr std::size_t kGrpcUnknown = 2;

// One value that is read when somebody scrapes.
template <typename Gauges>
struct GaugeColumn {
  const char* name;
  const char* help;
  const char* label;  // of the second label, or nullptr
  const char* label_value;
  double (*read)(const Gauges&);
};

constexpr GaugeColumn<QueueGauges> kQueueColumns[] = {
    {"postkeeper_queue_messages", "Messages in the queue, by state.", "state", "ready",
     [](const QueueGauges& g) { return static_cast<double>(g.ready); }},
    {"postkeeper_queue_messages", "Messages in the queue, by state.", "state", "delayed",
     [](const QueueGauges& g) { return static_cast<double>(g.delayed); }},
    {"postkeeper_queue_messages", "Messages in the queue, by state.", "state", "leased",
     [](const QueueGauges& g) { return static_cast<double>(g.leased); }},
    {"postkeeper_queue_bytes", "Bytes of all messages in the queue.", nullptr, nullptr,
     [](const QueueGauges& g) { return static_cast<double>(g.bytes); }},
    {"postkeeper_queue_consumers", "Consume streams open and Dequeue calls waiting.", nullptr, nullptr,
     [](const QueueGauges& g) { return static_cast<double>(g.consumers); }},
    {"postkeeper_queue_consumers_with_credit", "Of the consumers, those that would get the next message.", nullptr,
     nullptr, [](const QueueGauges& g) { return static_cast<double>(g.consumers_with_credit); }},
    {"postkeeper_queue_oldest_age_seconds", "Age of the oldest message that is not settled; 0 = there is none.",
     nullptr, nullptr, [](const QueueGauges& g) { return Seconds(g.oldest_age); }},
};

constexpr GaugeColumn<TopicGauges> kTopicColumns[] = {
    {"postkeeper_topic_messages", "Messages kept in the topic.", nullptr, nullptr,
     [](const TopicGauges& g) { return static_cast<double>(g.messages); }},
    {"postkeeper_topic_bytes", "Bytes of all messages kept in the topic.", nullptr, nullptr,
     [](const TopicGauges& g) { return static_cast<double>(g.bytes); }},
    {"postkeeper_topic_subscribers", "Subscribe streams open.", nullptr, nullptr,
     [](const TopicGauges& g) { return static_cast<double>(g.subscribers); }},
    {"postkeeper_topic_subscribers_behind", "Of the subscribers, those that have not taken all there is.", nullptr,
     nullptr, [](const TopicGauges& g) { return static_cast<double>(g.subscribers_behind); }},
};

// Of one thing that has no labels but, perhaps, one.
constexpr GaugeColumn<ZookeeperGauges> kZookeeperColumns[] = {
    {"postkeeper_zookeeper_connected", "1 = there is a session with ZooKeeper and a connection for it, else 0.",
     nullptr, nullptr, [](const ZookeeperGauges& g) { return g.is_connected ? 1.0 : 0.0; }},
    {"postkeeper_zookeeper_requests_in_flight", "Requests sent and not yet answered.", nullptr, nullptr,
     [](const ZookeeperGauges& g) { return static_cast<double>(g.requests_in_flight); }},
    {"postkeeper_zookeeper_watches", "Watches set that have not fired.", nullptr, nullptr,
     [](const ZookeeperGauges& g) { return static_cast<double>(g.watches); }},
    {"postkeeper_zookeeper_watched_path_bytes", "Bytes of the paths of all watches.", nullptr, nullptr,
     [](const ZookeeperGauges& g) { return static_cast<double>(g.watched_path_bytes); }},
};

constexpr GaugeColumn<ClusterGauges> kClusterColumns[] = {
    {"postkeeper_replicas", "Replicas registered, this one among them, as last seen by this one.", nullptr, nullptr,
     [](const ClusterGauges& g) { return static_cast<double>(g.replicas); }},
    {"postkeeper_unreachable_replicas", "Replicas registered that this one has no connection to.", nullptr, nullptr,
     [](const ClusterGauges& g) { return static_cast<double>(g.unreachable_replicas); }},
};

constexpr GaugeColumn<ReplicaGauges> kReplicaColumns[] = {
    {"postkeeper_logs", "Queues and topics that this replica knows of.", "kind", "queue",
     [](const ReplicaGauges& g) { return static_cast<double>(g.queues); }},
    {"postkeeper_logs", "Queues and topics that this replica knows of.", "kind", "topic",
     [](const ReplicaGauges& g) { return static_cast<double>(g.topics); }},
    {"postkeeper_logs_owned", "Queues and topics that this replica works for.", "kind", "queue",
     [](const ReplicaGauges& g) { return static_cast<double>(g.queues_owned); }},
    {"postkeeper_logs_owned", "Queues and topics that this replica works for.", "kind", "topic",
     [](const ReplicaGauges& g) { return static_cast<double>(g.topics_owned); }},
    {"postkeeper_logs_polling", "Logs looked at from time to time, since there is no room for a watch.", nullptr,
     nullptr, [](const ReplicaGauges& g) { return static_cast<double>(g.polling_logs); }},
    {"postkeeper_stored_bytes", "Bytes of the messages that this replica works for, about.", nullptr, nullptr,
     [](const ReplicaGauges& g) { return static_cast<double>(g.stored_bytes); }},
    {"postkeeper_corruptions_total", "Damaged or missing batches met.", nullptr, nullptr,
     [](const ReplicaGauges& g) { return static_cast<double>(g.corruptions); }},
};

class PrometheusQueueMetrics : public QueueMetrics {
 public:
  PrometheusQueueMetrics(Room<QueueFamilies>& room, std::string_view name, std::function<QueueGauges()> gauges)
      : room_(room), ticket_(room.Enter(name, std::move(gauges))), series_(*ticket_.entry->series) {}
  ~PrometheusQueueMetrics() override { room_.Leave(ticket_); }

  void Enqueued(std::int64_t messages, std::int64_t bytes) override {
    series_.enqueued_messages.Increment(static_cast<double>(messages));
    series_.enqueued_bytes.Increment(static_cast<double>(bytes));
  }
  void Delivered(std::int64_t first, std::int64_t redelivered) override {
    series_.delivered.Increment(static_cast<double>(first + redelivered));
    series_.redelivered.Increment(static_cast<double>(redelivered));
  }
  void Acked(std::int64_t messages) override { series_.acked.Increment(static_cast<double>(messages)); }
  void Nacked(NackedAs kind, std::int64_t messages) override {
    Counter& nacked = kind == NackedAs::kRetry ? series_.nacked_retry : series_.nacked_release;
    nacked.Increment(static_cast<double>(messages));
  }
  void Lapsed(std::int64_t messages) override { series_.lapsed.Increment(static_cast<double>(messages)); }
  void Purged(std::int64_t messages) override { series_.purged.Increment(static_cast<double>(messages)); }
  void Deleted(std::int64_t messages) override { series_.deleted.Increment(static_cast<double>(messages)); }
  void TimeInQueue(std::chrono::nanoseconds time) override { series_.time_in_queue.Observe(Seconds(time)); }

 private:
  Room<QueueFamilies>& room_;
  const Room<QueueFamilies>::Ticket ticket_;
  QueueSeries& series_;
};

class PrometheusTopicMetrics : public TopicMetrics {
 public:
  PrometheusTopicMetrics(Room<TopicFamilies>& room, std::string_view name, std::function<TopicGauges()> gauges)
      : room_(room), ticket_(room.Enter(name, std::move(gauges))), series_(*ticket_.entry->series) {}
  ~PrometheusTopicMetrics() override { room_.Leave(ticket_); }

  void Published(std::int64_t messages, std::int64_t bytes) override {
    series_.published_messages.Increment(static_cast<double>(messages));
    series_.published_bytes.Increment(static_cast<double>(bytes));
  }
  void Delivered(std::int64_t messages, std::chrono::nanoseconds age) override {
    series_.delivered.Increment(static_cast<double>(messages));
    series_.delivery_age.Observe(Seconds(age));
  }
  void Trimmed(std::int64_t messages) override { series_.trimmed.Increment(static_cast<double>(messages)); }
  void Deleted(std::int64_t messages) override { series_.deleted.Increment(static_cast<double>(messages)); }

 private:
  Room<TopicFamilies>& room_;
  const Room<TopicFamilies>::Ticket ticket_;
  TopicSeries& series_;
};

class PrometheusLogMetrics : public LogMetrics {
 public:
  explicit PrometheusLogMetrics(prometheus::Registry& r)
      : messages_(
            Distribution(r, "postkeeper_batch_messages", "Messages in one batch written.").Add({}, BatchMessages())),
        bytes_(Distribution(r, "postkeeper_batch_bytes", "Bytes of one batch written.").Add({}, BatchBytes())) {}
  void BatchWritten(std::int64_t messages, std::int64_t bytes) override {
    messages_.Observe(static_cast<double>(messages));
    bytes_.Observe(static_cast<double>(bytes));
  }

 private:
  Histogram& messages_;
  Histogram& bytes_;
};

class PrometheusOwnershipMetrics : public OwnershipMetrics {
 public:
  explicit PrometheusOwnershipMetrics(prometheus::Registry& r)
      : loading_(Distribution(r, "postkeeper_log_loading_seconds", "From becoming the owner of a log to serving it.")
                     .Add({}, TakeOverSeconds())),
        ownerless_(Distribution(r, "postkeeper_log_ownerless_seconds",
                                "From when this replica saw that a log had lost its owner to serving it.")
                       .Add({}, TakeOverSeconds())) {
    CounterFamily& changes = Count(r, "postkeeper_log_ownership_changes_total",
                                   "Logs that this replica has taken, taken again, handed over, or lost.");
    taken_ = &changes.Add({{"change", "taken"}});
    retaken_ = &changes.Add({{"change", "retaken"}});
    handed_over_ = &changes.Add({{"change", "handed_over"}});
    lost_ = &changes.Add({{"change", "lost"}});
  }

  void Taken(std::chrono::nanoseconds loading, std::optional<std::chrono::nanoseconds> ownerless) override {
    taken_->Increment();
    loading_.Observe(Seconds(loading));
    if (ownerless) ownerless_.Observe(Seconds(*ownerless));
  }
  void Retaken() override { retaken_->Increment(); }
  void HandedOver() override { handed_over_->Increment(); }
  void Lost() override { lost_->Increment(); }

 private:
  Histogram& loading_;
  Histogram& ownerless_;
  Counter* taken_;
  Counter* retaken_;
  Counter* handed_over_;
  Counter* lost_;
};

class PrometheusRelayMetrics : public RelayMetrics {
 public:
  explicit PrometheusRelayMetrics(prometheus::Registry& r)
      : calls_(Results(Count(r, "postkeeper_relayed_calls_total",
                             "Calls passed on to the replica that works for their log, by result."))),
        streams_(Results(Count(r, "postkeeper_relayed_streams_total",
                               "Streams passed on to the replica that works for their log, by how they ended."))) {}

  void CallRelayed(RelayResult result) override { calls_[static_cast<std::size_t>(result)]->Increment(); }
  void StreamRelayed(RelayResult result) override { streams_[static_cast<std::size_t>(result)]->Increment(); }

 private:
  using ByResult = std::array<Counter*, 3>;
  static ByResult Results(CounterFamily& family) {
    return {&family.Add({{"result", "answered"}}), &family.Add({{"result", "broken"}}),
            &family.Add({{"result", "no_owner"}})};
  }

  const ByResult calls_;
  const ByResult streams_;
};

class PrometheusZookeeperMetrics : public ZookeeperMetrics {
 public:
  explicit PrometheusZookeeperMetrics(prometheus::Registry& r)
      : requests_(Count(r, "postkeeper_zookeeper_requests_total", "Requests to ZooKeeper that ended, by result.")),
        seconds_(Distribution(r, "postkeeper_zookeeper_request_seconds", "Time from request to reply.")),
        expirations_(
            Count(r, "postkeeper_zookeeper_session_expirations_total", "Sessions that ZooKeeper declared expired.")
                .Add({})) {}

  void Requested(std::string_view operation, std::string_view code, std::chrono::nanoseconds time) override {
    const Series series = SeriesOf(operation, code);
    series.requests->Increment();
    series.seconds->Observe(Seconds(time));
  }
  void SessionExpired() override { expirations_.Increment(); }

 private:
  struct Series {
    Counter* requests;
    Histogram* seconds;
  };
  // ZooKeeper has some ten operations and twenty codes.
  static constexpr std::size_t kSeriesMax = 512;

  Series SeriesOf(std::string_view operation, std::string_view code) {
    const std::lock_guard lock(mutex_);
    const auto codes = series_.find(operation);
    if (codes != series_.end()) {
      const auto known = codes->second.find(code);
      if (known != codes->second.end()) return known->second;
    }
    const bool has_room = series_count_ < kSeriesMax;
    const std::string op(has_room ? operation : kOther);
    const std::string result(has_room ? code : kOther);
    Counter& requests = requests_.Add({{"operation", op}, {"code", result}});
    const Series made{&requests, &seconds_.Add({{"operation", op}}, CallSeconds())};
    if (has_room && series_[op].emplace(result, made).second) ++series_count_;
    return made;
  }

  CounterFamily& requests_;
  HistogramFamily& seconds_;
  Counter& expirations_;
  std::mutex mutex_;
  // Guarded by mutex_.
  std::map<std::string, std::map<std::string, Series, std::less<>>, std::less<>> series_;  // by operation, by code
  std::size_t series_count_ = 0;
};

using GaugeFamily = prometheus::Family<prometheus::Gauge>;

struct MethodFamilies {
  explicit MethodFamilies(prometheus::Registry& r)
      : started(Count(r, "grpc_server_started_total", "Total number of RPCs started on the server.")),
        handled(Count(r, "grpc_server_handled_total",
                      "Total number of RPCs completed on the server, regardless of success or failure.")),
        received(Count(r, "grpc_server_msg_received_total", "Total number of RPC messages received on the server.")),
        sent(Count(r, "grpc_server_msg_sent_total", "Total number of RPC messages sent by the server.")),
        seconds(
            Distribution(r, "grpc_server_handling_seconds", "Time from the start of an RPC to its end on the server.")),
        in_progress(prometheus::BuildGauge()
                        .Name("postkeeper_calls_in_progress")
                        .Help("Calls that are being served and streams that are open.")
                        .Register(r)) {}

  CounterFamily& started;
  CounterFamily& handled;
  CounterFamily& received;
  CounterFamily& sent;
  HistogramFamily& seconds;
  GaugeFamily& in_progress;
};

class PrometheusMethodMetrics : public MethodMetrics {
 public:
  PrometheusMethodMetrics(MethodFamilies& families, const MethodName& method) {
    const Labels labels = {
        {"grpc_type", method.type}, {"grpc_service", method.service}, {"grpc_method", method.method}};
    started_ = &families.started.Add(labels);
    received_ = &families.received.Add(labels);
    sent_ = &families.sent.Add(labels);
    seconds_ = &families.seconds.Add(labels, CallSeconds());
    in_progress_ = &families.in_progress.Add(labels);
    for (std::size_t code = 0; code < kGrpcCodes.size(); ++code) {
      Labels with_code = labels;
      with_code["grpc_code"] = kGrpcCodes[code];
      handled_[code] = &families.handled.Add(with_code);
    }
  }

  void Started() override {
    started_->Increment();
    in_progress_->Increment();
  }
  void Handled(int grpc_code, std::chrono::nanoseconds time) override {
    const bool is_known = grpc_code >= 0 && static_cast<std::size_t>(grpc_code) < kGrpcCodes.size();
    handled_[is_known ? static_cast<std::size_t>(grpc_code) : kGrpcUnknown]->Increment();
    seconds_->Observe(Seconds(time));
    in_progress_->Decrement();
  }
  void MessageReceived() override { received_->Increment(); }
  void MessageSent() override { sent_->Increment(); }

 private:
  Counter* started_;
  Counter* received_;
  Counter* sent_;
  Histogram* seconds_;
  prometheus::Gauge* in_progress_;
  std::array<Counter*, kGrpcCodes.size()> handled_;
};

template <typename Families, typename Columns>
void CollectRoom(const Room<Families>& room, const Columns& columns, std::vector<prometheus::MetricFamily>& families) {
  const auto gauges = room.Read();
  for (const auto& column : columns) {
    if (families.empty() || families.back().name != column.name) {
      families.push_back({column.name, column.help, prometheus::MetricType::Gauge, {}});
    }
    for (const auto& [label, values] : gauges) {
      prometheus::ClientMetric metric;
      metric.label.push_back({Families::kLabel, label});
      if (column.label != nullptr) metric.label.push_back({column.label, column.label_value});
      metric.gauge.value = column.read(values);
      families.back().metric.push_back(std::move(metric));
    }
  }
  std::erase_if(families, [](const prometheus::MetricFamily& family) { return family.metric.empty(); });
}

// The same for one thing.
template <typename Gauges, typename Columns>
void CollectOne(const std::function<Gauges()>& read, const Columns& columns,
                std::vector<prometheus::MetricFamily>& families) {
  if (!read) return;
  const Gauges gauges = read();
  for (const auto& column : columns) {
    const bool is_counter = std::string_view(column.name).ends_with("_total");
    if (families.empty() || families.back().name != column.name) {
      families.push_back(
          {column.name, column.help, is_counter ? prometheus::MetricType::Counter : prometheus::MetricType::Gauge, {}});
    }
    prometheus::ClientMetric metric;
    if (column.label != nullptr) metric.label.push_back({column.label, column.label_value});
    (is_counter ? metric.counter.value : metric.gauge.value) = column.read(gauges);
    families.back().metric.push_back(std::move(metric));
  }
}

class Impl : public PrometheusMetrics, private prometheus::Collectable {
 public:
  explicit Impl(const PrometheusOptions& options)
      : registry_(std::make_shared<prometheus::Registry>()),
        queues_(*registry_, options.queues_max),
        topics_(*registry_, options.queues_max),
        logs_(*registry_),
        ownership_(*registry_),
        relays_(*registry_),
        zookeeper_(*registry_),
        methods_(*registry_) {
    prometheus::BuildGauge()
        .Name("postkeeper_build_info")
        .Help("Always 1; the labels say which build this is.")
        .Register(*registry_)
        .Add({{"version", options.version}, {"store_format", absl::StrCat(options.store_format)}})
        .Set(1);
    GaugeFamily& limits = prometheus::BuildGauge()
                              .Name("postkeeper_limit")
                              .Help("What this replica allows at most; GetServerInfo tells the same.")
                              .Register(*registry_);
    for (const auto& [limit, value] : options.limits) limits.Add({{"limit", limit}}).Set(static_cast<double>(value));
  }
  ~Impl() override { exposer_.reset(); }

  std::unique_ptr<QueueMetrics> ForQueue(std::string_view name, std::function<QueueGauges()> gauges) override {
    return std::make_unique<PrometheusQueueMetrics>(queues_, name, std::move(gauges));
  }
  std::unique_ptr<TopicMetrics> ForTopic(std::string_view name, std::function<TopicGauges()> gauges) override {
    return std::make_unique<PrometheusTopicMetrics>(topics_, name, std::move(gauges));
  }
  MethodMetrics& ForMethod(const MethodName& method) override {
    const std::lock_guard lock(mutex_);
    std::unique_ptr<PrometheusMethodMetrics>& known = method_metrics_[{method.service, method.method}];
    if (known == nullptr) known = std::make_unique<PrometheusMethodMetrics>(methods_, method);
    return *known;
  }
  LogMetrics& logs() override { return logs_; }
  OwnershipMetrics& ownership() override { return ownership_; }
  RelayMetrics& relays() override { return relays_; }
  ZookeeperMetrics& zookeeper() override { return zookeeper_; }
  void SetZookeeperGauges(std::function<ZookeeperGauges()> gauges) override {
    const std::lock_guard lock(mutex_);
    zookeeper_gauges_ = std::move(gauges);
  }
  void SetClusterGauges(std::function<ClusterGauges()> gauges) override {
    const std::lock_guard lock(mutex_);
    cluster_gauges_ = std::move(gauges);
  }
  void SetReplicaGauges(std::function<ReplicaGauges()> gauges) override {
    const std::lock_guard lock(mutex_);
    replica_gauges_ = std::move(gauges);
  }

  absl::Status Listen(std::string_view address) override;
  int port() const override { return exposer_ == nullptr ? 0 : exposer_->GetListeningPorts().front(); }

  std::string Dump() const override {
    std::ostringstream out;
    prometheus::TextSerializer().Serialize(out, Collect());
    return out.str();
  }

 private:
  std::vector<prometheus::MetricFamily> Collect() const override {
    std::vector<prometheus::MetricFamily> families = registry_->Collect();
    // A family without a series would be a heading over nothing.
    std::erase_if(families, [](const prometheus::MetricFamily& family) { return family.metric.empty(); });
    CollectRoom(queues_, kQueueColumns, families);
    CollectRoom(topics_, kTopicColumns, families);
    const std::lock_guard lock(mutex_);
    CollectOne(zookeeper_gauges_, kZookeeperColumns, families);
    CollectOne(cluster_gauges_, kClusterColumns, families);
    CollectOne(replica_gauges_, kReplicaColumns, families);
    CollectProcess(families);
    return families;
  }

  // Constant after construction.
  const std::shared_ptr<prometheus::Registry> registry_;
  Room<QueueFamilies> queues_;
  Room<TopicFamilies> topics_;
  PrometheusLogMetrics logs_;
  PrometheusOwnershipMetrics ownership_;
  PrometheusRelayMetrics relays_;
  PrometheusZookeeperMetrics zookeeper_;
  MethodFamilies methods_;

  mutable std::mutex mutex_;
  // Guarded by mutex_.
  std::map<std::pair<std::string, std::string>, std::unique_ptr<PrometheusMethodMetrics>> method_metrics_;
  std::function<ZookeeperGauges()> zookeeper_gauges_;
  std::function<ClusterGauges()> cluster_gauges_;
  std::function<ReplicaGauges()> replica_gauges_;

  // Set by Listen.
  std::shared_ptr<prometheus::Collectable> collectable_;
  std::unique_ptr<prometheus::Exposer> exposer_;
};

absl::Status Impl::Listen(std::string_view address) {
  ListenAddress listen;
  if (absl::Status status = ParseListenAddress(address, &listen); !status.ok()) return status;
  if (absl::Status status = CheckCanListen(listen, "--metrics-listen"); !status.ok()) return status;
  // A scraper that hangs must not hold one of the two threads for ever.
  const std::vector<std::string> options = {"listening_ports",    listen.Text(), "num_threads", "2",
                                            "request_timeout_ms", "10000"};
  try {
    exposer_ = std::make_unique<prometheus::Exposer>(options);
  } catch (const std::exception& e) {
    return absl::UnavailableError(absl::StrCat("cannot serve metrics on ", listen.Text(), ": ", e.what(),
                                               ". Choose another address: --metrics-listen 127.0.0.1:7500"));
  }
  // The exposer holds what it collects weakly; this pointer owns nothing.
  collectable_ = std::shared_ptr<prometheus::Collectable>(static_cast<prometheus::Collectable*>(this),
                                                          [](prometheus::Collectable*) {});
  exposer_->RegisterCollectable(collectable_);
  return absl::OkStatus();
}

}  // namespace

std::unique_ptr<PrometheusMetrics> PrometheusMetrics::Make(const PrometheusOptions& options) {
  return std::make_unique<Impl>(options);
}

}  // namespace postkeeper
