#include "bench/measure.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <sstream>
#include <thread>

#include "zkstore/text.h"

namespace postkeeper::bench {
namespace {

constexpr auto kPollInterval = std::chrono::milliseconds(5);

// Waits, but not longer than the load works; false if it has ended.
bool WaitFor(const Load& load, std::chrono::duration<double> time, std::int64_t count_max) {
  const Clock::time_point deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(time);
  const std::int64_t first = load.done();
  while (Clock::now() < deadline) {
    if (!load.status().ok()) return false;
    if (load.done() - first >= count_max) break;
    std::this_thread::sleep_for(std::min<Clock::duration>(kPollInterval, deadline - Clock::now()));
  }
  return load.status().ok();
}

absl::StatusOr<std::map<std::string, double>> CpuSecondsOf(const Processes& processes) {
  std::map<std::string, double> all;
  for (const auto& [role, process] : processes) {
    absl::StatusOr<double> seconds = CpuSeconds(process);
    if (!seconds.ok())
      return absl::Status(seconds.status().code(), Cat(role, ": ", StdView(seconds.status().message())));
    all[role] = *seconds;
  }
  return all;
}

}  // namespace

double Measured::LatencyMs(double quantile) const {
  if (latencies_ms.empty()) return 0;
  const auto last = static_cast<double>(latencies_ms.size() - 1);
  return latencies_ms[static_cast<std::size_t>(last * quantile + 0.5)];
}

std::map<std::string, double> Measured::CpuSecondsPerMillion() const {
  std::map<std::string, double> result;
  for (const auto& [role, used] : cpu_seconds) result[role] = count > 0 ? used * 1e6 / static_cast<double>(count) : 0;
  return result;
}

absl::StatusOr<Measured> Measure(Load& load, const Window& window, const Processes& processes,
                                 const std::function<void()>& at_begin, const std::function<void()>& at_end) {
  struct Stopper {
    Load& load;
    ~Stopper() { load.Stop(); }
  } stopper{load};
  if (absl::Status status = load.Start(); !status.ok()) return status;
  if (!WaitFor(load, window.warm_up, window.count_max)) return load.status();

  if (at_begin) at_begin();
  const auto cpu_before = CpuSecondsOf(processes);
  if (!cpu_before.ok()) return cpu_before.status();
  load.RecordLatencies();
  const std::int64_t first = load.done();
  const Clock::time_point began = Clock::now();
  if (!WaitFor(load, window.time, window.count_max)) return load.status();
  Measured measured;
  measured.count = load.done() - first;
  measured.seconds = std::chrono::duration<double>(Clock::now() - began).count();
  const std::vector<Clock::duration> latencies = load.TakeLatencies();
  const auto cpu_after = CpuSecondsOf(processes);
  if (!cpu_after.ok()) return cpu_after.status();
  if (at_end) at_end();
  load.Stop();
  if (!load.status().ok()) return load.status();
  if (measured.count == 0) return absl::DeadlineExceededError("nothing was answered in the whole time");

  for (const auto& [role, seconds] : *cpu_after) measured.cpu_seconds[role] = seconds - cpu_before->at(role);
  measured.latencies_ms.reserve(latencies.size());
  for (Clock::duration latency : latencies) {
    measured.latencies_ms.push_back(std::chrono::duration<double, std::milli>(latency).count());
  }
  std::sort(measured.latencies_ms.begin(), measured.latencies_ms.end());
  return measured;
}

absl::StatusOr<double> CpuSeconds(pid_t process) {
  std::ifstream file(Cat("/proc/", process, "/stat"));
  std::string line;
  if (!std::getline(file, line)) return absl::NotFoundError(Cat("there is no process ", process));
  // The name, in parentheses, may hold blanks and parentheses; behind it come state and numbers.
  const std::size_t name_end = line.rfind(')');
  if (name_end == std::string::npos) return absl::InternalError(Cat("/proc/", process, "/stat is not as expected"));
  std::istringstream rest(line.substr(name_end + 1));
  const std::vector<std::string> fields{std::istream_iterator<std::string>(rest), {}};
  constexpr std::size_t kUserTime = 11, kSystemTime = 12;  // proc(5): 14 and 15, counted from 1 with pid and name
  if (fields.size() <= kSystemTime) return absl::InternalError(Cat("/proc/", process, "/stat is not as expected"));
  return (std::stod(fields[kUserTime]) + std::stod(fields[kSystemTime])) / static_cast<double>(sysconf(_SC_CLK_TCK));
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const std::size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

}  // namespace postkeeper::bench
