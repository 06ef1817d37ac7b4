// Measuring one load for a while.
#ifndef POSTKEEPER_BENCH_MEASURE_H_
#define POSTKEEPER_BENCH_MEASURE_H_

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/load.h"

namespace postkeeper::bench {

// The processes whose CPU time is told, by their role: "postkeeperd", "ZooKeeper", "client" (this one) ...
using Processes = std::map<std::string, pid_t>;

struct Window {
  std::chrono::duration<double> warm_up{1};
  std::chrono::duration<double> time{5};
  std::int64_t count_max = 2'000'000;  // ends the window early, so that what is stored stays bounded
};

struct Measured {
  std::int64_t count = 0;
  double seconds = 0;
  std::vector<double> latencies_ms;           // sorted
  std::map<std::string, double> cpu_seconds;  // by process

  double per_second() const { return seconds > 0 ? static_cast<double>(count) / seconds : 0; }
  // 0 if nothing was recorded.
  double LatencyMs(double quantile) const;
  std::map<std::string, double> CpuSecondsPerMillion() const;
};

// Starts `load`, lets it warm up, counts for the window's time, and stops it. `at_begin` and `at_end` are called at the
// borders of the window; they read what others have counted. Fails if the load does, if nothing was answered, or if one
// of the processes is gone.
absl::StatusOr<Measured> Measure(Load& load, const Window& window, const Processes& processes,
                                 const std::function<void()>& at_begin = {}, const std::function<void()>& at_end = {});

// User and system time that a process has used, all threads together.
absl::StatusOr<double> CpuSeconds(pid_t process);

double Median(std::vector<double> values);

}  // namespace postkeeper::bench

#endif  // POSTKEEPER_BENCH_MEASURE_H_
