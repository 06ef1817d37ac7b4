// One way from a Consume stream to the replica that works for its queue.
#ifndef POSTKEEPER_SERVICE_CONSUME_LEG_H_
#define POSTKEEPER_SERVICE_CONSUME_LEG_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "service/queue_engine.h"
#include "service/validate.h"

namespace postkeeper {

// What the owner is to know of the stream.
struct LegOpening {
  CheckedOpen open;             // with the credit that is left
  std::vector<HeldLease> held;  // by the client; at most kHeldLeasesMax
  bool is_stopped = false;      // nothing is to be given out
};
// What automatic credit can hold at a time, and what goes into one frame.
inline constexpr std::size_t kHeldLeasesMax = kCreditMessagesMax;

struct EncodedDeliveries;

struct LegDeliveries {
  std::vector<Delivery> deliveries;                  // of the engine here, or
  std::shared_ptr<const EncodedDeliveries> encoded;  // as the owner has encoded them
  std::vector<HeldLease> leases;                     // of what is in it
  Duration lease{};                                  // from now on
};

// Carries what a stream does to the owner of its queue, and back what the owner has for it: an engine of this process
// (LocalLeg), or a stream to another replica (PeerLeg; the simulator has its own). Begins to work when it is made.
//
// Everything is on the strand of the queue's engine, the listener too; from within a function of the leg only
// on_deliveries is called. on_end comes once, last, and never after Close.
class ConsumeLeg {
 public:
  struct Listener {
    // The owner has accepted the stream; what is done to the leg before is an error of the caller.
    std::function<void(Duration lease)> on_opened;
    std::function<void(LegDeliveries)> on_deliveries;
    // In any order.
    std::function<void(std::int64_t sequence, std::vector<SettleFailure>)> on_settled;
    std::function<void(Dispatcher::Counts)> on_counts;
    // The owner is going away.
    std::function<void()> on_leaving;
    // OK: after Release.
    std::function<void(absl::Status)> on_end;
  };

  virtual ~ConsumeLeg() = default;
  virtual void Settle(std::int64_t sequence, const SettleOrders& orders) = 0;
  virtual void AddCredit(const CheckedCredit& credit) = 0;
  // No more deliveries.
  virtual void Stop() = 0;
  // on_counts follows soon, or comes now and then.
  virtual void AskCounts() = 0;
  // The client has gone in good order: what is left is released. Settles are answered still; then on_end.
  virtual void Release() = 0;
  // The listener is not called any more; leases live on.
  virtual void Close() = 0;
};

// The engine of this process.
std::shared_ptr<ConsumeLeg> MakeLocalLeg(std::shared_ptr<QueueEngine> engine, LegOpening opening,
                                         ConsumeLeg::Listener listener);

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_CONSUME_LEG_H_
