// The frames of a Consume stream between two replicas, where they are not those of the public API.
#ifndef POSTKEEPER_SERVICE_RELAYED_CONSUME_H_
#define POSTKEEPER_SERVICE_RELAYED_CONSUME_H_

#include <grpcpp/support/slice.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "postkeeper/v1/message.pb.h"
#include "service/consume_leg.h"

namespace grpc {
class Status;
}

namespace postkeeper {

// The first frame: `open` as of now, and behind it what the client holds.
grpc::Slice EncodeOpening(const LegOpening& opening);
// Takes out of a first frame what EncodeOpening put there beside the public fields. INVALID_FIELD: it is not as it
// would be. Anybody can send it; what is in it proves no more than its tokens.
absl::StatusOr<std::vector<HeldLease>> TakeHeldLeases(v1::ConsumeRequest& request);

// A frame that settles.
grpc::Slice EncodeOrders(std::int64_t sequence, const SettleOrders& orders);

// A frame of deliveries as the owner has sent it, to be passed on.
struct EncodedDeliveries {
  grpc::Slice bytes;
  // Where its lease_duration begins and ends, in `bytes`; the same if there is none.
  std::size_t lease_begin = 0;
  std::size_t lease_end = 0;
  // Of Deliveries, which are the last field of the frame, in `bytes`.
  std::size_t body_begin = 0;

  // With another lease.
  grpc::Slice WithLease(Duration lease) const;
};
// Whether a frame carries deliveries.
bool IsDeliveries(const grpc::Slice& frame);
// What is in such a frame; the messages are not looked at. MALFORMED_REQUEST.
absl::StatusOr<LegDeliveries> ScanDeliveries(grpc::Slice frame);

// What a peer says at the end of a stream, in our own words. NO_OWNER stands for all that says nothing of the stream.
absl::Status FromPeer(const grpc::Status& status);

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_RELAYED_CONSUME_H_
