// Which of the other replicas this one reaches.
#ifndef POSTKEEPER_SERVICE_PEER_WATCH_H_
#define POSTKEEPER_SERVICE_PEER_WATCH_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "zkstore/environment.h"

namespace postkeeper {

// Replicas can be registered and yet not reach one another; calls for the logs of one that is not reached wait in vain.
// So every replica keeps a connection to each of the others, and says in its log and in a gauge which it has not had
// for kPatience.
//
// Look is to be called by one thread, about once a second; unreachable() is thread-safe.
class PeerWatch {
 public:
  static constexpr Duration kPatience = std::chrono::seconds(5);

  // `is_connected` says whether there is a connection to an address now, and sees to it that there soon is one.
  PeerWatch(Environment& environment, std::function<bool(const std::string& address)> is_connected);

  // At the addresses of the other replicas, as they are registered now.
  void Look(const std::vector<std::string>& addresses);
  // How many of them cannot be reached.
  std::int64_t unreachable() const { return unreachable_; }

 private:
  struct Peer {
    Instant last_connected;  // or first seen
    bool is_unreachable = false;
  };

  Environment& environment_;
  const std::function<bool(const std::string&)> is_connected_;
  std::map<std::string, Peer> peers_;
  std::atomic<std::int64_t> unreachable_ = 0;
};

}  // namespace postkeeper

#endif  // POSTKEEPER_SERVICE_PEER_WATCH_H_
