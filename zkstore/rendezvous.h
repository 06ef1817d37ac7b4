// Which replica should own a log, so that all replicas agree without asking one another.
#ifndef POSTKEEPER_ZKSTORE_RENDEZVOUS_H_
#define POSTKEEPER_ZKSTORE_RENDEZVOUS_H_

#include <optional>
#include <span>

#include "zkstore/layout.h"

namespace postkeeper {

// Rendezvous hashing (Thaler and Ravishankar, 1996): each pair of log and replica has a weight, and the heaviest
// replica is chosen. Logs are spread evenly; a replica that joins takes only its own share from the others, and the
// logs of one that leaves are spread over all. nullopt if there are no replicas. The order of `replicas` does not
// matter.
std::optional<ProcessId> ChooseOwner(const Uid& log, std::span<const ProcessId> replicas);

}  // namespace postkeeper

#endif  // POSTKEEPER_ZKSTORE_RENDEZVOUS_H_
