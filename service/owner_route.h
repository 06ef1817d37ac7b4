// The way of a call to the replica that works for its log.
#ifndef POSTKEEPER_SERVICE_OWNER_ROUTE_H_
#define POSTKEEPER_SERVICE_OWNER_ROUTE_H_

#include <string>

#include "service/log_handle.h"
#include "zkstore/environment.h"
#include "zkstore/task.h"

namespace postkeeper {

// How one call or stream gets to another replica: over gRPC, or over the simulated network of the tests.
class PeerLink {
 public:
  enum class Outcome {
    kAnswered,
    kNotOwner,  // the peer does not own the log; it has done nothing
    kBroken,    // what was sent may have been carried out
  };

  virtual ~PeerLink() = default;
  // False: not connected in time, and nothing was sent.
  virtual Task<bool> Connect(std::string address) = 0;
  // Hands the whole call over to the replica to which Connect was just called.
  virtual Task<Outcome> Relay(std::string address) = 0;
  // Nobody waits for the answer any more.
  virtual bool IsOver() const { return false; }
};

struct OwnerRoute {
  enum class Kind {
    kHere,     // this replica works for the log, or nobody knows who does: carry the call out here
    kRelayed,  // another replica has answered, or goes on with it
    kBroken,   // OUTCOME_UNKNOWN
    kNowhere,  // `owner` was named and does not answer, or does not know of it: NO_OWNER
  };
  Kind kind = Kind::kHere;
  std::string owner;
};

// Waits until it is known who works for the log, and relays the call if that is another replica. A call makes one hop:
// one that `is_relayed` already is refused where the log is not, since two replicas that disagree about an owner would
// send it to and fro; the first one asks anew, for kOwnerPatience. Runs on the log's strand.
Task<OwnerRoute> RouteToOwner(Environment& environment, LogHandle log, bool is_relayed, PeerLink& link);

enum class AppendRoute {
  kHere,   // this replica appends, whoever owns the log
  kOwner,  // as RouteToOwner says
  kGone,   // the log was deleted: resolve its name again
};

// An append needs the owner of its log if it has an id of either kind, or if there is no room that does not have to be
// asked for (AppendRoom); one that another replica has sent here for that reason, too. Reads the head record, if it
// must. Runs on the log's strand.
Task<AppendRoute> RouteAppend(LogHandle log, AppendSize append, bool is_relayed);

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_OWNER_ROUTE_H_
