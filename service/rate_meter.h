// How many per second, over the last minute.
#ifndef POSTKEEPER_SERVICE_RATE_METER_H_
#define POSTKEEPER_SERVICE_RATE_METER_H_

#include <array>
#include <cstdint>

#include "zkstore/environment.h"

namespace postkeeper {

// Counts in sixty buckets of a second. Not thread-safe.
class RateMeter {
 public:
  void Add(std::int64_t count, Instant now);
  // Mean of the last full minute, or of the time since the first count if that is shorter (at least a second).
  double PerSecond(Instant now);

 private:
  static constexpr std::int64_t kBuckets = 60;
  void Advance(std::int64_t second);

  std::array<std::int64_t, kBuckets> buckets_{};
  std::int64_t first_second_ = -1;
  std::int64_t last_second_ = 0;
  std::int64_t sum_ = 0;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_RATE_METER_H_
