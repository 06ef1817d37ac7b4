#include "bench/results.h"

#include <absl/strings/str_format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <optional>

#include "zkstore/text.h"

namespace postkeeper::bench {
namespace {

template <typename Item, typename Value>
double MedianOf(const std::vector<Item>& items, Value value) {
  std::vector<double> values;
  for (const Item& item : items) values.push_back(value(item));
  return Median(std::move(values));
}

// The median of the rounds' own ratios: what disturbs the machine disturbs neighbours alike.
double RatioMedian(const std::vector<double>& values, const std::vector<double>& ceilings) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < std::min(values.size(), ceilings.size()); ++i) {
    if (ceilings[i] > 0) ratios.push_back(values[i] / ceilings[i]);
  }
  return Median(std::move(ratios));
}

std::vector<double> Rates(const Series* series) {
  std::vector<double> rates;
  if (series == nullptr) return rates;
  for (const Measured& round : series->rounds) rates.push_back(round.per_second());
  return rates;
}

std::vector<double> LatenciesMs(const Series* series, double quantile) {
  std::vector<double> latencies;
  if (series == nullptr) return latencies;
  for (const Measured& round : series->rounds) latencies.push_back(round.LatencyMs(quantile));
  return latencies;
}

// "1,234,567".
std::string Grouped(double value) {
  std::string digits = absl::StrFormat("%.0f", value);
  for (std::size_t i = digits.size(); i > 3; i -= 3) digits.insert(i - 3, ",");
  return digits;
}

// One line of the table. Where there is no ceiling, ceiling and ratio are 0.
struct Row {
  std::string_view name;
  double value = 0;
  std::string_view unit;
  double ceiling = 0;
  std::string_view ceiling_name;
  double ratio = 0;
  std::string aim;
  std::optional<bool> is_met;
};

Row RateRow(const Results& results, std::string_view name, std::string_view unit, std::string_view ceiling_name) {
  Row row{.name = name, .unit = unit};
  row.value = results.Find(name)->RateMedian();
  const Series* ceiling = results.Find(ceiling_name);
  if (ceiling == nullptr) return row;
  row.ceiling = ceiling->RateMedian();
  row.ceiling_name = ceiling_name.substr(ceiling_name.find(':') + 2);
  row.ratio = RatioMedian(Rates(results.Find(name)), Rates(ceiling));
  return row;
}

// 0 = no such aim.
void SetAim(Row& row, double value_min, double ratio_min) {
  bool is_met = true;
  if (value_min > 0) {
    row.aim = Cat(">= ", Grouped(value_min), "/s");
    is_met = row.value >= value_min;
  }
  if (ratio_min > 0 && row.ceiling > 0) {
    row.aim += Cat(row.aim.empty() ? "" : " and ", ">= ", absl::StrFormat("%.1f", ratio_min));
    is_met = is_met && row.ratio >= ratio_min;
  }
  if (!row.aim.empty()) row.is_met = is_met;
}

Row ConfirmRow(const Results& results) {
  const Series& confirm = *results.Find(kConfirm);
  Row row{.name = kConfirm, .value = confirm.LatencyMedianMs(0.5), .unit = "ms, p50"};
  const std::vector<double> creates = LatenciesMs(results.Find(kConfirmCreate), 0.5);
  const std::vector<double> echoes = LatenciesMs(results.Find(kConfirmEcho), 0.5);
  if (creates.empty() || creates.size() != echoes.size()) return row;
  std::vector<double> sums;
  for (std::size_t i = 0; i < creates.size(); ++i) sums.push_back(creates[i] + echoes[i]);
  row.ceiling = Median(sums);
  row.ceiling_name = "raw create + echo";
  row.ratio = RatioMedian(LatenciesMs(&confirm, 0.5), sums);
  row.aim = "<= 1.4";
  row.is_met = row.ratio <= 1.4;
  return row;
}

