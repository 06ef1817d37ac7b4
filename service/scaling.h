// By what a queue's workers are scaled: what a trigger of KEDA asks for, and what a queue answers.
#ifndef POSTKEEPER_SERVICE_SCALING_H_
#define POSTKEEPER_SERVICE_SCALING_H_

#include <map>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "service/names.h"
#include "service/queue_engine.h"

namespace postkeeper {

// What is measured.
enum class ScaleBy {
  kReadyMessages,  // messages that wait for a worker
  kOldestAge,      // seconds since the oldest unsettled message was enqueued
  kDrainTime,      // seconds until everything ready or leased is settled, at the rate of the last minute
};

struct ScaleTarget {
  Name queue;
  ScaleBy by = ScaleBy::kReadyMessages;
  double target = 0;  // messages, or seconds; above 0
};

// Reads the metadata of a trigger. "queue" names the queue, and exactly one of "readyMessages" (a number), "oldestAge"
// and "drainTime" (500ms, 30s, 5m, 1h) gives the target; each may end in FromEnv, as KEDA leaves the names of values
// that it took from the environment. Other keys are KEDA's own, unless they look like a mistyped one of ours.
// INVALID_FIELD, INVALID_NAME.
absl::StatusOr<ScaleTarget> ReadScaleTarget(const std::map<std::string, std::string>& metadata);

// As KEDA is to call the metric.
std::string_view MetricNameOf(ScaleBy by);

// There is something that a worker could do, or is doing. Messages that are due later don't count.
bool IsActive(const QueueEngine::Stats& stats);

// The measure as it stands. Nothing can be said of the time to drain while nothing was settled for a minute: then the
// answer is the target, which leaves the number of workers as it is, or the age of the oldest message if that is more,
// so that workers who get nowhere are not left alone for ever.
double Measure(const ScaleTarget& target, const QueueEngine::Stats& stats);

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_SCALING_H_
