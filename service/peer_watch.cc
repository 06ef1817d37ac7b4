#include "service/peer_watch.h"

#include <algorithm>
#include <utility>

#include "service/logging.h"

namespace postkeeper {

PeerWatch::PeerWatch(Environment& environment, std::function<bool(const std::string& address)> is_connected)
    : environment_(environment), is_connected_(std::move(is_connected)) {}

void PeerWatch::Look(const std::vector<std::string>& addresses) {
  const Instant now = environment_.Now();
  std::erase_if(peers_,
                [&](const auto& entry) { return std::ranges::find(addresses, entry.first) == addresses.end(); });
  for (const std::string& address : addresses) {
    Peer& peer = peers_.try_emplace(address, Peer{.last_connected = now}).first->second;
    if (is_connected_(address)) {
      peer.last_connected = now;
      if (std::exchange(peer.is_unreachable, false)) LogInfo("reaches the replica again", {{"address", address}});
    } else if (!peer.is_unreachable && now - peer.last_connected >= kPatience) {
      peer.is_unreachable = true;
      LogWarning("cannot reach the replica", {{"address", address}});
    }
  }
  unreachable_ = std::ranges::count_if(peers_, [](const auto& entry) { return entry.second.is_unreachable; });
}

}  // namespace postkeeper
