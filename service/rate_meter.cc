#include "service/rate_meter.h"

#include <algorithm>

namespace postkeeper {
namespace {

std::int64_t SecondOf(Instant now) {
  return std::chrono::duration_cast<std::chrono::seconds>(now.time_since_epoch()).count();
}

}  // namespace

void RateMeter::Advance(std::int64_t second) {
  if (first_second_ < 0) {
    first_second_ = second;
    last_second_ = second;
  }
  const std::int64_t passed = std::min(second - last_second_, kBuckets);
  for (std::int64_t i = 1; i <= passed; ++i) {
    std::int64_t& bucket = buckets_[static_cast<std::size_t>((last_second_ + i) % kBuckets)];
    sum_ -= bucket;
    bucket = 0;
  }
  // After a longer pause all buckets are empty; the next one to use follows from the second alone.
  last_second_ = std::max(last_second_, second);
}

void RateMeter::Add(std::int64_t count, Instant now) {
  const std::int64_t second = SecondOf(now);
  Advance(second);
  buckets_[static_cast<std::size_t>(last_second_ % kBuckets)] += count;
  sum_ += count;
}

double RateMeter::PerSecond(Instant now) {
  if (first_second_ < 0) return 0;
  Advance(SecondOf(now));
  const std::int64_t seconds = std::clamp<std::int64_t>(last_second_ - first_second_ + 1, 1, kBuckets);
  return static_cast<double>(sum_) / static_cast<double>(seconds);
}

}  // namespace postkeeper
