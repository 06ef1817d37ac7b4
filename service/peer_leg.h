// A leg of a Consume stream that leads to another replica.
#ifndef POSTKEEPER_SERVICE_PEER_LEG_H_
#define POSTKEEPER_SERVICE_PEER_LEG_H_

#include <chrono>
#include <memory>
#include <string>

#include "service/consume_leg.h"
#include "service/desk.h"

namespace postkeeper {

// Over gRPC. Connects, for a second at most, and opens a stream of its own at the owner, which knows by a header that
// it is relayed. What cannot be understood or reached ends it with NO_OWNER: nothing was settled for sure.
//
// The owner's frames are read as they come: credit bounds what is on its way. At most one frame is on its way to the
// owner; what waits behind it is bounded by what the session may leave unanswered.
std::shared_ptr<ConsumeLeg> MakePeerLeg(Desk& desk, asio::any_io_executor strand, std::string owner,
                                        std::chrono::system_clock::time_point deadline, const LegOpening& opening,
                                        ConsumeLeg::Listener listener);

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_PEER_LEG_H_
