// What a Consume stream has yet to send.
#ifndef POSTKEEPER_SERVICE_CONSUME_OUTBOX_H_
#define POSTKEEPER_SERVICE_CONSUME_OUTBOX_H_

#include <cstddef>
#include <deque>
#include <memory>
#include <vector>

#include "service/queue_engine.h"
#include "service/wire_codec.h"
#include "zkstore/environment.h"

namespace postkeeper {

struct EncodedDeliveries;

// Deliveries, encoded as they come, so that no batch is held in memory for a client that is slow. Those that come while
// a frame is on its way share the next one, up to the limit of a response.
//
// Bounded: the engine hands out no more than the credit, and gets credit back when a lease lapses; so a frame whose
// leases have lapsed before it could be sent is dropped. Its messages are somebody else's by then.
//
// Not thread-safe.
class ConsumeOutbox {
 public:
  // A frame is filled for so long at most, so that its leases end at about the same time.
  static constexpr Duration kFrameSpanMax = std::chrono::seconds(1);
  // What waited for less is sent with the lease as it was; else with what is left of it.
  static constexpr Duration kPromptWithin = std::chrono::milliseconds(100);

  // `keeps_leases`: the server extends the leases, so none lapses while the stream lives.
  ConsumeOutbox(std::size_t frame_bytes_max, bool keeps_leases)
      : frame_bytes_max_(frame_bytes_max), keeps_leases_(keeps_leases) {}

  void Add(const std::vector<Delivery>& deliveries, Duration lease, Instant now);
  // A frame that another replica has encoded; it is sent as one.
  void Add(std::shared_ptr<const EncodedDeliveries> encoded, Duration lease, Instant now);
  bool empty() const { return frames_.empty(); }
  // Drops what has lapsed at the front; true if something is left.
  bool HasFrame(Instant now);
  // Call HasFrame before.
  grpc::Slice TakeFrame(Instant now);
  void Clear() { frames_.clear(); }

 private:
  struct Frame {
    DeliveryEncoder deliveries;
    std::shared_ptr<const EncodedDeliveries> encoded;  // instead
    Duration lease{};
    Instant begun_at{};
  };

  const std::size_t frame_bytes_max_;
  const bool keeps_leases_;
  std::deque<Frame> frames_;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_CONSUME_OUTBOX_H_