std::vector<Row> MakeRows(const Results& results) {
  std::vector<Row> rows;
  if (results.Find(kEnqueue)) {
    rows.push_back(RateRow(results, kEnqueue, "messages/s", kEnqueueMulti));
    SetAim(rows.back(), 200'000, 0.5);
  }
  if (results.Find(kConsume)) {
    rows.push_back(RateRow(results, kConsume, "messages/s", kConsumeMulti));
    SetAim(rows.back(), 100'000, 0);
  }
  if (results.Find(kUnary)) {
    rows.push_back(RateRow(results, kUnary, "calls/s", kUnaryEcho));
    SetAim(rows.back(), 0, 0.5);
  }
  if (results.Find(kConfirm)) rows.push_back(ConfirmRow(results));
  if (results.Find(kSubscribe)) rows.push_back(RateRow(results, kSubscribe, "messages/s", "none: "));
  return rows;
}

bool IsLatency(const Row& row) { return row.unit.starts_with("ms"); }

std::string Shown(const Row& row, double value) {
  return IsLatency(row) ? absl::StrFormat("%.2f", value) : Grouped(value);
}

std::map<std::string, double> CpuPerMillionMedians(const Series& series) {
  std::map<std::string, std::vector<double>> by_process;
  for (const Measured& round : series.rounds) {
    for (const auto& [process, seconds] : round.CpuSecondsPerMillion()) by_process[process].push_back(seconds);
  }
  std::map<std::string, double> medians;
  for (auto& [process, seconds] : by_process) medians[process] = Median(std::move(seconds));
  return medians;
}

std::string CpuTable(const Results& results) {
  std::string text = "CPU seconds per million messages (or calls)\n";
  for (const Series& series : results.series) {
    text += absl::StrFormat("  %-38s", series.name);
    for (const auto& [process, seconds] : CpuPerMillionMedians(series)) {
      text += absl::StrFormat("  %s %.2f", process, seconds);
    }
    text += "\n";
  }
  return text;
}

double InFlightMean(const Measured& round, const BatchCounts& batches) {
  return round.seconds > 0 ? batches.multi_seconds / round.seconds : 0;
}

std::string BatchTable(const Results& results) {
  std::string text;
  for (const Series& series : results.series) {
    if (series.batches.empty()) continue;
    std::vector<double> in_flight;
    for (std::size_t i = 0; i < series.batches.size(); ++i) {
      in_flight.push_back(InFlightMean(series.rounds[i], series.batches[i]));
    }
    text += absl::StrFormat("  %-38s  %.1f messages in a batch, %.1f multis in flight\n", series.name,
                            MedianOf(series.batches, [](const BatchCounts& b) { return b.messages_per_batch(); }),
                            Median(in_flight));
  }
  return text.empty() ? "" : "What postkeeperd wrote\n" + text;
}

std::string JsonOfRound(const Series& series, std::size_t i) {
  const Measured& round = series.rounds[i];
  std::string text = absl::StrFormat(R"({"count": %d, "seconds": %.3f, "per_second": %.1f)", round.count, round.seconds,
                                     round.per_second());
  if (!round.latencies_ms.empty()) {
    text += absl::StrFormat(R"(, "p50_ms": %.4f, "p99_ms": %.4f)", round.LatencyMs(0.5), round.LatencyMs(0.99));
  }
  if (i < series.batches.size()) {
    text += absl::StrFormat(R"(, "messages_per_batch": %.1f, "multis_in_flight": %.2f)",
                            series.batches[i].messages_per_batch(), InFlightMean(round, series.batches[i]));
  }
  text += R"(, "cpu_seconds_per_million": {)";
  std::string_view separator;
  for (const auto& [process, seconds] : round.CpuSecondsPerMillion()) {
    text += absl::StrFormat(R"(%s"%s": %.3f)", AbslView(separator), process, seconds);
    separator = ", ";
  }
  return text + "}}";
}

std::string JsonOfRow(const Row& row) {
  std::string text = absl::StrFormat(R"({"name": "%s", "value": %.4f, "unit": "%s")", AbslView(row.name), row.value,
                                     AbslView(row.unit));
  if (row.ceiling > 0) {
    text += absl::StrFormat(R"(, "ceiling": %.4f, "ceiling_name": "%s", "ratio": %.4f)", row.ceiling,
                            AbslView(row.ceiling_name), row.ratio);
  }
  if (row.is_met) text += absl::StrFormat(R"(, "aim": "%s", "is_met": %s)", row.aim, *row.is_met ? "true" : "false");
  return text + "}";
}

}  // namespace

double Series::RateMedian() const {
  return MedianOf(rounds, [](const Measured& round) { return round.per_second(); });
}

double Series::LatencyMedianMs(double quantile) const {
  return MedianOf(rounds, [quantile](const Measured& round) { return round.LatencyMs(quantile); });
}

Series& Results::Of(std::string_view name) {
  for (Series& one : series) {
    if (one.name == name) return one;
  }
  return series.emplace_back(Series{.name = std::string(name)});
}

const Series* Results::Find(std::string_view name) const {
  for (const Series& one : series) {
    if (one.name == name) return &one;
  }
  return nullptr;
}

std::string ReportTable(const Results& results) {
  std::string text =
      absl::StrFormat("%-20s %12s %-11s %12s %-18s %6s  %s\n", "", "measured", "", "ceiling", "", "ratio", "aim");
  for (const Row& row : MakeRows(results)) {
    const bool has_ceiling = row.ceiling > 0;
    std::string line =
        absl::StrFormat("%-20s %12s %-11s %12s %-18s %6s  %s", AbslView(row.name), Shown(row, row.value),
                        AbslView(row.unit), has_ceiling ? Shown(row, row.ceiling) : "", AbslView(row.ceiling_name),
                        has_ceiling ? absl::StrFormat("%.2f", row.ratio) : "", row.aim);
    if (row.is_met) line += *row.is_met ? ": met" : ": MISSED";
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  if (const Series* confirm = results.Find(kConfirm)) {
    text += absl::StrFormat("\nconfirm p99: %.2f ms\n", confirm->LatencyMedianMs(0.99));
  }
  if (const Series* creates = results.Find(kCreates)) {
    text += Cat("one-message creates, as many at a time as a session takes: ", Grouped(creates->RateMedian()),
                " messages/s\n");
  }
  text += "\n" + CpuTable(results);
  if (const std::string batches = BatchTable(results); !batches.empty()) text += "\n" + batches;
  return text;
}

std::string ReportJson(const Results& results) {
  std::string text = "{\n  \"rows\": [\n";
  std::string_view separator = "    ";
  for (const Row& row : MakeRows(results)) {
    text += Cat(separator, JsonOfRow(row));
    separator = ",\n    ";
  }
  text += "\n  ],\n  \"rounds\": {\n";
  separator = "    ";
  for (const Series& series : results.series) {
    text += Cat(separator, "\"", series.name, "\": [");
    for (std::size_t i = 0; i < series.rounds.size(); ++i) text += Cat(i == 0 ? "" : ", ", JsonOfRound(series, i));
    text += "]";
    separator = ",\n    ";
  }
  return text + "\n  }\n}\n";
}

std::string ReportLines(const Results& results) {
  std::string text;
  for (const Row& row : MakeRows(results)) {
    if (!IsLatency(row)) text += Cat(row.name, ": ", Grouped(row.value), " ", row.unit, "\n");
  }
  if (const Series* confirm = results.Find(kConfirm)) {
    text += absl::StrFormat("confirm latency: p50 %.2f ms, p99 %.2f ms\n", confirm->LatencyMedianMs(0.5),
                            confirm->LatencyMedianMs(0.99));
  }
  return text;
}

}  // namespace postkeeper::bench
