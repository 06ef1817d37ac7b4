// Metrics for Prometheus, on a port of their own.
#ifndef POSTKEEPER_METRICS_PROMETHEUS_H_
#define POSTKEEPER_METRICS_PROMETHEUS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "metrics/metrics.h"

namespace postkeeper {

struct PrometheusOptions {
  // At most so many queues, and so many topics, have series of their own (--metrics-queues-max). What comes later is
  // summed under the name _other: a series costs memory here and, for weeks, in Prometheus.
  int queues_max = 1000;
  // Labels of postkeeper_build_info.
  std::string version;
  int store_format = 0;
  // The values of postkeeper_limit, by name.
  std::map<std::string, std::int64_t> limits = {};
};

// Counts in memory from its creation on; Listen makes it visible. Names begin with postkeeper_ (grpc_server_ for the
// gRPC ecosystem's standard ones), units are seconds and bytes.
class PrometheusMetrics : public Metrics {
 public:
  static std::unique_ptr<PrometheusMetrics> Make(const PrometheusOptions& options);

  // Serves GET /metrics on `address`, host:port with a numeric host or localhost; port 0 = any free one. Call once.
  // The error is one line that says what to do next.
  virtual absl::Status Listen(std::string_view address) = 0;
  // What is served on; 0 before Listen.
  virtual int port() const = 0;

  // What a scrape would get.
  virtual std::string Dump() const = 0;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_METRICS_PROMETHEUS_H_
