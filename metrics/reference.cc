#include "metrics/reference.h"

#include <cstring>
#include <map>
#include <set>
#include <sstream>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "metrics/prometheus.h"

namespace postkeeper {
namespace {

using std::chrono::milliseconds;

struct Family {
  std::string type;
  std::string help;
  std::set<std::string> labels;
};

// Of a histogram's samples, these endings are not part of the name, and this label is not one of ours.
constexpr const char* kHistogramEndings[] = {"_bucket", "_count", "_sum"};
constexpr char kBucketLabel[] = "le";

// `text` begins behind the name: {label="value",...} 1
std::set<std::string> LabelsOf(std::string_view text) {
  std::set<std::string> labels;
  std::string label;
  bool is_quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (is_quoted) {
      if (c == '\\') ++i;
      if (c == '"') is_quoted = false;
    } else if (c == '"') {
      is_quoted = true;
    } else if (c == '{' || c == ',') {
      label.clear();
    } else if (c == '=') {
      if (label != kBucketLabel) labels.insert(label);
    } else if (c == '}' || c == ' ') {
      break;
    } else {
      label += c;
    }
  }
  return labels;
}

std::map<std::string, Family> FamiliesIn(std::string_view dump) {
  std::map<std::string, Family> families;
  std::istringstream lines{std::string(dump)};
  for (std::string line; std::getline(lines, line);) {
    const std::vector<std::string> words = absl::StrSplit(line, absl::MaxSplits(' ', 3));
    if (words.size() == 4 && words[1] == "HELP") {
      families[words[2]].help = words[3];
    } else if (words.size() == 4 && words[1] == "TYPE") {
      families[words[2]].type = words[3];
    } else if (!line.empty() && line.front() != '#') {
      const std::size_t end = line.find_first_of("{ ");
      std::string name = line.substr(0, end);
      for (const char* ending : kHistogramEndings) {
        if (!families.contains(name) && absl::EndsWith(name, ending)) name.resize(name.size() - strlen(ending));
      }
      if (line[end] == '{') families[name].labels.merge(LabelsOf(std::string_view(line).substr(end)));
    }
  }
  return families;
}

constexpr std::string_view kBeforeTable =
    "# Metrics\n\n"
    "Made from the code by `./dev fix`. postkeeperd serves them for Prometheus at `/metrics` on its "
    "`--metrics-listen`.\n"
    "Units are seconds and bytes.\n\n"
    "Every replica has series of every queue and topic; the gauges of those that it does not work for are 0. So sum "
    "over\n"
    "the instances: `sum by (queue) (postkeeper_queue_messages)`. Of ages take the largest.\n\n"
    "Past `--metrics-queues-max` queues, and as many topics, further ones are summed under the name `_other`.\n\n"
    "Besides, `exposer_*` are of the server of this page itself, as the library prometheus-cpp counts its "
    "requests.\n\n";

}  // namespace

UseOfEverything::UseOfEverything(Metrics& metrics)
    : queue_(metrics.ForQueue("namespaces/default/queues/q",
                              [] {
                                return QueueGauges{.ready = 1,
                                                   .delayed = 2,
                                                   .leased = 3,
                                                   .bytes = 4,
                                                   .consumers = 5,
                                                   .consumers_with_credit = 6,
                                                   .oldest_age = milliseconds(1500)};
                              })),
      topic_(metrics.ForTopic("namespaces/default/topics/t", [] {
        return TopicGauges{.messages = 6, .bytes = 7, .subscribers = 8, .subscribers_behind = 9};
      })) {
  queue_->Enqueued(10, 1000);
  queue_->Delivered(5, 2);
  queue_->Acked(3);
  queue_->Nacked(NackedAs::kRetry, 1);
  queue_->Nacked(NackedAs::kRelease, 2);
  queue_->Lapsed(4);
  queue_->Purged(5);
  queue_->Deleted(6);
  queue_->TimeInQueue(milliseconds(1000));
  topic_->Published(11, 1100);
  topic_->Delivered(22, milliseconds(40));
  topic_->Trimmed(3);
  topic_->Deleted(4);
  metrics.logs().BatchWritten(100, 5000);
  metrics.ownership().Taken(milliseconds(20), milliseconds(30));
  metrics.ownership().Taken(milliseconds(20), std::nullopt);
  metrics.ownership().Retaken();
  metrics.ownership().HandedOver();
  metrics.ownership().Lost();
  metrics.relays().CallRelayed(RelayResult::kAnswered);
  metrics.relays().CallRelayed(RelayResult::kBroken);
  metrics.relays().StreamRelayed(RelayResult::kNoOwner);
  metrics.zookeeper().Requested("multi", "ok", milliseconds(2));
  metrics.zookeeper().Requested("multi", "connection_loss", milliseconds(3));
  metrics.zookeeper().SessionExpired();
  metrics.SetZookeeperGauges([] {
    return ZookeeperGauges{.is_connected = true, .requests_in_flight = 9, .watches = 11, .watched_path_bytes = 10};
  });
  metrics.SetClusterGauges([] { return ClusterGauges{.replicas = 3, .unreachable_replicas = 1}; });
  metrics.SetReplicaGauges([] {
    return ReplicaGauges{.queues = 12,
                         .topics = 13,
                         .queues_owned = 14,
                         .topics_owned = 15,
                         .polling_logs = 16,
                         .stored_bytes = 17,
                         .corruptions = 18};
  });
  MethodMetrics& method = metrics.ForMethod({"unary", "postkeeper.v1.MessageService", "Enqueue"});
  method.Started();
  method.Started();
  method.MessageReceived();
  method.MessageSent();
  method.Handled(14, milliseconds(7));
}

std::string MetricsTable(std::string_view dump) {
  std::string out = "| metric | type | labels | what it is |\n| --- | --- | --- | --- |\n";
  for (const auto& [name, family] : FamiliesIn(dump)) {
    absl::StrAppend(&out, "| `", name, "` | ", family.type, " | ", absl::StrJoin(family.labels, ", "), " | ",
                    family.help, " |\n");
  }
  return out;
}

std::string MetricsMarkdown() {
  const std::unique_ptr<PrometheusMetrics> metrics = PrometheusMetrics::Make({.limits = {{"calls", 1}}});
  const UseOfEverything everything(*metrics);
  return absl::StrCat(std::string(kBeforeTable), MetricsTable(metrics->Dump()));
}

}  // namespace postkeeper
