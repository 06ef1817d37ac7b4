// docs/METRICS.md, made from the code.
#ifndef POSTKEEPER_METRICS_REFERENCE_H_
#define POSTKEEPER_METRICS_REFERENCE_H_

#include <string>
#include <string_view>

#include "metrics/metrics.h"

namespace postkeeper {

// Uses every call of the interface once, for as long as it lives, so that every series is there. Only for the page and
// for tests.
class UseOfEverything {
 public:
  explicit UseOfEverything(Metrics& metrics);

 private:
  std::unique_ptr<QueueMetrics> queue_;
  std::unique_ptr<TopicMetrics> topic_;
};

// A table of all metrics in `dump`, what Prometheus reads: name, type, labels, help.
std::string MetricsTable(std::string_view dump);

// The whole page.
std::string MetricsMarkdown();

}  // namespace postkeeper

#endif  // POSTKEEPER_METRICS_REFERENCE_H_
