// The process metrics that Prometheus' client libraries agree on. Part of prometheus.cc; nobody else includes this.
#ifndef POSTKEEPER_METRICS_PROMETHEUS_PROCESS_H_
#define POSTKEEPER_METRICS_PROMETHEUS_PROCESS_H_

#include <prometheus/metric_family.h>

#include <vector>

namespace postkeeper {

// Adds what /proc says of this process. What cannot be read is left out.
void CollectProcess(std::vector<prometheus::MetricFamily>& families);

}  // namespace postkeeper

#endif  // POSTKEEPER_METRICS_PROMETHEUS_PROCESS_H_
