#include "service/scaling.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"
#include "service/knobs.h"
#include "zkstore/errors.h"
#include "zkstore/text.h"

namespace postkeeper {
namespace {

constexpr std::string_view kQueue = "queue";
constexpr std::string_view kTaken = "FromEnv";
constexpr std::int64_t kMessagesMax = 1'000'000'000'000;
constexpr Duration kTimeMax = std::chrono::hours(24 * 365);

struct Measurable {
  std::string_view key;
  ScaleBy by;
  std::string_view metric_name;
  std::string_view rule;
};
constexpr Measurable kMeasurables[] = {
    {"readyMessages", ScaleBy::kReadyMessages, "postkeeper-ready-messages", "is to be a whole number from 1 on"},
    {"oldestAge", ScaleBy::kOldestAge, "postkeeper-oldest-age-seconds", "is to be a time such as 30s, 5m or 1h"},
    {"drainTime", ScaleBy::kDrainTime, "postkeeper-drain-time-seconds", "is to be a time such as 30s, 5m or 1h"},
};

double Seconds(Duration time) { return std::chrono::duration<double>(time).count(); }

absl::Status Wrong(std::string_view key, std::string_view rule) {
  const std::string field = Cat("scalerMetadata.", key);
  return MakeError(Reason::kInvalidField, Cat(field, " ", rule), {.field = field});
}

std::optional<double> ReadMessages(std::string_view text) {
  std::int64_t messages = 0;
  if (!absl::SimpleAtoi(AbslView(text), &messages) || messages < 1 || messages > kMessagesMax) return std::nullopt;
  return static_cast<double>(messages);
}

std::optional<double> ReadSeconds(std::string_view text) {
  const std::optional<Duration> time = ReadDuration(text);
  if (!time || *time <= Duration::zero() || *time > kTimeMax) return std::nullopt;
  return Seconds(*time);
}

// Ours, or empty.
absl::StatusOr<std::string> KnownKey(const std::string& key) {
  static const auto* const kKnown = new std::vector<std::string>{"queue", "readyMessages", "oldestAge", "drainTime"};
  std::string_view name = key;
  if (name.ends_with(kTaken)) name.remove_suffix(kTaken.size());
  if (std::find(kKnown->begin(), kKnown->end(), name) != kKnown->end()) return std::string(name);
  const std::string nearest = NearestName(name, *kKnown);
  if (nearest.empty()) return std::string();
  return Wrong(Printable(key, 100), Cat("is not known. Did you mean ", nearest, "?"));
}

}  // namespace

absl::StatusOr<ScaleTarget> ReadScaleTarget(const std::map<std::string, std::string>& metadata) {
  std::map<std::string, std::string> given;
  for (const auto& [key, value] : metadata) {
    absl::StatusOr<std::string> known = KnownKey(key);
    if (!known.ok()) return known.status();
    if (!known->empty() && !given.emplace(*known, value).second) return Wrong(*known, "is given twice");
  }
  const auto queue = given.find(std::string(kQueue));
  if (queue == given.end()) return Wrong(kQueue, "is missing: the name of the queue whose workers are scaled");
  ScaleTarget target;
  absl::StatusOr<Name> name = ParseQueueName(queue->second, Cat("scalerMetadata.", kQueue));
  if (!name.ok()) return name.status();
  target.queue = *std::move(name);
  const Measurable* measured = nullptr;
  for (const Measurable& measurable : kMeasurables) {
    const auto value = given.find(std::string(measurable.key));
    if (value == given.end()) continue;
    if (measured != nullptr) {
      return Wrong(measurable.key, Cat("cannot stand beside ", measured->key, ": one trigger measures one thing"));
    }
    measured = &measurable;
    const bool is_count = measurable.by == ScaleBy::kReadyMessages;
    const std::optional<double> number = is_count ? ReadMessages(value->second) : ReadSeconds(value->second);
    if (!number) return Wrong(measurable.key, Cat(measurable.rule, ", not '", Printable(value->second, 100), "'"));
    target.by = measurable.by;
    target.target = *number;
  }
  if (measured == nullptr) {
    return Wrong("readyMessages", "is missing: give one of readyMessages, oldestAge and drainTime");
  }
  return target;
}

std::string_view MetricNameOf(ScaleBy by) {
  for (const Measurable& measurable : kMeasurables) {
    if (measurable.by == by) return measurable.metric_name;
  }
  return "";
}

bool IsActive(const QueueEngine::Stats& stats) { return stats.counts.ready + stats.counts.leased > 0; }

double Measure(const ScaleTarget& target, const QueueEngine::Stats& stats) {
  const double oldest_age = Seconds(stats.oldest_age.value_or(Duration::zero()));
  const auto work = static_cast<double>(stats.counts.ready + stats.counts.leased);
  switch (target.by) {
    case ScaleBy::kReadyMessages:
      return static_cast<double>(stats.counts.ready);
    case ScaleBy::kOldestAge:
      // What waits for its time to come is no reason for another worker.
      return work > 0 ? oldest_age : 0;
    case ScaleBy::kDrainTime:
      if (work == 0) return 0;
      return stats.settle_rate > 0 ? work / stats.settle_rate : std::max(target.target, oldest_age);
  }
  return 0;
}

}  // namespace postkeeper
