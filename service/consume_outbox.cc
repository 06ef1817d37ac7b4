#include "service/consume_outbox.h"

#include <grpcpp/support/slice.h>

#include <utility>

namespace postkeeper {

void ConsumeOutbox::Add(const std::vector<Delivery>& deliveries, Duration lease, Instant now) {
  HasFrame(now);
  for (const Delivery& delivery : deliveries) {
    const bool continues =
        !frames_.empty() && frames_.back().lease == lease && now - frames_.back().begun_at < kFrameSpanMax;
    if (continues && frames_.back().deliveries.Add(delivery, frame_bytes_max_)) continue;
    frames_.push_back({.deliveries = {}, .lease = lease, .begun_at = now});
    frames_.back().deliveries.Add(delivery, frame_bytes_max_);
  }
}

bool ConsumeOutbox::HasFrame(Instant now) {
  if (!keeps_leases_) {
    while (!frames_.empty() && now - frames_.front().begun_at >= frames_.front().lease) frames_.pop_front();
  }
  return !frames_.empty();
}

grpc::Slice ConsumeOutbox::TakeFrame(Instant now) {
  Frame frame = std::move(frames_.front());
  frames_.pop_front();
  const Duration waited = now - frame.begun_at;
  const bool is_as_it_was = keeps_leases_ || waited < kPromptWithin;
  return frame.deliveries.TakeConsumeResponse(is_as_it_was ? frame.lease : frame.lease - waited);
}

}  // namespace postkeeper
