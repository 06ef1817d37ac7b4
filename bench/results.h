// What was measured, by name and round.
#ifndef POSTKEEPER_BENCH_RESULTS_H_
#define POSTKEEPER_BENCH_RESULTS_H_

#include <string>
#include <string_view>
#include <vector>

#include "bench/measure.h"
#include "bench/metrics_page.h"

namespace postkeeper::bench {

// The workloads, in the order in which they are run and shown.
inline constexpr char kEnqueue[] = "enqueue";
inline constexpr char kConsume[] = "enqueue+consume+ack";
inline constexpr char kUnary[] = "unary";
inline constexpr char kConfirm[] = "confirm";
inline constexpr char kSubscribe[] = "publish+subscribe";
inline constexpr const char* kWorkloads[] = {kEnqueue, kConsume, kUnary, kConfirm, kSubscribe};

// The ceilings, each measured directly behind the workload it belongs to.
inline constexpr char kEnqueueMulti[] = "enqueue: the same multi";
inline constexpr char kConsumeMulti[] = "enqueue+consume+ack: the same multi";
inline constexpr char kCreates[] = "one-message creates";
inline constexpr char kUnaryEcho[] = "unary: echo";
inline constexpr char kConfirmCreate[] = "confirm: raw create";
inline constexpr char kConfirmEcho[] = "confirm: echo";

struct Series {
  std::string name;
  std::vector<Measured> rounds;
  std::vector<BatchCounts> batches;  // what postkeeperd wrote in each round, where its metrics page was given

  double RateMedian() const;
  double LatencyMedianMs(double quantile) const;
};

struct Results {
  std::vector<Series> series;  // in the order of the first measurement

  Series& Of(std::string_view name);
  // Null if it was not measured.
  const Series* Find(std::string_view name) const;
};

// For people: a table with ratios and aims, CPU seconds per million, sizes of batches.
std::string ReportTable(const Results& results);
// For programs: the same and each round.
std::string ReportJson(const Results& results);
// One line for each workload.
std::string ReportLines(const Results& results);

}  // namespace postkeeper::bench

#endif  // POSTKEEPER_BENCH_RESULTS_H_
