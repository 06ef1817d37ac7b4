#include "zkstore/rendezvous.h"

#include <xxhash.h>

#include <string>
#include <utility>

#include "zkstore/text.h"

namespace postkeeper {

std::optional<ProcessId> ChooseOwner(const Uid& log, std::span<const ProcessId> replicas) {
  std::optional<std::pair<XXH64_hash_t, ProcessId>> heaviest;
  for (const ProcessId& replica : replicas) {
    const std::string pair = Cat(log.ToBytes(), replica.ToBytes());
    const std::pair<XXH64_hash_t, ProcessId> weighed(XXH3_64bits(pair.data(), pair.size()), replica);
    if (!heaviest || *heaviest < weighed) heaviest = weighed;
  }
  if (!heaviest) return std::nullopt;
  return heaviest->second;
}

}  // namespace postkeeper
