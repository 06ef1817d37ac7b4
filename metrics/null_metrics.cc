#include "metrics/metrics.h"

namespace postkeeper {
namespace {

class NullQueueMetrics : public QueueMetrics {
 public:
  void Enqueued(std::int64_t, std::int64_t) override {}
  void Delivered(std::int64_t, std::int64_t) override {}
  void Acked(std::int64_t) override {}
  void Nacked(NackedAs, std::int64_t) override {}
  void Lapsed(std::int64_t) override {}
  void Purged(std::int64_t) override {}
  void Deleted(std::int64_t) override {}
  void TimeInQueue(std::chrono::nanoseconds) override {}
};

class NullTopicMetrics : public TopicMetrics {
 public:
  void Published(std::int64_t, std::int64_t) override {}
  void Delivered(std::int64_t, std::chrono::nanoseconds) override {}
  void Trimmed(std::int64_t) override {}
  void Deleted(std::int64_t) override {}
};

class NullMetrics : public Metrics,
                    private MethodMetrics,
                    private LogMetrics,
                    private OwnershipMetrics,
                    private RelayMetrics,
                    private ZookeeperMetrics {
 public:
  std::unique_ptr<QueueMetrics> ForQueue(std::string_view, std::function<QueueGauges()>) override {
    return std::make_unique<NullQueueMetrics>();
  }
  std::unique_ptr<TopicMetrics> ForTopic(std::string_view, std::function<TopicGauges()>) override {
    return std::make_unique<NullTopicMetrics>();
  }
  MethodMetrics& ForMethod(const MethodName&) override { return *this; }
  LogMetrics& logs() override { return *this; }
  OwnershipMetrics& ownership() override { return *this; }
  RelayMetrics& relays() override { return *this; }
  ZookeeperMetrics& zookeeper() override { return *this; }
  void SetZookeeperGauges(std::function<ZookeeperGauges()>) override {}
  void SetClusterGauges(std::function<ClusterGauges()>) override {}
  void SetReplicaGauges(std::function<ReplicaGauges()>) override {}

 private:
  void Started() override {}
  void Handled(int, std::chrono::nanoseconds) override {}
  void MessageReceived() override {}
  void MessageSent() override {}
  void BatchWritten(std::int64_t, std::int64_t) override {}
  void Taken(std::chrono::nanoseconds, std::optional<std::chrono::nanoseconds>) override {}
  void Retaken() override {}
  void HandedOver() override {}
  void Lost() override {}
  void CallRelayed(RelayResult) override {}
  void StreamRelayed(RelayResult) override {}
  void Requested(std::string_view, std::string_view, std::chrono::nanoseconds) override {}
  void SessionExpired() override {}
};

}  // namespace

std::unique_ptr<Metrics> MakeNullMetrics() { return std::make_unique<NullMetrics>(); }

}  // namespace postkeeper
