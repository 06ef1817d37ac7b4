// What postkeeperd counts, read from its metrics page.
#ifndef POSTKEEPER_BENCH_METRICS_PAGE_H_
#define POSTKEEPER_BENCH_METRICS_PAGE_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace postkeeper::bench {

// The page at http://ADDRESS/metrics; ADDRESS is host:port, in numbers. At most 16 MiB, within five seconds.
absl::StatusOr<std::string> FetchMetricsPage(const std::string& address);

// The sum of the values of all samples of `name` whose labels contain `label` ('operation="multi"'; "" = all); 0 if
// there is none.
double SumOf(std::string_view page, std::string_view name, std::string_view label = {});

// How batches were written between two moments.
struct BatchCounts {
  double batches = 0;
  double messages = 0;
  double multi_seconds = 0;  // time between request and reply, of all multis together

  static BatchCounts Of(std::string_view page);
  double messages_per_batch() const { return batches > 0 ? messages / batches : 0; }

  friend BatchCounts operator-(const BatchCounts& a, const BatchCounts& b) {
    return {a.batches - b.batches, a.messages - b.messages, a.multi_seconds - b.multi_seconds};
  }
};

}  // namespace postkeeper::bench

#endif  // POSTKEEPER_BENCH_METRICS_PAGE_H_
