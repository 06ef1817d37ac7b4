#include "metrics/prometheus_process.h"

#include <sys/resource.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <system_error>

namespace postkeeper {
namespace {

// Fields of /proc/self/stat, counted from 0 behind the program's name, which may hold blanks and brackets.
constexpr int kUserTicks = 11;
constexpr int kSystemTicks = 12;
constexpr int kStartTicks = 19;
constexpr int kVirtualBytes = 20;
constexpr int kResidentPages = 21;

std::optional<std::vector<double>> ReadStat() {
  std::ifstream file("/proc/self/stat");
  std::string text;
  if (!std::getline(file, text)) return std::nullopt;
  const std::size_t name_end = text.rfind(')');
  if (name_end == std::string::npos) return std::nullopt;
  std::istringstream fields(text.substr(name_end + 1));
  std::vector<double> values;
  for (std::string field; fields >> field;) values.push_back(std::strtod(field.c_str(), nullptr));
  if (values.size() <= kResidentPages) return std::nullopt;
  return values;
}

// Seconds since 1970 at which the machine was started.
std::optional<double> BootTime() {
  std::ifstream file("/proc/stat");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("btime ")) return std::strtod(line.c_str() + 6, nullptr);
  }
  return std::nullopt;
}

std::optional<double> OpenFiles() {
  std::error_code error;
  std::int64_t files = -1;  // the one that reads the directory is not ours
  std::filesystem::directory_iterator entry("/proc/self/fd", error);
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) ++files;
  if (error) return std::nullopt;
  return static_cast<double>(files);
}

}  // namespace

void CollectProcess(std::vector<prometheus::MetricFamily>& families) {
  const auto add = [&](const char* name, const char* help, prometheus::MetricType type, double value) {
    prometheus::ClientMetric metric;
    if (type == prometheus::MetricType::Counter) {
      metric.counter.value = value;
    } else {
      metric.gauge.value = value;
    }
    families.push_back({name, help, type, {std::move(metric)}});
  };
  using Type = prometheus::MetricType;
  if (const std::optional<std::vector<double>> stat = ReadStat()) {
    const std::vector<double>& fields = *stat;
    const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
    add("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", Type::Counter,
        (fields[kUserTicks] + fields[kSystemTicks]) / ticks);
    add("process_resident_memory_bytes", "Resident memory size in bytes.", Type::Gauge,
        fields[kResidentPages] * static_cast<double>(sysconf(_SC_PAGESIZE)));
    add("process_virtual_memory_bytes", "Virtual memory size in bytes.", Type::Gauge, fields[kVirtualBytes]);
    if (const std::optional<double> boot = BootTime()) {
      add("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", Type::Gauge,
          *boot + fields[kStartTicks] / ticks);
    }
  }
  if (const std::optional<double> files = OpenFiles()) {
    add("process_open_fds", "Number of open file descriptors.", Type::Gauge, *files);
  }
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    add("process_max_fds", "Maximum number of open file descriptors.", Type::Gauge,
        static_cast<double>(limit.rlim_cur));
  }
}

}  // namespace postkeeper
