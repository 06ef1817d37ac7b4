#include "service/consume_outbox.h"

#include <grpcpp/support/slice.h>

#include <utility>

#include "service/relayed_consume.h"

namespace postkeeper {

void ConsumeOutbox::Add(const std::vector<Delivery>& deliveries, Duration lease, Instant now) {
  HasFrame(now);
  for (const Delivery& delivery : deliveries) {
    const bool continues = !frames_.empty() && !frames_.back().encoded && frames_.back().lease == lease &&
                           now - frames_.back().begun_at < kFrameSpanMax;
    if (continues && frames_.back().deliveries.Add(delivery, frame_bytes_max_)) continue;
    frames_.push_back({.deliveries = {}, .encoded = nullptr, .lease = lease, .begun_at = now});
    frames_.back().deliveries.Add(delivery, frame_bytes_max_);
  }
}

void ConsumeOutbox::Add(std::shared_ptr<const EncodedDeliveries> encoded, Duration lease, Instant now) {
  HasFrame(now);
  frames_.push_back({.deliveries = {}, .encoded = std::move(encoded), .lease = lease, .begun_at = now});
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
  const Duration left = is_as_it_was ? frame.lease : frame.lease - waited;
  if (!frame.encoded) return frame.deliveries.TakeConsumeResponse(left);
  return is_as_it_was ? frame.encoded->bytes : frame.encoded->WithLease(left);
}

}  // namespace postkeeper
